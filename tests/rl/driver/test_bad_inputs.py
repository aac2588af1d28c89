"""Every mistake a user can make ends in one clear message: what is wrong, what to do, and no traceback.

Exit code 2: the request was wrong, and neither Ray nor a process of ours was started; 1: the run failed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from safetensors.torch import load_file, save_file

from models.tiny.create import main as create
from rl.run.metrics import read_rows
from tests.rl.support.bad_rewards import hangs, hangs_on_some, is_bad, not_a_number
from tests.rl.support.command_line import CommandLine
from tests.rl.support.training import SMALL, small_run

ROOT = Path(__file__).parents[3]
NO_LIMIT = "reward.max_failed_fraction=1.0"


@pytest.fixture
def damaged(model: Path, tmp_path: Path) -> Path:
    """A copy of the model, for a test to damage."""
    return Path(shutil.copytree(model, tmp_path / "damaged"))


def training(model: Path, folder: Path, *overrides: str) -> list[str]:
    return ["train", *SMALL, f"model.path={model}", f"run.folder={folder}", "run.name=bad", *overrides]


def rows_of(path: Path, rows: list[dict[str, Any]]) -> list[str]:
    """Overrides that train on these rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["data=jsonl", f"data.train.name={path}", "data.train.size=null", "data.evaluation=null"]


# The configuration


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("algorithm.clop=1", "algorithm.clop does not exist; did you mean algorithm.clip?"),
        ("rollout.group_size=four", "rollout.group_size=four is not possible: expected a whole number"),
        ("model=nope", "model=nope does not exist files of model: "),
        ("=3", "cannot read '=3': expected key=value"),
        ("quickstart", "expected key=value; did you mean recipe=quickstart?"),
        (
            "rollout.group_size=1",
            "a group of one has no spread, advantage=zscore would be zero for every sample",
        ),
        ("rollout.sampler.max_new_tokens=250", "need 316 positions, sdar has 256; lower one of them"),
    ],
)
def test_configuration(denoiserl: CommandLine, model: Path, tmp_path: Path, override: str, expected: str) -> None:
    assert expected in denoiserl.refuses(*training(model, tmp_path), override)


def test_a_bidirectional_model_has_no_block_cache(denoiserl: CommandLine, tmp_path: Path) -> None:
    create("full", str(tmp_path / "full"))
    message = denoiserl.refuses(*training(tmp_path / "full", tmp_path), "rollout.sampler.cache=block")
    assert "cache=block: llada is bidirectional" in message
    assert "use cache=none" in message


def test_run_folder_that_cannot_be_written(denoiserl: CommandLine, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = denoiserl.refuses(*training(model, tmp_path / "file"))
    assert f"run folder {tmp_path}/file/bad cannot be written" in message
    assert "choose another run.folder" in message


def test_the_whole_path_prints_one_error_and_no_traceback(tmp_path: Path) -> None:
    """What the other tests do in this process, once as the user does it."""
    command = [sys.executable, "-m", "rl.cli", *training(tmp_path / "nowhere", tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith(f"error: checkpoint '{tmp_path}/nowhere': there is no such folder")
    assert finished.stderr.count("\n") == 1


# The checkpoint


@pytest.mark.parametrize("kept", [0, 200, -1000])
def test_truncated_weights(denoiserl: CommandLine, damaged: Path, tmp_path: Path, kept: int) -> None:
    file = damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    message = denoiserl.refuses(*training(damaged, tmp_path))
    assert f"{file}: truncated or corrupt safetensors file" in message
    assert "copy or download it again" in message


def test_no_weights(denoiserl: CommandLine, damaged: Path, tmp_path: Path) -> None:
    (damaged / "model.safetensors").unlink()
    assert "model.safetensors: no such file; the weights must be" in denoiserl.refuses(*training(damaged, tmp_path))


def test_tokenizer_without_a_mask_token(denoiserl: CommandLine, damaged: Path, tmp_path: Path) -> None:
    for name, key in (("config.json", "mask_token_id"), ("tokenizer_config.json", "mask_token")):
        content = json.loads((damaged / name).read_text())
        del content[key]
        (damaged / name).write_text(json.dumps(content))
    message = denoiserl.refuses(*training(damaged, tmp_path))
    assert f"checkpoint {damaged}: tokenizer without a mask token" in message
    assert 'add "mask_token_id" to config.json' in message


def test_weights_with_nan(denoiserl: CommandLine, damaged: Path, tmp_path: Path, cluster: None) -> None:
    tensors = load_file(damaged / "model.safetensors")
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    message = denoiserl.fails(*training(damaged, tmp_path))
    assert "the model's logits are not finite" in message
    assert "the checkpoint's weights are damaged" in message
    assert read_rows(tmp_path / "bad/metrics.jsonl") == []


def test_a_misfit_tensor_is_reported_as_itself_by_the_process_that_loads(
    denoiserl: CommandLine, damaged: Path, tmp_path: Path, cluster: None
) -> None:
    tensors = load_file(damaged / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    assert "no tensor lm_head.weight" in denoiserl.fails(*training(damaged, tmp_path))


# The data


def test_empty_data(denoiserl: CommandLine, model: Path, tmp_path: Path) -> None:
    data = rows_of(tmp_path / "empty.jsonl", [])
    assert "empty.jsonl has no rows" in denoiserl.refuses(*training(model, tmp_path, *data))


def test_a_broken_line(denoiserl: CommandLine, model: Path, tmp_path: Path) -> None:
    data = rows_of(tmp_path / "rows.jsonl", [{"prompt": "1", "response": "2"}])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"prompt": \n')
    assert "rows.jsonl, line 2: not JSON" in denoiserl.refuses(*training(model, tmp_path, *data))


def test_a_long_prompt_is_named(denoiserl: CommandLine, model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "1", "response": "2"}] * 3 + [{"prompt": "1 " * 100, "response": "2"}]
    message = denoiserl.refuses(*training(model, tmp_path, *rows_of(tmp_path / "rows.jsonl", rows)))
    assert "the prompt of rows.jsonl/3 has" in message
    assert "more than data.max_prompt_tokens=64: raise the limit, remove the problem, or leave out all" in message


# The reward


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("no_such_module.score", "importing 'no_such_module' failed with ModuleNotFoundError"),
        ("tests.rl.support.rewards.share_of_twos", "nearest names it has: share_of_ones"),
        ("tests.rl.support.training.SMALL", "names a value of type list, which cannot be called"),
    ],
)
def test_reward_path(denoiserl: CommandLine, model: Path, tmp_path: Path, function: str, expected: str) -> None:
    message = denoiserl.refuses(*training(model, tmp_path), f"reward.terms.answer.function={function}")
    assert f"reward.terms.answer: reward function '{function}'" in message
    assert expected in message


def reward(function: Any, deadline: float) -> list[str]:
    name = f"tests.rl.support.bad_rewards.{function.__name__}"
    return [f"reward.terms.answer.function={name}", f"reward.timeout_seconds={deadline}"]


@pytest.mark.slow
def test_a_reward_that_hangs_costs_the_samples_it_hangs_on(
    denoiserl: CommandLine, model: Path, tmp_path: Path, cluster: None
) -> None:
    finished = denoiserl(*training(model, tmp_path, *reward(hangs_on_some, 0.3), NO_LIMIT, "run.updates=2"))
    assert finished.code == 0, finished.output
    assert "Traceback" not in finished.output
    failures = read_rows(tmp_path / "bad/failures.jsonl")
    assert failures
    assert all(row["kind"] == "timeout" and is_bad(row["completion"]) for row in failures)
    rows = read_rows(tmp_path / "bad/metrics.jsonl")
    assert len(rows) == 2
    assert [row["reward/unscored"] for row in rows] == [sum(f["update"] == u for f in failures) for u in (0, 1)]
    assert rows[-1]["learner/optimizer_updates"] == 2
    assert f"update {failures[0]['update']}: " in finished.output
    assert "samples could not be scored and were left out; first: answer: timeout: no answer within" in finished.output


def test_a_reward_that_always_hangs_stops_the_run(
    denoiserl: CommandLine, model: Path, tmp_path: Path, cluster: None
) -> None:
    message = denoiserl.fails(*training(model, tmp_path, *reward(hangs, 0.05), "reward.try_first=false"))
    assert "16 of 16 samples of update 0 could not be scored, more than reward.max_failed_fraction=0.05" in message
    assert "reward.max_failed_fraction=0.05; first: answer: timeout: no answer within" in message
    assert f"listed in {tmp_path}/bad/failures.jsonl" in message
    assert [row["kind"] for row in read_rows(tmp_path / "bad/failures.jsonl")] == ["timeout"] * 16


def test_a_reward_that_always_hangs_is_found_before_the_start(
    denoiserl: CommandLine, model: Path, tmp_path: Path, cluster: None
) -> None:
    message = denoiserl.fails(*training(model, tmp_path, *reward(hangs, 0.05)))
    assert "called once before the start, on a row of the data with completions that are made up, and failed" in message
    assert "(timeout): no answer within 0.05 s" in message
    assert not (tmp_path / "bad/failures.jsonl").exists()


@pytest.mark.slow
def test_a_reward_of_nan_is_not_a_score_in_evaluations_either(
    denoiserl: CommandLine, model: Path, tmp_path: Path, cluster: None
) -> None:
    evaluation = ["evaluation.every=1", "data.evaluation.size=4"]
    message = denoiserl.fails(*training(model, tmp_path, *reward(not_a_number, 0.3), *evaluation))
    assert "first: answer: not_finite: returned nan; a finite number below 1e+18, or None, is expected" in message
    assert "8 of 8 samples of evaluation after update 0 could not be scored" in message
    assert len(read_rows(tmp_path / "bad/failures.jsonl")) == 8


# The cluster


def test_more_learners_than_there_is_room_for(
    denoiserl: CommandLine, model: Path, tmp_path: Path, cluster: None
) -> None:
    finished = denoiserl(*training(model, tmp_path), "cluster.learners=8")
    assert finished.code == 1
    assert "the job needs 4.5 CPU (9 processes), the cluster has 4: lower cluster.learners" in finished.output
    assert "Traceback" not in finished.output


# Going on


@pytest.fixture(scope="module")
def finished_run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints after updates 2 and 4."""
    folder = tmp_path_factory.mktemp("finished")
    small_run(model, folder, "run.name=bad")
    return folder / "bad"


@pytest.fixture
def run_folder(finished_run: Path, tmp_path: Path) -> Path:
    """A copy, for a test to damage or continue."""
    return Path(shutil.copytree(finished_run, tmp_path / "runs" / "bad"))


def test_resume_with_another_group_size(denoiserl: CommandLine, model: Path, run_folder: Path) -> None:
    kept = (run_folder / "config.yaml").read_text()
    message = denoiserl.refuses(*training(model, run_folder.parent), "rollout.group_size=2")
    assert "rollout.group_size: 4 then, 2 now" in message
    assert "To continue it, use the old values; to start anew, choose another run.name" in message
    assert (run_folder / "config.yaml").read_text() == kept


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_a_damaged_checkpoint_is_refused_and_the_older_one_named(
    denoiserl: CommandLine, model: Path, run_folder: Path, damage: str
) -> None:
    file = run_folder / "checkpoints/u000004/weights-000004.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content if damage == "flipped" else content[:-100])
    finished = denoiserl(*training(model, run_folder.parent), "run.updates=5")
    assert finished.code == 1
    assert not finished.used_ray
    assert "Traceback" not in finished.output
    assert "u000004 is damaged: weights-000004.safetensors has" in finished.output
    newest, older = run_folder / "checkpoints/u000004", run_folder / "checkpoints/u000002"
    assert f"remove {newest} to go on from {older}" in finished.output


def test_a_killed_learner_is_named_and_the_run_goes_on_from_its_checkpoint(
    denoiserl: CommandLine, model: Path, tmp_path: Path, cluster: None
) -> None:
    def kill() -> None:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not (tmp_path / "bad/checkpoints/u000002").exists():
            time.sleep(0.02)
        learner = ray.get_actor("bad/learner-0")
        os.kill(ray.get(learner.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    message = denoiserl.fails(*training(model, tmp_path), "run.updates=400")
    thread.join()
    assert "learner-0 died" in message
    assert "run the same command again to go on from the newest checkpoint" in message
    done = len(read_rows(tmp_path / "bad/metrics.jsonl"))
    assert 2 <= done < 400
    resumed = denoiserl(*training(model, tmp_path), f"run.updates={done + 2}")
    assert resumed.code == 0, resumed.output
    assert "resuming after update" in resumed.output
    assert len(read_rows(tmp_path / "bad/metrics.jsonl")) == done + 2


# Evaluation, samples, export


@pytest.mark.parametrize("command", ["eval", "sample", "export"])
def test_commands_on_what_is_not_there(denoiserl: CommandLine, run_folder: Path, tmp_path: Path, command: str) -> None:
    def refused(run: Path, *options: str) -> str:
        target = [str(run), str(tmp_path / "exported")] if command == "export" else ["--run", str(run)]
        return denoiserl.refuses(command, *target, *options)

    assert f"{tmp_path} is not a run folder: it has no config.yaml" in refused(tmp_path)
    assert "holds no checkpoint after update 3; there are: 2, 4" in refused(run_folder, "--update", "3")
    shutil.rmtree(run_folder / "checkpoints")
    assert "checkpoints holds no checkpoint; there are: none" in refused(run_folder)


def test_export_to_impossible_places(denoiserl: CommandLine, run_folder: Path, tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").write_text("")
    assert f"{tmp_path}/file/x cannot be written" in denoiserl.refuses("export", run_folder, tmp_path / "file/x")
    assert "would be overwritten; choose another" in denoiserl.refuses("export", run_folder, model, "--overwrite")
    assert f"{model} is not empty (" in denoiserl.refuses("export", run_folder, model)
    assert "has no adapters" in denoiserl.refuses("export", run_folder, tmp_path / "adapter", "--adapter-only")

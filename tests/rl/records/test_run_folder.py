"""A run folder is read alike whether its run has ended, is under way or has crashed, and without heavy libraries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from configs.errors import ConfigError, UserError
from models.lora import trainable_parameters
from rl import compose, load_policy, open_run, sample, score, train
from rl.data.tickets import derive_seed
from rl.records.run_folder import RunFolder
from rl.run.checkpoint import new_checkpoint
from rollout.trajectory import Trajectory, write_parquet

LATEST = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """As a run would leave it behind after three updates."""
    path = tmp_path_factory.mktemp("runs") / "mine"
    path.mkdir()
    (path / "config.yaml").write_text(compose("quickstart", "run.name=mine").yaml)
    (path / "code.json").write_text(json.dumps({"commit": "abc"}))
    rows = [{"update": u, "reward/mean": 0.1 * u, "logp/max_error": None, "seconds/update": 1.0} for u in range(3)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation = {"evaluation/greedy/solve_rate": 0.5, "solved/greedy": [[1.0], [0.0], [float("nan")]]}
    evaluation |= {"rewards/greedy": [[2.0], [0.5], [float("nan")]], "terms/greedy/judge/form": [[4.0], [1.0], [0.0]]}
    lines = [json.dumps({"update": u, **evaluation}) for u in (0, 2)]
    (path / "evaluations.jsonl").write_text("\n".join(lines) + "\n")
    failure = {"update": 1, "index": 0, "term": "answer", "kind": "timeout", "message": "m", "completion": "c"}
    (path / "failures.jsonl").write_text(json.dumps(failure) + "\n")
    (path / "summary.json").write_text(json.dumps({"steps": 3}))
    samples = sample(load_policy("tiny/block", device="cpu"), ["1 2", "3"], count=2, sampler={"max_new_tokens": 8})
    groups = [t.with_rewards(np.array([0.0, np.nan])) for t in samples.trajectories]
    (path / "trajectories").mkdir()
    for update in (0, LATEST):
        write_parquet([drawn(group, update) for group in groups], path / f"trajectories/u{update:06d}.parquet")
    return path


def drawn(group: Trajectory, update: int, seed: int = 0) -> Trajectory:
    """As the run with this seed would have drawn it: two tickets make an update."""
    return replace(group, update=update, ticket=2 * update, seed=derive_seed(seed, "train", 2 * update))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "mine"))


def test_a_run_that_has_ended(folder):
    run = open_run(folder)
    assert (run.name, run.updates, run.finished, run.code["commit"]) == ("mine", 3, True, "abc")
    assert run.config.run.name == "mine"
    assert "mask" not in run.summary
    assert run.metrics.index.tolist() == [0, 1, 2]
    assert run.metrics["reward/mean"].iloc[2] == pytest.approx(0.2)
    assert run.metrics["logp/max_error"].isna().all()
    assert run.evaluations.columns.tolist() == ["evaluation/greedy/solve_rate"]
    outcomes = run.outcomes()
    assert outcomes.columns.tolist() == [0, 2]
    assert outcomes.index.names == ["problem", "sample"]
    assert outcomes[2].tolist()[:2] == [1.0, 0.0]
    assert np.isnan(outcomes[2].iloc[2])
    assert run.outcomes(of="reward")[2].tolist()[:2] == [2.0, 0.5]
    assert run.outcomes(of="judge/form")[0].tolist() == [4.0, 1.0, 0.0]
    assert run.failures.loc[0, "kind"] == "timeout"
    assert run.sampled_updates == [0, LATEST]
    assert len(run.trajectories()) == 2
    assert run.trajectories(0)[0].group_size == 2
    table = run.samples()
    assert table["sample"].tolist() == [0, 1, 0, 1]
    assert table["prompt"].str.contains("1 2").sum() == 2
    assert table["reward"].isna().tolist() == [False, True, False, True]
    assert (table["log_prob"] < 0).all()
    assert run.checkpoints == []
    assert run.pictures == {}
    for call, message in [
        (lambda: run.trajectories(1), "there are: 0, 2"),
        (lambda: run.outcomes("sampled"), "no sampled evaluation"),
        (lambda: run.outcomes(of="form"), "no 'form' of its greedy evaluations: of=solved or reward or judge/form"),
        (lambda: run.weights(), "no checkpoint"),
        (lambda: open_run(folder.parent), "is not a run folder"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_samples_of_another_update_or_run_are_not_shown_as_these(copy):
    first, latest = (copy / f"trajectories/u{update:06d}.parquet" for update in (0, LATEST))
    group = open_run(copy).trajectories(0)[0]
    shutil.copy(latest, first)
    with pytest.raises(UserError, match=r"u000000.parquet holds samples of update 2 .* restore the file, or remove it"):
        open_run(copy).samples(0)
    write_parquet([drawn(group, 0, seed=1)], first)
    with pytest.raises(UserError, match=r"which are not those of this run's update 0"):
        open_run(copy).samples(0)
    refill = replace(group, ticket=1 << 40, seed=7)
    write_parquet([drawn(group, 0), refill], first)
    assert len(open_run(copy).trajectories(0)) == 2


def test_a_run_that_is_under_way(copy):
    """A row, a summary, a checkpoint and a file of trajectories that are just being written are not there yet."""
    (copy / "summary.json").unlink()
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"update": 3, "rew')
    (copy / "trajectories/.u000003.parquet").write_bytes(b"PAR1")
    (copy / "checkpoints/u000002.tmp-1").mkdir(parents=True)
    run = open_run(copy)
    assert (run.updates, run.finished, run.sampled_updates, run.checkpoints) == (3, False, [0, 2], [])
    assert run.idle_seconds < 60
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('ard/mean": 0.5}\n')
    assert run.updates == 4
    assert run.metrics["reward/mean"].iloc[-1] == 0.5
    (copy / "summary.json").write_text('{"steps"')
    assert run.summary == {}
    assert not run.finished


def test_a_run_that_crashed_at_once(copy):
    for file in copy.iterdir():
        if file.name != "config.yaml":
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    os.utime(copy / "config.yaml", (time.time() - 3600,) * 2)
    run = open_run(copy)
    assert (run.updates, run.finished, run.code, run.summary) == (0, False, {}, {})
    assert run.metrics.empty
    assert run.evaluations.empty
    assert run.failures.empty
    assert run.sampled_updates == []
    assert run.idle_seconds == pytest.approx(3600, abs=60)
    with pytest.raises(ValueError, match=r"run.keep_trajectories"):
        run.trajectories()


def test_reading_loads_neither_ray_nor_deepspeed_nor_torch(folder):
    program = (
        "import sys\nfrom rl import open_run\n"
        f"run = open_run({str(folder)!r})\n"
        "run.metrics, run.evaluations, run.outcomes(), run.failures, run.samples(), run.checkpoints, run.config\n"
        "print(*(name for name in ('torch', 'ray', 'deepspeed') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_texts_are_those_that_rewards_saw(folder):
    run = RunFolder(folder)
    samples = sample(load_policy("tiny/block", device="cpu"), ["1 2", "3"], count=2, sampler={"max_new_tokens": 8})
    assert run.samples()["text"].tolist() == [text for group in samples.texts for text in group]


def test_a_run_is_read_though_nobody_has_set_what_its_reward_was_told(copy, monkeypatch, denoiserl):
    """Its tables, its policy and its samples; what is scored needs it."""
    monkeypatch.setenv("JUDGE_KEY", "hush")
    key = "reward.terms.answer.args={key: '${oc.env:JUDGE_KEY}'}"
    (copy / "config.yaml").write_text(compose("quickstart", "run.name=mine", key).yaml)
    policy = load_policy("tiny/block", device="cpu")
    with new_checkpoint(copy / "checkpoints", LATEST, {"update": LATEST}, keep=1) as checkpoint:
        save_file(trainable_parameters(policy.worker.policy), checkpoint / f"weights-{LATEST:06d}.safetensors")
    monkeypatch.delenv("JUDGE_KEY")

    run = open_run(copy)
    assert run.config.reward.terms["answer"].args["key"] == "${oc.env:JUDGE_KEY}"
    assert (run.updates, len(run.metrics), len(run.evaluations), len(run.samples())) == (3, 3, 2, 4)
    for source in (run, copy):
        assert load_policy(source, device="cpu").version == LATEST
    short = "rollout.sampler.max_new_tokens=4"
    assert denoiserl("sample", short, "--run", copy, "--prompt", "1 2").code == 0
    assert denoiserl("export", copy, copy / "exported").code == 0

    said = "reward.terms.answer.args.key needs the environment variable JUDGE_KEY, which is not set"
    assert said in denoiserl.refuses("pairs", "--run", copy, "--output", copy / "pairs.jsonl", "--gap", "0.5")
    assert said in denoiserl.refuses("eval", "--run", copy)
    for use in (lambda: score(run.config, ["a"]), lambda: train(run.config)):
        with pytest.raises(ConfigError, match="JUDGE_KEY"):
            use()

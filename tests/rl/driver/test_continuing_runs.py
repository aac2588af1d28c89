"""Starting a run again under its name continues it, or says why not; no results are lost and none are mixed."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from configs.compose import compose
from configs.errors import UserError
from models.tiny.create import main as create
from rl.driver.in_process import Trained, train_in_process
from rl.run.callback import Callback
from rl.run.checkpoint import MANIFEST, CheckpointError, read_state, seal
from rl.run.metrics import read_rows
from rl.storage.lock import FolderLock
from tests.rl.support.training import SMALL

ONE_UPDATE = ["run.updates=1", "run.checkpoint_every=1", "rollout.prompts_per_update=2"]
EVALUATED = ["evaluation.every=1", "data.evaluation.size=4", "evaluation.prompts_per_ticket=4"]


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory) -> Path:
    """Where a run lies that has ended."""
    folder = tmp_path_factory.mktemp("finished")
    run(model, folder, *EVALUATED)
    return folder


def run(model: Path, folder: Path, *overrides: str, **arguments: Any) -> tuple[Trained, str]:
    """What came out, and what was said."""
    said = io.StringIO()
    options = [*SMALL, *ONE_UPDATE, f"model.path={model}", f"run.folder={folder}", "run.name=mine", *overrides]
    trained = train_in_process(compose(options), Console(file=said, width=1000), shown=True, **arguments)
    return trained, said.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_not_continued_as_another_one(model, finished):
    before = contents(finished)
    for change in (
        ["algorithm=dipo", "reward.terms.answer.function=math", "algorithm.optimizer.learning_rate=1e-2"],
        ["reward.terms.answer.weight=2"],
        ["data.train.seed=5"],
        ["model.lora.rank=4"],
        ["cluster.zero_stage=2"],
        ["model.precision=bf16", "cluster.zero_stage=1"],
    ):
        with pytest.raises(UserError, match="would not continue the run") as caught:
            run(model, finished, *EVALUATED, *change)
        assert change[0].partition("=")[0].split(".")[0] in str(caught.value)
    assert contents(finished) == before


def test_another_model_of_the_same_name_is_seen_and_the_same_under_another_name_is_not(model, finished, tmp_path):
    other, moved = tmp_path / "other", tmp_path / "moved"
    create("block", str(moved))
    _, said = run(moved, finished, *EVALUATED)
    assert "goes on with other values of model.path" in said
    create("full", str(other))
    with pytest.raises(UserError, match=r"what model\.path holds"):
        run(other, finished, *EVALUATED)


def test_evaluations_of_other_problems_are_not_compared(model, finished, tmp_path):
    folder = Path(tmp_path / "copy")
    run(model, folder, *EVALUATED)
    assert "eval_before" in json.loads((folder / "mine/summary.json").read_text())
    trained, said = run(model, folder, *EVALUATED, "data.evaluation.size=5")
    assert "evaluations are other ones from here on" in said
    assert "the gain is paired over the same problems" not in said
    assert not {"eval_before", "held_out"} & json.loads((folder / "mine/summary.json").read_text()).keys()
    assert [row["update"] for row in trained.evaluations] == [0, 1, 1]  # the old ones are kept


def test_a_run_without_a_checkpoint_begins_anew_and_keeps_what_was_there(model, tmp_path):
    for _ in range(3):
        _, said = run(model, tmp_path, "run.checkpoint_every=0")
    assert "no checkpoint to go on from" in said
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700  # nobody else reads prompts and texts
    kept = [read_rows(tmp_path / name / "metrics.jsonl") for name in ("mine", "mine.1", "mine.2")]
    assert [len(rows) for rows in kept] == [1, 1, 1]
    assert all(len(list((tmp_path / name / "trajectories").iterdir())) == 1 for name in ("mine", "mine.1", "mine.2"))


def test_two_runs_in_one_folder_are_refused(model, finished):
    before = contents(finished)

    class Again(Callback):
        def on_start(self, folder: Path, first_update: int) -> None:
            with pytest.raises(UserError, match="is in use"):
                run(model, finished, *EVALUATED, "run.resume=false")

    run(model, finished, *EVALUATED, callbacks=[Again()])
    rows = "mine/metrics.jsonl"
    assert contents(finished)[rows] == before[rows]
    FolderLock(finished / "mine").release()  # it is free again


def test_fewer_updates_than_there_are_is_a_mistake(model, finished, tmp_path):
    run(model, tmp_path, "run.updates=2")
    with pytest.raises(UserError, match=r"has 2 updates, and run\.updates=1 wants fewer"):
        run(model, tmp_path)


def test_weights_that_the_optimizer_does_not_hold_are_not_gone_on_with(model, finished, tmp_path):
    """Published and trained weights of a checkpoint are the same, or one of them is somebody else's."""
    mine = Path(shutil.copytree(finished / "mine", tmp_path / "mine"))
    checkpoint = mine / "checkpoints/u000001"
    state, file = read_state(checkpoint), checkpoint / "weights-000001.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] += 1
    save_file(tensors, file)
    (checkpoint / MANIFEST).unlink()
    seal(checkpoint, state)
    with pytest.raises(CheckpointError, match=rf"1 of its \d+ published weights are not .*such as {name}\. Restore it"):
        run(model, tmp_path, *EVALUATED, "run.updates=2")


def test_a_run_goes_on_with_its_own_record_only(model, finished, tmp_path):
    mine = Path(shutil.copytree(finished / "mine", tmp_path / "mine"))
    (mine / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"metrics.jsonl is not what this run had written"):
        run(model, tmp_path, *EVALUATED, "run.updates=2")


class Touches:
    """What a pickle can do: call anything when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_runs_nothing(model, tmp_path):
    """Pickles among its files, under the names that DeepSpeed reads and with a manifest that fits, are never loaded."""
    run(model, tmp_path)
    checkpoint, touched = tmp_path / "mine/checkpoints/u000001", tmp_path / "touched"
    assert {path.suffix for path in checkpoint.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    for name in ("deepspeed/mp_rank_00_model_states.pt", "deepspeed/zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        torch.save({"module": Touches(touched)}, checkpoint / name)
    state = read_state(checkpoint)
    (checkpoint / MANIFEST).unlink()
    seal(checkpoint, state)
    trained, _ = run(model, tmp_path, "run.updates=2")
    assert [row["update"] for row in trained.metrics] == [0, 1]
    assert not touched.exists()
    torch.load(checkpoint / name, weights_only=False)  # the control
    assert touched.exists()

"""A run of an earlier version goes on from its migrated checkpoints as if it never stopped, and keeps the old ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rl.commands.migrate import migrate_run
from rl.run import checkpoint
from rl.run.checkpoint import MANIFEST, CheckpointError, OtherFormat, newest_complete, read_state, seal
from tests.rl.learner.test_deepspeed_files import Touches, save_as_deepspeed
from tests.rl.support.command_line import CommandLine
from tests.rl.support.training import assert_same_weights, small_run

FEW = ["rollout.prompts_per_update=2", "data.train.size=8", "run.keep_trajectories=0", "run.snapshot_gib=0"]
VALUED = ["algorithm=tracerl_value", "algorithm.minibatches=2", "algorithm.value.optimizer.learning_rate=1e-3", *FEW]


@pytest.fixture(scope="module")
def old(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with a value model that stopped after two of four updates, its checkpoint in format 1."""
    folder = tmp_path_factory.mktemp("old")
    with pytest.MonkeyPatch.context() as patch:
        for room in ("optimizer_state", "value_model"):
            patch.setattr(
                f"rl.learner.{room}.save_state", lambda engine, files: save_as_deepspeed(engine, files.folder)
            )
        patch.setattr(checkpoint, "FORMAT", checkpoint.PICKLES)
        small_run(model, folder, "run.name=mine", "run.updates=2", *VALUED)
    return folder / "mine"


@pytest.fixture
def copied(old: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(old, tmp_path / "mine"))


def test_the_refusal_names_the_command(copied: Path, denoiserl: CommandLine) -> None:
    with pytest.raises(OtherFormat, match=rf"has format 1, .*`denoiserl migrate {copied}`"):
        newest_complete(copied / "checkpoints")
    finished = denoiserl("export", copied, copied.with_name("exported"))
    assert finished.code == 1
    assert f"denoiserl migrate {copied}" in finished.output


def test_a_migrated_run_ends_as_one_that_never_stopped(copied: Path, model: Path, denoiserl: CommandLine) -> None:
    root = copied / "checkpoints"
    before, kept = contents(root / "u000002"), root / "u000002.format-1"
    said = denoiserl("migrate", copied).output
    assert f"{root / 'u000002'} can be read now; what was there is kept as {kept}" in said
    assert contents(kept) == before
    assert not [name for name in contents(root / "u000002") if name.endswith(".pt")]
    small_run(model, copied.parent, "run.name=mine", *VALUED)
    small_run(model, copied.parent, "run.name=straight", *VALUED)
    assert_same_weights(copied, copied.with_name("straight"))
    assert contents(kept) == before
    assert "nothing to migrate" in denoiserl.refuses("migrate", copied)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_might_run_is_refused_and_left_as_it_was(copied: Path) -> None:
    import torch

    folder, touched = copied / "checkpoints/u000002", copied / "touched"
    torch.save({"module": Touches(touched)}, folder / "value/deepspeed/mp_rank_00_model_states.pt")
    with pytest.raises(CheckpointError, match="is damaged: value/deepspeed"):
        migrate_run(copied)
    sealed_as_before(folder)
    with pytest.raises(CheckpointError, match=r"might run: nothing of it was loaded\. It is as it was"):
        migrate_run(copied)
    assert not touched.exists()
    assert [path.name for path in folder.parent.iterdir()] == ["u000002"]


def sealed_as_before(folder: Path) -> None:
    """Someone made the sums fit."""
    state = read_state(folder, checkpoint.PICKLES)
    (folder / MANIFEST).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", checkpoint.PICKLES)
        seal(folder, state)


def test_a_file_that_nobody_knows_is_refused(copied: Path) -> None:
    (copied / "checkpoints/u000002/notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"notes\.txt is nothing that a run writes there"):
        migrate_run(copied)


def test_what_was_killed_between_its_renames_is_migrated(copied: Path) -> None:
    root = copied / "checkpoints"
    (root / "u000002").rename(root / "u000002.format-1")
    migrate_run(copied)
    assert newest_complete(root, check_crc=True) == root / "u000002"


def test_a_run_that_never_recorded_its_configuration_can_be_read_but_not_continued(
    copied: Path, model: Path, denoiserl: CommandLine
) -> None:
    folder = copied / "checkpoints/u000002"
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", checkpoint.PICKLES)
        seal(folder, {"update": 2, "schedule": {}, "advantages": manifest["state"]["advantages"]})
    migrate_run(copied)
    with pytest.raises(ValueError, match="before runs recorded their whole configuration"):
        small_run(model, copied.parent, "run.name=mine", *VALUED)
    denoiserl("export", copied, copied.with_name("exported"))

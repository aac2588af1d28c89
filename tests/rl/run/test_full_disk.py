"""A run whose disk is full ends by name, keeps its last checkpoint, and goes on when there is room."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from configs.compose import compose
from configs.errors import UserError
from rl.driver.in_process import train_in_process
from rl.run.callback import Callback
from rl.storage.disk import CannotWrite
from tests.rl.storage.test_disk import no_file_above
from tests.rl.support.training import SMALL, metrics

ROOT = Path(__file__).parents[3]
RUN = ["run.updates=2", "run.checkpoint_every=1", "rollout.prompts_per_update=2", "data.train.size=8", "run.name=mine"]


def options(model: Path, folder: Path, *overrides: str) -> list[str]:
    return [*SMALL, *RUN, f"model.path={model}", f"run.folder={folder}", *overrides]


def run(model: Path, folder: Path, *overrides: str, callback: Callback | None = None) -> str:
    """What was said."""
    said = io.StringIO()
    callbacks = [] if callback is None else [callback]
    train_in_process(compose(options(model, folder, *overrides)), Console(file=said, width=1000), None, callbacks)
    return said.getvalue()


@pytest.fixture(scope="module")
def begun(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with one of two updates."""
    folder = tmp_path_factory.mktemp("begun")
    run(model, folder, "run.updates=1")
    return folder / "mine"


@pytest.fixture
def copied(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path / "mine"))


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_checkpoint_that_does_not_fit_leaves_the_older_one_and_the_run_goes_on_from_it(
    model: Path, copied: Path
) -> None:
    first = contents(copied / "checkpoints")
    (copied / "checkpoints/u000009.tmp-99999999").mkdir()
    (copied / ".summary.tmp-99999999.json").touch()
    with no_file_above(20_000), pytest.raises(CannotWrite) as caught:
        run(model, copied.parent)
    assert f"cannot write {copied}/checkpoints/u000002: File too large. " in str(caught.value)
    assert f"; then the same command goes on from {copied}/checkpoints/u000001" in str(caught.value)
    assert contents(copied / "checkpoints") == first
    assert not [name for name in contents(copied) if "tmp-" in name]
    run(model, copied.parent)
    assert len(metrics(copied)) == 2


def test_a_record_that_cannot_be_written_ends_the_run(model: Path, tmp_path: Path) -> None:
    class Full(Callback):
        def on_checkpoint(self, update: int, folder: Path) -> None:
            (tmp_path / "mine/metrics.jsonl").unlink()
            (tmp_path / "mine/metrics.jsonl").symlink_to("/dev/full")

    with pytest.raises(CannotWrite) as caught:
        run(model, tmp_path, callback=Full())
    assert f"cannot write {tmp_path}/mine/metrics.jsonl: No space left on device. " in str(caught.value)
    assert f"make room there; then the same command goes on from {tmp_path}/mine/checkpoints/u000001" in str(
        caught.value
    )


def test_the_same_is_said_before_the_start(model: Path, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(copied)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1 << 30, 1 << 30, 0))
    with pytest.raises(UserError) as caught:
        run(model, copied.parent)
    expected = [
        f"run folder {copied} cannot be written: ",
        "a checkpoint takes ",
        "0 B of 1.0 GiB are free",
        "make room",
    ]
    assert all(part in str(caught.value) for part in expected)
    assert str(caught.value).endswith(f"; then the same command goes on from {copied}/checkpoints/u000001")
    assert contents(copied) == before
    with pytest.raises(CannotWrite, match=r"a checkpoint takes .*the same command begins anew"):
        run(model, copied.parent, "run.name=other")  # its size is known when the learners are there


def test_what_is_only_looked_at_is_done_without(model: Path, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rl.drawing.plots.reward_curve", full)
    (copied / "reward_curve.png").unlink()
    said = run(model, copied.parent)
    assert "the reward curve cannot be kept: cannot write" in said
    assert (copied / "summary.json").exists()
    assert not (copied / "reward_curve.png").exists()


TRAIN = """
import sys
from configs.compose import compose
from rl.cli import main
from rl.driver import in_process, train
train.train = in_process.train_in_process  # as the command does it, and cheaper
main()
"""


@pytest.mark.slow
def test_a_real_disk_that_fills(model: Path, tmp_path: Path) -> None:
    """Of some MiB, in a name space of its own: no checkpoint but the first fits, now or at the next start."""
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run([*mount, f"mount -t tmpfs -o size=1m none {disk}"], capture_output=True).returncode:
        pytest.skip("the kernel lets nobody mount a tmpfs in a user name space")
    checkpoint = tmp_path / "size"
    run(model, checkpoint, "run.updates=1")
    taken = sum(path.stat().st_size for path in (checkpoint / "mine/checkpoints").rglob("*"))
    words = options(model, disk, "run.updates=3", "run.keep_checkpoints=3")
    command = f"{sys.executable} -c '{TRAIN}' train \"$@\"; echo code $? checkpoints $(ls {disk}/mine/checkpoints)"
    script = (
        f"mount -t tmpfs -o size={int(taken * 1.6)} none {disk} || exit 99\n"
        f"{command}\n"
        f"cat /dev/zero > {disk}/fill\n"
        f"{command}\n"
        f"rm {disk}/fill; mount -o remount,size={taken * 6} {disk}\n"
        f"{command}\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*mount, script, "sh", *words], capture_output=True, text=True, cwd=ROOT, env=environment)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert re.findall(r"code (\d) checkpoints (.*)", said) == [
        ("1", "u000001"),
        ("2", "u000001"),
        ("0", "u000001 u000002 u000003"),
    ], said
    assert said.count(f"; then the same command goes on from {disk}/mine/checkpoints/u000001") == 2
    assert f"cannot write {disk}/mine: No space left on device. 0 B of " in said

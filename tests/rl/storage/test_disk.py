"""Whatever library it is whose write the system refuses: one message, the old file as it was, no half a new one."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import matplotlib.figure
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tensorboard.compat.proto.event_pb2 import Event

from rl.storage.disk import CannotWrite, append, check_room, remove_unfinished, replacing, size, writing
from rl.storage.events import EventFile
from rl.storage.speaking import unfailing


@contextmanager
def no_file_above(count: int) -> Iterator[None]:
    """The kernel refuses what would make a file larger, in the middle of a write, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_is_appended_or_not(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, "first\n")
    with no_file_above(20), pytest.raises(CannotWrite, match=rf"cannot write {path}: File too large\. .* are free in"):
        append(path, "a line that does not fit\n")
    assert path.read_text() == "first\n"
    append(path, "second\n")
    assert path.read_text() == "first\nsecond\n"


def picture(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)


WRITES: dict[str, Callable[[Path], object]] = {
    "text.json": lambda path: path.write_text("x" * 5000),
    "weights.safetensors": lambda path: save_file({"w": torch.zeros(5000)}, path),
    "u000001.parquet": lambda path: pyarrow.parquet.write_table(
        pyarrow.table({"a": np.random.default_rng(0).random(5000)}), path
    ),
    "picture.png": picture,
    "curve.png": lambda path: matplotlib.figure.Figure().savefig(path),
}


@pytest.mark.parametrize("name", WRITES)
def test_every_library_has_the_same_message_and_the_old_file_stays(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("old")
    with (
        no_file_above(1000),
        pytest.raises(CannotWrite, match=rf"cannot write {path}: File too large\. .*: raise the limit on the size"),
        replacing(path) as file,
    ):
        WRITES[name](file)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [name]
    with replacing(path) as file:
        WRITES[name](file)
    assert path.stat().st_size > 1000
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device. {room}: make room there"),
        (errno.EDQUOT, "Disk quota exceeded. {room}: make room within the quota there, or have it raised"),
        (errno.EROFS, "Read-only file system. {room}: mount it so that it can be written"),
        (errno.EACCES, "Permission denied. {room}: give this user the right to write there"),
        (errno.EIO, "Input/output error. {room}: see to that, or choose another run.folder"),
    ],
)
def test_each_cause_has_its_way_out(tmp_path: Path, number: int, advice: str) -> None:
    with pytest.raises(CannotWrite) as caught, writing(tmp_path / "not/there"):
        raise OSError(number, os.strerror(number))
    before, _, after = advice.partition("{room}")
    assert str(caught.value).startswith(f"cannot write {tmp_path}/not/there: {before}")
    assert str(caught.value).endswith(f"B are free in {tmp_path}{after}")


def test_a_name_that_no_folder_takes_is_said_too(tmp_path: Path) -> None:
    """Looking for the room beside it fails in the same way."""
    path = tmp_path / ("x" * 300) / "metrics.jsonl"
    with (
        pytest.raises(CannotWrite, match=rf"File name too long\. .* are free in {tmp_path}: choose a shorter"),
        writing(path),
    ):
        path.parent.mkdir()


def test_what_is_no_write_goes_on_as_itself(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writing(tmp_path):
        raise ZeroDivisionError


def test_room_is_looked_at_before_something_large_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10 << 30, 7 << 30, 3 << 30))
    check_room(tmp_path / "checkpoints", 2 << 30, "a checkpoint")
    message = f"cannot write {tmp_path}/c: a checkpoint takes 3.0 GiB. 3.0 GiB of 10.0 GiB are free in {tmp_path}: make"
    with pytest.raises(CannotWrite, match=re.escape(message)):
        check_room(tmp_path / "c", 3 << 30, "a checkpoint")
    assert [size(count) for count in (12, 2048, 3 << 29, 1 << 41)] == ["12 B", "2.0 KiB", "1.5 GiB", "2.0 TiB"]


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from rl.storage.disk import replacing\n"
        "with replacing(Path(sys.argv[1]) / 'summary.json') as file: file.write_text('{'); os._exit(9)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", program, tmp_path], env=environment).returncode == 9
    alive = tmp_path / f".a.tmp-{os.getppid()}.json"
    alive.write_text("")
    (tmp_path / ".hidden").write_text("")
    assert len(os.listdir(tmp_path)) == 3
    remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([alive.name, ".hidden"])


def test_tensorboard_is_done_without_after_one_note(tmp_path: Path) -> None:
    notes: list[str] = []
    events = EventFile(tmp_path / "tensorboard", notes.append)
    event = Event(step=1, file_version="x" * 5000)
    with no_file_above(1000):
        for _ in range(3):
            events.add_event(event)
            events.flush()
        events.close()
    assert len(notes) == 1
    assert "TensorBoard is not told of the rest: cannot write" in notes[0]
    (tmp_path / "file").write_text("")
    EventFile(tmp_path / "file/tensorboard", notes.append).close()
    assert len(notes) == 2


def test_what_cannot_be_said_is_lost() -> None:
    full = open("/dev/full", "w")  # noqa: SIM115 - to close it fails as well
    stream = unfailing(full)
    print("x" * 100_000, file=stream, flush=True)
    print("\ud800", file=stream)
    assert not stream.isatty()
    with suppress(OSError):
        full.close()
    stream.write("closed")

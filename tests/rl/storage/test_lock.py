"""A run folder has one writer, and what a killed one left behind keeps nobody out."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import UserError
from rl.storage.lock import FolderLock


def lock_file(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def test_a_second_writer_is_refused_with_the_first_ones_name(tmp_path: Path) -> None:
    folder = tmp_path / "runs/mine"
    lock = FolderLock(folder)
    for _ in range(2):  # a refusal leaves the lock where it is
        with pytest.raises(UserError, match=f"is in use: process {os.getpid()} on ") as caught:
            FolderLock(folder)
    assert f"remove {lock_file(folder)}" in str(caught.value)
    lock.release()
    FolderLock(folder).release()
    assert list(folder.parent.iterdir()) == []


def test_another_process_is_seen_and_a_killed_one_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    program = (
        f"import pathlib; from rl.storage.lock import FolderLock; FolderLock(pathlib.Path({str(folder)!r})); "
        "print(1, flush=True); input()"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(UserError, match=f"process {other.pid} "):
        FolderLock(folder)
    other.kill()
    other.wait()
    assert lock_file(folder).exists()
    FolderLock(folder).release()


@pytest.mark.parametrize(
    ("change", "free"),
    [
        ({"started": 1.0}, True),  # the number of the process is another one's by now
        ({"process": 2**22 + 1}, True),
        ({"host": "elsewhere"}, False),
        (None, True),
    ],
    ids=["number used again", "no such process", "another host", "no lock of ours"],
)
def test_a_lock_is_stale_when_its_process_cannot_be_alive(tmp_path: Path, change: dict | None, free: bool) -> None:
    folder = tmp_path / "mine"
    FolderLock(folder)
    owner = json.loads(lock_file(folder).read_text())
    lock_file(folder).write_text("nonsense" if change is None else json.dumps(owner | change))
    if free:
        FolderLock(folder).release()
        assert not lock_file(folder).exists()
    else:
        with pytest.raises(UserError, match="on elsewhere"):
            FolderLock(folder)


def test_only_the_owner_releases(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    lock = FolderLock(folder)
    owner = json.loads(lock_file(folder).read_text())
    lock_file(folder).write_text(json.dumps(owner | {"host": "elsewhere"}))
    lock.release()
    assert lock_file(folder).exists()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_has_a_lock_too(tmp_path: Path, monkeypatch, number: int) -> None:
    def no_links(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    folder = tmp_path / "mine"
    lock = FolderLock(folder)
    written = json.loads(lock_file(folder).read_text())
    lock.release()
    monkeypatch.setattr(os, "link", no_links)
    lock = FolderLock(folder)
    found = json.loads(lock_file(folder).read_text())
    assert {**found, "since": ""} == {**written, "since": ""}
    assert lock_file(folder).stat().st_mode & 0o077 == 0
    with pytest.raises(UserError, match=f"is in use: process {os.getpid()} on "):
        FolderLock(folder)
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_just_being_written_there_is_waited_for(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "mine"
    lock = FolderLock(folder)
    whole = lock_file(folder).read_text()
    lock_file(folder).write_text("")
    monkeypatch.setattr("rl.storage.lock.time.sleep", lambda seconds: lock_file(folder).write_text(whole))
    with pytest.raises(UserError, match="is in use"):
        FolderLock(folder)
    lock.release()


def test_other_errors_of_the_file_system_are_not_taken_for_missing_links(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="full"):
        FolderLock(tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_half_taken_is_removed(tmp_path: Path) -> None:
    lock = lock_file(tmp_path / "mine")
    old, stale, young, other = (
        lock.with_name(f"{lock.name}.{end}") for end in ("99999999", "stale-99999998", "9", "x")
    )
    for path in (old, stale, young, other):
        path.write_text("{}")
    for path in (old, stale):
        os.utime(path, (0, 0))
    FolderLock(tmp_path / "mine").release()
    assert sorted(tmp_path.iterdir()) == sorted([young, other])

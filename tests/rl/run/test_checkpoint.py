"""A checkpoint is complete or not there, whatever happens while it is written or lies on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl.run.checkpoint import (
    MANIFEST,
    CheckpointError,
    new_checkpoint,
    newest_complete,
    read_state,
    remove_leftovers,
)


def save(root: Path, update: int, keep: int = 10, content: bytes = b"weights" * 1000) -> Path:
    with new_checkpoint(root, update, {"update": update, "seed": 7}, keep) as folder:
        (folder / "rank0").mkdir()
        (folder / "rank0" / "model.bin").write_bytes(content)
        (folder / "tokenizer.json").write_text("{}")
    return root / f"u{update:06d}"


def in_another_process(root: Path, body: str) -> subprocess.Popen:
    program = f"""
import resource, signal, sys, time
from pathlib import Path
from rl.run.checkpoint import new_checkpoint
root = Path({str(root)!r})
{body}
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_a_checkpoint_under_another_ones_name_is_damaged(tmp_path: Path) -> None:
    """Its weights would pass for those of that update."""
    save(tmp_path, 1).rename(tmp_path / "u000002")
    with pytest.raises(CheckpointError, match=r"u000002 is damaged: MANIFEST.json is that of update 1"):
        newest_complete(tmp_path)


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert newest_complete(tmp_path / "nowhere") is None
    save(tmp_path, 5)
    folder = save(tmp_path, 40)
    assert newest_complete(tmp_path, check_crc=True) == folder
    assert read_state(folder) == {"update": 40, "seed": 7}
    assert (folder / "rank0" / "model.bin").read_bytes() == b"weights" * 1000


def test_it_has_no_name_before_it_is_complete(tmp_path: Path) -> None:
    with new_checkpoint(tmp_path, 1, {}, keep=1) as folder:
        (folder / "a").write_text("x")
        assert newest_complete(tmp_path) is None
    assert names(tmp_path) == ["u000001"]


def test_rotation_keeps_the_newest_by_number(tmp_path: Path) -> None:
    for update in (9, 10, 999999, 1000000):
        save(tmp_path, update, keep=2)
    assert names(tmp_path) == ["u1000000", "u999999"]
    assert newest_complete(tmp_path) == tmp_path / "u1000000"
    with pytest.raises(ValueError, match="keep=0"):
        save(tmp_path, 1, keep=0)


def test_writing_the_same_update_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    folder = save(tmp_path, 1, content=b"second")
    assert (newest_complete(tmp_path, check_crc=True), names(tmp_path)) == (folder, ["u000001"])
    assert (folder / "rank0" / "model.bin").read_bytes() == b"second"


def test_an_error_while_saving_leaves_the_older_ones(tmp_path: Path) -> None:
    save(tmp_path, 1)

    def fail() -> None:
        with new_checkpoint(tmp_path, 2, {}, keep=1) as folder:
            (folder / "a").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(tmp_path) == ["u000001"]


def test_a_state_that_is_not_json_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="JSON"), new_checkpoint(tmp_path, 2, {"path": tmp_path}, keep=1):
        pytest.fail("the block must not run")
    assert names(tmp_path) == []


@pytest.mark.parametrize("where", ["in the block", "in the manifest"])
def test_a_process_killed_while_saving_leaves_the_older_one(tmp_path: Path, where: str) -> None:
    older = save(tmp_path, 1)
    stall = "print('saving', flush=True); time.sleep(60)"
    process = in_another_process(
        tmp_path,
        f"""
import rl.run.checkpoint
def stalling_flush(path):
    {stall}
if {where == "in the manifest"}:
    rl.run.checkpoint.flush = stalling_flush
with new_checkpoint(root, 2, {{}}, keep=1) as folder:
    (folder / "model.bin").write_bytes(b"half")
    if {where == "in the block"}:
        {stall}
""",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "saving\n"
    leftover = tmp_path / f"u000002.tmp-{process.pid}"
    assert (leftover / MANIFEST).exists() == (where == "in the manifest")
    remove_leftovers(tmp_path)
    assert leftover.exists(), "its process lives"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    assert leftover.exists(), "nobody cleaned up after a SIGKILL"
    assert newest_complete(tmp_path, check_crc=True) == older
    newer = save(tmp_path, 2)
    assert names(tmp_path) == ["u000001", "u000002"]
    assert newest_complete(tmp_path, check_crc=True) == newer


def test_a_process_killed_while_removing_an_old_one_leaves_nothing_that_looks_like_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    process = in_another_process(
        tmp_path,
        """
import rl.run.checkpoint
def removes_one_file_and_stalls(folder, **options):
    (folder / "tokenizer.json").unlink()
    print("removing", flush=True)
    time.sleep(60)
rl.run.checkpoint.shutil.rmtree = removes_one_file_and_stalls
with new_checkpoint(root, 2, {}, keep=1) as folder:
    (folder / "model.bin").write_bytes(b"all")
""",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "removing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    assert names(tmp_path) == [f"u000001.old-{process.pid}", "u000002"]
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["u000002"]


def test_kills_at_many_moments_never_show_half_a_checkpoint(tmp_path: Path) -> None:
    """The process saves and rotates as fast as it can; whatever the moment of the kill, the newest is whole."""
    body = """
for update in range(1, 100000):
    with new_checkpoint(root, update, {"update": update}, keep=2) as folder:
        for k in range(20):
            (folder / f"{k}.bin").write_bytes(bytes([update % 256]) * 5000)
    if update == 1:
        print("first", flush=True)
"""
    for k in range(6):
        root = tmp_path / str(k)
        process = in_another_process(root, body)
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        time.sleep(0.05 + 0.023 * k)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)
        newest = newest_complete(root, check_crc=True)
        assert newest is not None
        update = read_state(newest)["update"]
        assert newest.name == f"u{update:06d}"
        assert (newest / "19.bin").read_bytes() == bytes([update % 256]) * 5000


def test_a_full_disk_is_an_error_that_leaves_the_older_one(tmp_path: Path) -> None:
    """The kernel refuses the write in the middle of a file, as it does on a full disk."""
    older = save(tmp_path, 1)
    process = in_another_process(
        tmp_path,
        """
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with new_checkpoint(root, 2, {}, keep=1) as folder:
    (folder / "small.bin").write_bytes(b"x" * 1000)
    (folder / "model.bin").write_bytes(b"x" * 200_000)
""",
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"CannotWrite: cannot write {tmp_path}/u000002: File too large. " in errors
    assert f"are free in {tmp_path}: raise the limit on the size of files" in errors
    assert names(tmp_path) == ["u000001"]
    assert newest_complete(tmp_path, check_crc=True) == older


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_damage_is_named_with_the_way_out(tmp_path: Path) -> None:
    older, newest = save(tmp_path, 1), save(tmp_path, 2)
    flip_byte(newest / "rank0" / "model.bin")
    assert newest_complete(tmp_path) == newest, "sizes alone do not see a flipped byte"
    with pytest.raises(CheckpointError, match=rf"rank0/model.bin has changed.*remove {newest} to go on from {older}"):
        newest_complete(tmp_path, check_crc=True)
    (newest / "rank0" / "model.bin").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"model.bin has 5 bytes, 7000 were written"):
        newest_complete(tmp_path)
    (newest / "rank0" / "model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"model.bin is missing"):
        newest_complete(tmp_path)
    flip_byte(older / "rank0" / "model.bin")
    with pytest.raises(CheckpointError, match="no older checkpoint is complete"):
        newest_complete(tmp_path, check_crc=True)


def test_every_flipped_byte_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    manifest = save(tmp_path, 1) / MANIFEST
    good = manifest.read_bytes()
    for place in range(len(good)):
        manifest.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        if good[place : place + 1].isspace():
            continue  # white space between the values carries nothing
        with pytest.raises(CheckpointError, match="damaged"):
            newest_complete(tmp_path)
        with pytest.raises(CheckpointError, match="damaged"):
            read_state(manifest.parent)
    manifest.unlink()
    with pytest.raises(CheckpointError, match=f"{MANIFEST} is missing"):
        newest_complete(tmp_path)


def test_leftovers_under_our_own_number_are_an_earlier_containers(tmp_path: Path) -> None:
    leftover = tmp_path / f"u000003.tmp-{os.getpid()}"
    leftover.mkdir()
    (tmp_path / f"u000002.old-{os.getpid()}").mkdir()
    (tmp_path / "unrelated").mkdir()
    save(tmp_path, 3)
    assert names(tmp_path) == ["u000003", "unrelated"]

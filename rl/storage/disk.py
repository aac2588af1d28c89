"""Writing where a disk may be full, read-only, beyond a quota or somebody else's: half a file never stays, and whatever
library it was that failed, one exception says which file, why, how much room there is and what to do.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SPARE_BYTES = 1 << 20
"""For the files that are written beside the large ones."""
_TEMPORARY = re.compile(r"\..+\.tmp-(\d+)(\.\w+)?")
_OF_RUST = re.compile(r"I/O error.*\(os error (\d+)\)")
"""What safetensors says of a write that the system refused; it raises no OSError."""
_ADVICE = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room within the quota there, or have it raised",
    errno.EROFS: "mount it so that it can be written",
    errno.EACCES: "give this user the right to write there",
    errno.EPERM: "give this user the right to write there",
    errno.ENAMETOOLONG: "choose a shorter run.name or run.folder",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`)",
}


class CannotWrite(RuntimeError):
    """A file of a run could not be written; what was there before is as it was."""

    def __init__(self, path: Path, cause: str, number: int | None) -> None:
        advice = _ADVICE.get(number or 0, "see to that, or choose another run.folder")
        super().__init__(f"cannot write {path}: {cause}. {room(path)}: {advice}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """For a block that writes `path` or below it.

    Raises:
        CannotWrite: the system refused.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError):
            cause = os.strerror(error.errno) if error.errno else str(error)  # libraries word it anew
            raise CannotWrite(path, cause, error.errno) from error
        if found := _OF_RUST.search(str(error)):
            raise CannotWrite(path, os.strerror(int(found[1])), int(found[1])) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends well; whoever reads that finds the old file or the
    new one, whole.

    Raises:
        CannotWrite: the system refused; the old file is there.
    """
    temporary = path.with_name(f".{path.stem}.tmp-{os.getpid()}{path.suffix}")
    with writing(path):
        try:
            yield temporary
            flush(temporary)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def append(path: Path, text: str) -> None:
    """All of it, or nothing.

    Raises:
        CannotWrite: the system refused.
    """
    left = memoryview(text.encode(errors="surrogateescape"))
    with writing(path), path.open("ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            while left:
                left = left[file.write(left) :]
        except BaseException:
            with suppress(OSError):
                file.truncate(size)
            raise


def flush(path: Path) -> None:
    """Force a file's contents, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def room(path: Path) -> str:
    """How much is free where `path` is, or will be, in words."""
    folder = _existing(path)
    try:
        usage, files = shutil.disk_usage(folder), os.statvfs(folder)
    except OSError as error:
        return f"how much is free in {folder} is not known ({error.strerror})"
    none = " and not one more file" if files.f_files and not files.f_favail else ""
    return f"{size(usage.free)} of {size(usage.total)} are free in {folder}{none}"


def check_room(path: Path, needed: int, what: str) -> None:
    """Before something large is begun.

    Args:
        needed: bytes.

    Raises:
        CannotWrite: less is free.
    """
    with writing(path):
        free = shutil.disk_usage(_existing(path)).free
    if free < needed + SPARE_BYTES:
        raise CannotWrite(path, f"{what} takes {size(needed)}", errno.ENOSPC)


def size(count: float) -> str:
    """Bytes in words: `512 B`, `3.0 KiB`, `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def remove_unfinished(folder: Path) -> None:
    """What processes that no longer live left of `replacing` in this folder."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(path.name)
        if match and not lives_elsewhere(int(match[1])):
            with suppress(OSError):
                path.unlink()


def lives_elsewhere(process: int) -> bool:
    """Whether another process has this number. Our own number on a leftover is an earlier container's, not ours."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _existing(path: Path) -> Path:
    """The folder that a file lies in or will lie in, or the nearest one that is there."""
    return next(parent for parent in (path, *path.absolute().parents) if os.path.isdir(parent))  # whatever the name

"""Nothing of a Ray that was started here stays when its driver is gone, also when that was killed."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import watcher

END_SECONDS = watcher.SWEEP_SECONDS + watcher.POLL_SECONDS


@contextmanager
def swept() -> Iterator[dict[str, str]]:
    """Environment variables; what is started with them, and all that this starts, does not outlive the block, nor this
    process if it is killed inside. On Linux; elsewhere Ray's own processes see by themselves that their parent is gone.
    """
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(watcher.__file__)), mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # signals to this process's group, such as Ctrl-C, are not for it
    )
    try:
        yield {watcher.VARIABLE: mark, "SPT_NOENV": "1"}  # else setproctitle writes titles over the environment
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

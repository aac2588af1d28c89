"""What a scoring process starts ends with it, however it tries to stay, and memory that it shares counts too."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rewards.options import RewardOptions, RewardTerm
from rewards.scoring import keeper
from rewards.scoring.keeper import OVER_MEMORY, descendants, memory_of
from rewards.scoring.process import Crashed, ScoringProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a process its orphans")

DAEMON = """
import os, subprocess, sys, time
daemon = subprocess.Popen(["sleep", "1000"], start_new_session=True)
if os.fork() == 0:  # twice, so that nobody is its parent
    if os.fork() == 0:
        os.setsid()
        os.execvp("sleep", ["sleep", "1000"])
    os._exit(0)
os.wait()
print("started", flush=True)
"""
WITHOUT_GROUPS = f"""
import sys
sys.path.insert(0, {str(Path(keeper.__file__).parent)!r})
import keeper
keeper._memory_groups = lambda: iter(())
keeper.LOOK_SECONDS = 0.05
keeper.main()
"""
SHARES = "import mmap, time; held = mmap.mmap(-1, 100 << 20); held[::4096] = b'x' * (25 << 10); time.sleep(1000)"


def kept(program: str, gib: str = "-", run: tuple[str, ...] = (keeper.__file__,)) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", *run, gib, sys.executable, "-I", "-S", "-c", program]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def below(process: subprocess.Popen[bytes]) -> list[int]:
    return descendants(process.pid)


def alive(processes: list[int]) -> list[int]:
    found = []
    for process in processes:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(process)
    return found


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ("sys.exit(7)", 7),
        ("os.kill(os.getpid(), 11)", -signal.SIGSEGV),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
    ],
)
def test_it_ends_as_its_command_and_takes_with_it_what_left_the_group(ends: str, status: int) -> None:
    process = kept(f"{DAEMON}sys.stdin.readline\ntime.sleep(0.2)\n{ends}")
    assert process.stdout is not None
    process.stdout.readline()
    started = below(process)
    assert len(started) == 3
    assert process.wait(10) == status
    assert alive(started) == []


@pytest.mark.parametrize("how", [lambda p: p.stdin.close(), lambda p: p.terminate()], ids=["closed", "told"])
def test_it_ends_them_all_when_the_other_side_is_gone_or_says_so(how: Callable) -> None:
    process = kept(f"{DAEMON}time.sleep(1000)")
    assert process.stdout is not None
    process.stdout.readline()
    started = below(process)
    assert len(started) == 3
    how(process)
    assert process.wait(10) == -signal.SIGKILL
    assert alive(started) == []


def test_a_deadline_ends_what_called_setsid(tmp_path: Path) -> None:
    """Of a reward function, as scorers call them."""
    term = RewardTerm(function="tests.rewards.faulty_rewards.leaves_a_daemon")
    scoring = ScoringProcess(RewardOptions(terms={"task": term}))
    arguments = {"prompts": ["?"], "completions": [str(tmp_path / "id")], "completion_ids": None, "columns": {}}
    scoring.call("task", {**arguments, "update": None}, 60)
    daemon = int((tmp_path / "id").read_text())
    assert alive([daemon]) == [daemon]
    scoring.stop()
    assert alive([daemon]) == []


@pytest.mark.parametrize("run", [(keeper.__file__,), ("-c", WITHOUT_GROUPS)], ids=["as here", "watched"])
def test_shared_mappings_count(run: tuple[str, ...]) -> None:
    """They escape the limit that the kernel has for a process's data."""
    process = kept(SHARES, "0.05", run)
    assert process.wait(20) == OVER_MEMORY


def test_what_several_share_counts_once() -> None:
    process = kept(
        "import mmap, os, signal, sys\n"
        "shared = mmap.mmap(-1, 64 << 20)\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        break\n"
        "shared[::4096] = b'x' * (16 << 10)\n"
        "print('.', flush=True)\n"
        "signal.pause()"
    )
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    everyone = below(process)
    assert len(everyone) == 4
    assert 64 << 20 < memory_of(everyone, enough=0) < 128 << 20
    assert memory_of(everyone, enough=1 << 60) > 256 << 20
    process.terminate()
    process.wait()


def test_a_function_that_holds_too_much_is_named() -> None:
    term = RewardTerm(function="tests.rewards.faulty_rewards.shares_memory")
    scoring = ScoringProcess(RewardOptions(terms={"task": term}, memory_gib=0.3))
    arguments = {"prompts": ["?"], "completions": ["?"], "completion_ids": None, "columns": {}, "update": None}
    with pytest.raises(Crashed, match=r"it and what it started held more than reward\.memory_gib"):
        scoring.call("task", arguments, 60)
    scoring.stop()


def test_a_group_is_removed_with_those_that_killed_keepers_left_in_it(tmp_path):
    for left in ("denoiserl-1/denoiserl-2", "denoiserl-999999999/denoiserl-999999998"):
        (tmp_path / left).mkdir(parents=True)
    keeper.MemoryGroup(str(tmp_path / "denoiserl-1")).remove()
    keeper.MemoryGroup._remove_stale(str(tmp_path))
    assert list(tmp_path.iterdir()) == []

"""Runs tests against a changed module, in a process forked after everything from other packages was imported.

Our own modules and the tests are imported in the fork only, so that all of them see the change, constants included.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import pytest

PLUGINS = ("pytest_timeout", "_hypothesis_pytestplugin")
"""The others that are installed cost half a second in each process."""
ARGUMENTS = (
    *["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "--tb=short", "--no-header"],
    *("-m", "not slow and not evidence"),
    *(argument for plugin in PLUGINS for argument in ("-p", plugin)),
)
NOTES = "notes.json"


class Verdict(Enum):
    killed = "killed"
    timed_out = "timed out"
    survived = "survived"


class Limit(NamedTuple):
    seconds: float
    processor_seconds: float


LONGEST = Limit(1800, 900)


@dataclass(frozen=True)
class Baseline:
    """The tests against the module as it is."""

    seconds: float
    processor_seconds: float
    durations: dict[str, float]
    """Seconds of each test: the fast ones go first."""
    imported: list[str]
    """Every module in the process afterwards, in the order of import."""

    @property
    def limit(self) -> Limit:
        """A loop without an end is known by the processor's time, which does not depend on what else runs here."""
        return Limit(60 + 10 * self.seconds, 10 + 5 * self.processor_seconds)


@dataclass(frozen=True)
class Outcome:
    verdict: Verdict
    by: str
    """The first test that failed; "" if it survived, and what went wrong where no test failed."""
    seconds: float


@dataclass(frozen=True)
class Task:
    tests: Sequence[str]
    module: str
    path: Path
    source: str
    """Of the changed module."""
    durations: dict[str, float]
    """Of the tests, without the change."""
    limit: Limit


def measure(tests: Sequence[str], root: Path, limit: Limit = LONGEST) -> Baseline:
    """Raises RuntimeError when they do not pass."""
    fork = _Fork(tests, root, None, {}, limit)
    while not fork.is_over():
        time.sleep(0.01)
    if fork.status != 0:
        found = fork.notes.get("failed") or f"pytest ended with {fork.status}"
        raise RuntimeError(f"the tests fail without any change: {found}\n{fork.notes.get('why', '')}")
    return Baseline(fork.seconds, fork.processor_seconds, fork.notes["durations"], fork.notes["imported"])


def preload(baseline: Baseline, root: Path) -> None:
    """Import what the tests import from other packages. Nothing below `root`: that is imported in each fork."""
    own = {path.stem for path in root.iterdir() if path.is_dir() or path.suffix == ".py"}
    for name in baseline.imported:
        if name.split(".")[0] in own or name in sys.modules:
            continue
        # Some can be imported by their own package only: the fork will.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or each fork would walk, and so copy, all that was imported


def run_all(tasks: Sequence[Task], root: Path, jobs: int) -> Iterator[tuple[int, Outcome]]:
    """The place of each task and its outcome, as they end."""
    waiting, running = list(enumerate(tasks))[::-1], dict[int, _Fork]()
    while waiting or running:
        while waiting and len(running) < jobs:
            index, task = waiting.pop()
            changed = Changed(task.module, task.path, task.source)
            running[index] = _Fork(task.tests, root, changed, task.durations, task.limit)
        over = [index for index, fork in running.items() if fork.is_over()]
        for index in over:
            yield index, _outcome(running.pop(index))
        if not over:
            time.sleep(0.01)


def _outcome(fork: _Fork) -> Outcome:
    if fork.status is None:
        return Outcome(Verdict.timed_out, fork.notes.get("running", ""), fork.seconds)
    if fork.status == 0:
        return Outcome(Verdict.survived, "", fork.seconds)
    return Outcome(Verdict.killed, fork.notes.get("failed") or f"pytest ended with {fork.status}", fork.seconds)


class Changed(importlib.abc.MetaPathFinder):
    """Imports one module from another text."""

    def __init__(self, module: str, path: Path, source: str) -> None:
        self._module, self._loader = module, _TextLoader(module, str(path))
        self._loader.text = source

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._module:
            return None
        return importlib.util.spec_from_file_location(fullname, self._loader.path, loader=self._loader)


class _TextLoader(importlib.machinery.SourceFileLoader):
    text = ""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text, self.path, "exec", dont_inherit=True)


class _Plugin:
    """Fast tests first; notes what took how long and what failed."""

    def __init__(self, durations: dict[str, float], notes: Path) -> None:
        self.durations, self.notes = durations, notes
        self.measured: dict[str, float] = {}
        self.failed = self.why = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self.durations.get(item.nodeid, 0.0))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.notes.write_text(json.dumps({"running": nodeid}))  # kept if the time is over

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.measured[report.nodeid] = self.measured.get(report.nodeid, 0.0) + report.duration
        if report.failed and not self.failed:
            self.failed = report.nodeid
            self.why = report.longreprtext

    def pytest_internalerror(self, excrepr: object) -> None:
        self.why = str(excrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            self.failed = f"import of {report.nodeid}"
            self.why = report.longreprtext


class _Fork:
    """Tests that run in a process of their own."""

    def __init__(
        self, tests: Sequence[str], root: Path, changed: Changed | None, durations: dict[str, float], limit: Limit
    ) -> None:
        self.status: int | None = None
        """Of pytest, or minus a signal's number; None when the time was over."""
        self.notes: dict[str, Any] = {}
        """What the plugin wrote down."""
        self.seconds = self.processor_seconds = 0.0
        self._limit = limit
        self._started = time.monotonic()
        self._folder = Path(tempfile.mkdtemp(prefix="mutant-"))
        self._child = os.fork()
        if self._child == 0:
            status = 3
            try:
                os.setpgid(0, 0)
                status = _run_pytest(tests, root, changed, durations, self._folder, limit.processor_seconds)
            finally:
                os._exit(status)

    def is_over(self) -> bool:
        done, status, used = os.wait4(self._child, os.WNOHANG)
        late = time.monotonic() - self._started > self._limit.seconds
        if not done and not late:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child, signal.SIGKILL)  # with what tests have started and not ended
        if done:
            code = os.waitstatus_to_exitcode(status)
            self.status = None if code == -signal.SIGXCPU else code
        else:
            _, _, used = os.wait4(self._child, 0)
        self.processor_seconds = used.ru_utime + used.ru_stime
        self.seconds = time.monotonic() - self._started
        notes = self._folder / NOTES
        if notes.exists():
            self.notes = json.loads(notes.read_text() or "{}")
        shutil.rmtree(self._folder, ignore_errors=True)
        return True


def _run_pytest(
    tests: Sequence[str], root: Path, changed: Changed | None, durations: dict[str, float], folder: Path, limit: float
) -> int:
    """Pytest's status; a signal after `limit` seconds of the processor."""
    seconds = int(limit) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 60))
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.chdir(root)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    if changed is not None:
        sys.meta_path.insert(0, changed)
    _make_hypothesis_repeatable()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    plugin = _Plugin(durations, folder / NOTES)
    places = f"--rootdir={root}", f"--basetemp={folder / 'tests'}"
    status = int(pytest.main([*ARGUMENTS, *places, *tests], plugins=[plugin]))
    imported = [] if changed else list(sys.modules)
    reply = {
        "failed": plugin.failed,
        "why": plugin.why,
        "durations": {} if changed else plugin.measured,
        "imported": imported,
    }
    plugin.notes.write_text(json.dumps(reply))
    return status


def _make_hypothesis_repeatable() -> None:
    """No memory of the last mutant's failures, and no search for a smaller example of this one's."""
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "mutants",
        database=None,
        derandomize=True,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutants")

"""Learning from a real judge, undisturbed and with the judge killed in the middle. The last file of the
room, since it ends the server that the others share."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from rewards.judge.server import Server
from tests.rewards.judge.conftest import SERVED_AS, judge_options
from tests.rewards.judge.run import Run

pytestmark = [pytest.mark.judge, pytest.mark.timeout(900)]
SECRET = "sk-of-nobody-5f1d"


def _undisturbed(server: Server, folder: Path, name: str) -> Run:
    served = server.served()
    assert served.url is not None
    args = [f"reward.terms.judge.args.url={served.url}", f"reward.terms.judge.args.model={SERVED_AS}"]
    run = Run(folder, name, *args, environment={"OPENAI_API_KEY": served.key})
    run.ends()
    return run


@pytest.fixture(scope="module")
def first(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return _undisturbed(server, tmp_path_factory.mktemp("runs"), "first")


def test_two_undisturbed_runs_agree_to_the_bit_and_learn(server: Server, first: Run, tmp_path: Path) -> None:
    second = _undisturbed(server, tmp_path, "second")
    assert first.weights() == second.weights()
    assert [row["reward/mean"] for row in first.rows] == [row["reward/mean"] for row in second.rows]
    assert any(row["reward/std"] > 0 for row in first.rows)
    assert all(row["reward/unscored"] == 0 for row in first.rows)
    assert len(first.verdicts()) == len(second.verdicts()) > 16
    key = server.served().key
    for file in (file for file in second.folder.rglob("*") if file.is_file()):
        assert key.encode() not in file.read_bytes(), file


def test_a_run_whose_judge_is_killed_in_the_middle_ends_with_the_same_weights(
    server: Server, first: Run, tmp_path: Path
) -> None:
    server.stop()  # one at a time; this is the last test that needs it
    options = judge_options()
    words = [
        f"judge.model={options.model}",
        f"judge.python={options.python}",
        f"judge.args={json.dumps(options.args)}",
        *(f"judge.environment.{name}='{value}'" for name, value in options.environment.items()),
        "judge.threads=1",
        "judge.cpus=0.25",
        "judge.startup_seconds=240",
    ]
    run = Run(tmp_path, "killed", *words, environment={"OPENAI_API_KEY": SECRET})
    run.reaches(1)
    engines = run.processes("VLLM::")
    assert engines
    for process in [*engines, *run.processes("vllm.entrypoints")]:
        os.kill(process.pid, signal.SIGKILL)
    said = run.ends(500)
    assert "the judge is started again" in said
    assert "the judge answers again" in said
    assert run.weights() == first.weights()
    assert len(run.verdicts()) == len(first.verdicts())
    assert len(run.rows) == 3
    assert all(row["reward/unscored"] == 0 for row in run.rows)
    for file in (file for file in run.folder.rglob("*") if file.is_file()):
        assert SECRET.encode() not in file.read_bytes(), file
    assert SECRET not in said

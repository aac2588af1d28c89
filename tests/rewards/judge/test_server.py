"""A server that does not start is named with what it said, and gets no secrets; see test_real_* for real ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rewards.judge import server
from rewards.judge.server import JudgeError, Server
from rewards.options import JudgeOptions

SECRET = "sk-of-nobody-77ab"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(server, "POLL_SECONDS", 0.02)


def program(folder: Path, text: str) -> str:
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def started(python: str, log: Path, **options: object) -> str:
    """Why it did not start."""
    served = Server(JudgeOptions("mine", python, **options), "mine", "127.0.0.1", log)  # type: ignore[arg-type]
    served.start()
    try:
        with pytest.raises(JudgeError) as found:
            served.wait()
    finally:
        served.stop()
    assert served.served().url is None
    return str(found.value)


def test_an_interpreter_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    said = started("/nowhere/python", tmp_path / "log")
    assert said == "judge.python=/nowhere/python is no program that can be run here"


def test_a_server_that_ends_three_times_is_given_up_with_what_it_said(tmp_path: Path) -> None:
    said = started(program(tmp_path, 'echo "ValueError: no such model"; exit 3'), tmp_path / "log")
    assert "the judge mine did not start 3 times: it exited with status 3" in said
    assert "ValueError: no such model" in said
    assert (tmp_path / "log").read_text().count("ValueError") == 3


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    python = program(tmp_path, f'echo $$ >> "{tmp_path}/pids"; sleep 1000')
    assert "did not answer within judge.startup_seconds=0.2" in started(python, tmp_path / "log", startup_seconds=0.2)
    for pid in (tmp_path / "pids").read_text().split():
        assert not os.path.exists(f"/proc/{pid}")


def test_a_server_gets_no_secrets_and_no_modules_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "PYTHONPATH"):
        monkeypatch.setenv(name, SECRET)
    (tmp_path / "model").mkdir()
    program(tmp_path, 'echo "words: $*"; env; pwd; exit 1')
    options = JudgeOptions("model", "./python", ["--dtype", "bfloat16"], {"MINE": "1"}, threads=3)
    served = Server(options, "named", "127.0.0.1", tmp_path / "log")
    served.start()
    with pytest.raises(JudgeError):
        served.wait()
    served.stop()
    said = (tmp_path / "log").read_text()
    assert SECRET not in said
    assert f"--model {tmp_path}/model --served-model-name named --host 127.0.0.1 --port" in said
    assert "--dtype bfloat16" in said
    assert "\nMINE=1\n" in said
    assert "\nOMP_NUM_THREADS=3\n" in said

from __future__ import annotations

import pytest

from tests.rl.support.command_line import CommandLine


@pytest.fixture
def denoiserl(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    monkeypatch.setenv("COLUMNS", "500")
    return CommandLine(monkeypatch, capfd)

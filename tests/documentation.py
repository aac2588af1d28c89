"""What the documentation shows is run as a reader would run it."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest

from rl import cli

ROOT = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page, in order.

    Args:
        page: path below the repository's root.
    """
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[str]:
    """The lines of a page's bash blocks."""
    return [line for block in blocks(page, "bash") for line in block.splitlines()]


def defines(path: str, function: str) -> bool:
    """Whether the file below the repository's root has a test of that name."""
    file = ROOT / path
    return file.is_file() and any(
        isinstance(node, ast.FunctionDef) and node.name == function for node in ast.parse(file.read_text()).body
    )


def run_command(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a `denoiserl` command prints; fails unless it succeeds."""
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as caught:
        cli.main()
    output = capsys.readouterr()
    assert caught.value.code in (0, None), output.err
    return output.out

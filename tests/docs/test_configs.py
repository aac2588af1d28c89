"""Every command in docs/configuration.md runs, in a folder that has the page's own recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documentation import blocks, commands, run_command

PAGE = "docs/configuration.md"


def test_the_page_has_commands() -> None:
    assert len(commands(PAGE)) >= 7


@pytest.mark.parametrize("command", commands(PAGE))
def test_command_runs(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "my_configs" / "recipe" / "mine.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(blocks(PAGE, "yaml")[0])
    monkeypatch.chdir(tmp_path)
    assert "run:\n  name:" in run_command(command, monkeypatch, capsys)

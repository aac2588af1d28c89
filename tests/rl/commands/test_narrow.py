"""In 80 columns no table is wider, no word is broken, and a number stays with its interval."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from configs.compose import GROUPS
from rl.commands.listing import show_list
from rl.commands.policies import _terms_table
from rl.commands.recipe import summary_of
from rl.driver.train import print_summary
from rl.run.evaluation import Evaluation

WIDTH = 80
CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "recipe"] + ["recipes"])
def test_lists(group: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    show_list(group, None)
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= WIDTH
    words = set(output.split())
    for file in (CONFIGS / group.rstrip("s")).glob("*.yaml"):
        missing = {file.stem, *summary_of(file).split()} - words
        assert not {word for word in missing if len(word) < WIDTH - 30}, file


def test_the_table_of_an_evaluation() -> None:
    rewards = {kind: np.array([[0.25], [1.0], [0.5]]) for kind in ("greedy", "sampled")}
    terms = {kind: {"a_term_with_a_long_name": values} for kind, values in rewards.items()}
    evaluation = Evaluation(3, rewards, terms, {}, {}, {}, [], {}, {})
    console = Console(file=(said := io.StringIO()), width=WIDTH)
    console.print(_terms_table(evaluation))
    lines = said.getvalue().splitlines()
    assert max(map(len, lines)) <= WIDTH
    (row,) = (line for line in lines if "a_term_with_a_long_name" in line)
    assert row.count("[") == row.count("]") == 2


@pytest.mark.parametrize("width", [WIDTH, 120])
def test_the_summary_of_a_run(width: int) -> None:
    change = {
        **dict.fromkeys(("before", "after", "gain"), 0.387),
        "ci95": {key: [0.346, 0.43] for key in ("before", "after", "gain")},
    }
    held_out = {kind: {"solve_rate": change, "reward": change} for kind in ("greedy", "sampled")}
    summary = {"steps": 40, "seconds": 166.0, "held_out": held_out, "stage_seconds": {"rollout": 12.0}}
    console = Console(file=(said := io.StringIO()), width=width)
    folder = Path("/a/folder/with/a/name/that/is/longer/than/the/line/of/a/terminal/of/eighty/columns/run")
    config = SimpleNamespace(run=SimpleNamespace(name="quickstart"))
    print_summary(SimpleNamespace(console=console, config=config, folder=folder), summary)  # type: ignore[arg-type]
    output = said.getvalue()
    assert f"run folder: {folder}" in output.splitlines()
    assert "quickstart: 40 updates in 166 s" in output.splitlines()
    table = [line for line in output.splitlines() if "│" in line]
    assert max(map(len, table)) <= width
    assert output.count("[0.346, 0.430]") == 12
    assert ("0.387 [0.346, 0.430]" in output) == (width > 100)

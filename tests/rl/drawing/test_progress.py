"""What a person sees, on a terminal and in a log."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from rl.drawing.progress import Progress, duration, sparkline
from rl.drawing.sanity import checks, failed, sanity_table


def row(number: int, /, **seconds: float) -> dict[str, float]:
    costs = {f"seconds/{stage}": value for stage, value in seconds.items()}
    return {"update": number, "reward/mean": number / 10, "reward/solve_rate": number / 20, **costs}


def console(terminal: bool, width: int = 100) -> Console:
    return Console(record=True, file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)


def test_the_panel_shows_curves_costs_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    screen = console(terminal=True)
    with Progress("demo", updates=100, console=screen) as progress:
        for update in range(10):
            progress.show_update(row(update, rollout=6.0, reward=1.0, learn=3.0, update=10.0))
        progress.show_evaluation(10, "greedy 61.0 % (54.1 to 67.5)")
        picture = progress.panel()
    paper = console(terminal=False)
    paper.print(picture)
    text = paper.export_text()
    assert "demo" in text
    assert "10/100" in text
    assert "15 min left" in text  # 90 updates of 10 s
    assert "0.900" in text
    assert sparkline([update / 10 for update in range(10)], 40) in text
    assert "after update 10: greedy 61.0 % (54.1 to 67.5)" in text
    costs = {line.split()[1]: line.split()[2:4] for line in text.splitlines() if "%" in line and "after" not in line}
    assert costs["rollout"] == ["6.00", "60%"]
    assert costs["learn"] == ["3.00", "30%"]
    assert costs["weights"] == ["0.00", "0%"]


def test_a_log_gets_one_line_an_update() -> None:
    log = console(terminal=False, width=60)
    with Progress("demo", updates=3, console=log) as progress:
        progress.show_evaluation(0, "greedy 10 %")
        progress.show_update(row(0, rollout=6.0, reward=0.5, learn=3.5, update=10.0))
        progress.show_update(row(1, rollout=6.0, evaluate=4.0, update=10.0))
    assert log.export_text().splitlines() == [
        "demo  held out after update 0: greedy 10 %",
        "demo  update 1/3  reward/mean 0.000  reward/solve_rate 0.000  "
        "10.0 s (rollout 6.0 s 60%, reward 0.5 s 5%, learn 3.5 s 35%)  20 s left",
        "demo  update 2/3  reward/mean 0.100  reward/solve_rate 0.050  "
        "10.0 s (rollout 6.0 s 60%, evaluate 4.0 s 40%)  10 s left",
    ]


def test_the_time_left_is_a_median() -> None:
    """The first update paid for what happens once, and said "43 min left" for minutes to come."""
    log = console(terminal=False)
    with Progress("demo", updates=13, console=log) as progress:
        for update, seconds in enumerate((338.0, 1.0, 2.0)):
            progress.show_update(row(update, update=seconds))
    assert log.export_text().splitlines()[-1].endswith("20 s left")  # 10 updates of 2 s


def test_escape_sequences_are_spelt_out() -> None:
    log = console(terminal=False)
    Progress("demo", updates=2, console=log).show_evaluation(0, "greedy \x1b[2J")
    assert log.export_text() == "demo  held out after update 0: greedy \\x1b[2J\n"


def test_the_start_is_shown_step_by_step() -> None:
    log = console(terminal=False)
    with Progress("demo", updates=2, console=log) as progress:
        progress.show_start("Ray is there", 6.34)
    assert log.export_text() == "demo  start   6.3 s  Ray is there\n"


def test_ci_gets_lines_even_when_it_looks_like_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    screen = console(terminal=True)
    with Progress("demo", updates=3, console=screen) as progress:
        progress.show_update(row(0, update=1.0))
    assert screen.export_text().count("\n") == 1


def test_a_resumed_run_counts_from_where_it_was() -> None:
    log = console(terminal=False)
    progress = Progress("demo", updates=50, first_update=40, curves=("loss",), console=log)
    paper = console(terminal=False)
    paper.print(progress.panel())
    assert "40/50" in paper.export_text()
    progress.show_update({"update": 40, "loss": 2.5, "seconds/update": 100.0})
    assert log.export_text() == "demo  update 41/50  loss 2.500  100.0 s ()  15 min left\n"


def test_an_update_of_which_nothing_was_scored_is_a_gap() -> None:
    log = console(terminal=False)
    Progress("demo", updates=2, curves=("reward/mean",), console=log).show_update({"update": 0, "seconds/update": 1.0})
    assert "reward/mean nan" in log.export_text()


def test_names_with_brackets_are_not_markup() -> None:
    log = console(terminal=False)
    Progress("[red]x", updates=1, console=log).show_evaluation(0, "[bold]")
    assert log.export_text() == "[red]x  held out after update 0: [bold]\n"


def test_sparkline_spans_the_history() -> None:
    assert sparkline([0.0, 1.0], 10) == "▁█"
    assert sparkline(list(range(1000)), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([2.0, 2.0, 2.0], 8) == "▁▁▁"
    assert sparkline([0.0, math.nan, 1.0], 8) == "▁ █"
    assert sparkline([math.nan], 8) == " "


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (0.4, 45, 720, 11100)] == ["0 s", "45 s", "12 min", "3 h 05 min"]


GOOD = {
    "ratio/mean": 1.0,
    "ratio/max_error": 3e-6,
    "ratio/clip_fraction": 0.0,
    "logp/max_error": 3e-6,
    "kl/reference": 0,
}


def rendered(values: dict[str, float]) -> list[str]:
    paper = console(terminal=False)
    paper.print(sanity_table(values))
    return paper.export_text().splitlines()


def test_the_table_of_the_first_update_fits_a_terminal() -> None:
    values = {**dict.fromkeys(checks(0.02), 1.2345678e-07), "ratio/mean": 1.0000001}
    paper = console(terminal=False, width=80)
    paper.print(sanity_table(values, 0.02))
    assert len(paper.export_text().splitlines()) == len(values) + 5  # a title, the head, its rule, two margins


def test_a_sound_first_update_is_all_ok() -> None:
    lines = rendered(GOOD)
    assert sum("ok" in line for line in lines) == len(GOOD)
    assert not any("FAIL" in line for line in lines)
    assert any("3e-06" in line and "0 ± 1e-05" in line for line in lines)
    assert failed(GOOD) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ratio/mean", 1.0001),
        ("ratio/max_error", 2e-5),
        ("ratio/clip_fraction", 1e-9),
        ("logp/max_error", math.nan),
        ("kl/reference", -1e-3),
    ],
)
def test_each_breach_is_marked_and_named(name: str, value: float) -> None:
    values = {**GOOD, name: value}
    assert sum("FAIL" in line for line in rendered(values)) == 1
    assert [name in sentence for sentence in failed(values)] == [True]


def test_bf16_is_judged_by_its_own_tolerance() -> None:
    values = {"logp/max_error": 0.01}
    assert failed(values) != []
    assert failed(values, tolerance=0.05) == []

"""One table of the gym's results, from any number of folders."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from configs.errors import UserError
from rl.gym.outdated import current_and_outdated
from rl.gym.picture import draw
from rl.gym.rates import best_rates
from rl.gym.results import Result, read_result
from rl.gym.tasks import Contestant, Task, contestants
from rl.statistics import Estimate, crossed_difference, row_means


@dataclass(frozen=True)
class Line:
    """What one contestant gained, over its seeds."""

    name: str
    ours: bool
    base: str
    setting: str
    cell: tuple[str, ...]
    before: float
    after: float
    gain: Estimate
    """Paired by problem; the interval is for other problems and other seeds."""
    solved: dict[int, np.ndarray]
    """Of each seed (problems,) after training, means over images."""
    learning_rate: float
    samples: float
    """This and those below are means over the seeds."""
    optimizer_updates: float
    forwards: float
    rows: float
    cpu_seconds: float
    verdict: str
    """`yes`, or why not."""


def write_report(
    tasks: dict[str, Task], folders: Sequence[Path], console: Console, config_dir: Path | None = None
) -> list[Path]:
    """Writes `gym.md` and `gym.png` of each task that has results into the first folder's `<task>`.

    Raises:
        UserError: there are no results, or two folders hold the same run with different configurations.
    """
    written = []
    for name, task in tasks.items():
        results, searched = read_results(folders, name)
        if not results:
            continue
        target = folders[0] / name
        target.mkdir(parents=True, exist_ok=True)
        everyone = contestants(task, config_dir)
        results, outdated = current_and_outdated(results, task, everyone, folders[0], config_dir)
        lines = lines_of(results, {one.name for one in everyone if one.ours})
        (target / "gym.md").write_text(markdown(task, everyone, lines, results, searched, outdated))
        if lines:
            draw(lines, task.title, target / "gym.png")
        written.append(target / "gym.md")
        old = f" and {len(outdated)} of earlier configurations" if outdated else ""
        console.print(
            f"{name}: {len(results)} runs of {len(lines)} algorithms{old} in {target / 'gym.md'}", soft_wrap=True
        )
    if not written:
        raise UserError(f"there are no results of {', '.join(tasks)} in {', '.join(map(str, folders))}")
    return written


def read_results(folders: Sequence[Path], task: str) -> tuple[list[Result], list[Result]]:
    """The runs of the report, and those that searched for learning rates; each once."""
    return merged([folder / task for folder in folders]), merged([folder / task / "search" for folder in folders])


def merged(folders: Sequence[Path]) -> list[Result]:
    found: dict[str, Result] = {}
    for file in (file for folder in folders for file in sorted(folder.glob("*-*.json"))):
        result = read_result(file)
        if file.name in found and found[file.name].fingerprint != result.fingerprint:
            raise UserError(f"{file}: another folder has this run with another configuration; delete one of them")
        if file.name not in found or found[file.name].error:
            found[file.name] = result
    return list(found.values())


def lines_of(results: Sequence[Result], ours: Container[str] = ()) -> list[Line]:
    """A line for each contestant with at least one run that ended well, the largest gain first.

    Args:
        ours: names of contestants that nobody has published.
    """
    names = dict.fromkeys(result.name for result in results if not result.error)
    lines = [line_of([one for one in results if one.name == name and not one.error], name in ours) for name in names]
    return sorted(lines, key=lambda line: -line.gain.value)


def line_of(runs: list[Result], ours: bool) -> Line:
    runs = sorted(runs, key=lambda run: run.seed)
    if len({(run.setting, run.learning_rate) for run in runs}) > 1:
        raise UserError(f"{runs[0].name}: its seeds differ in setting or learning rate; run them again with --again")
    ends = list(zip(*(run.solved for run in runs), strict=True))  # before and after: of each seed (problems, images)
    before, after = (np.stack([row_means(solved) for solved in end], axis=1) for end in ends)  # (problems, seeds)
    gain = crossed_difference(before, after)
    first = runs[0]
    return Line(
        name=first.name,
        ours=ours,
        base=first.base,
        setting=first.setting,
        cell=tuple(first.cell),
        before=float(np.nanmean(before)),
        after=float(np.nanmean(after)),
        gain=gain,
        solved={run.seed: after[:, number] for number, run in enumerate(runs)},
        learning_rate=first.learning_rate,
        samples=_mean(run.samples for run in runs),
        optimizer_updates=_mean(run.optimizer_updates for run in runs),
        forwards=_mean(run.forwards for run in runs),
        rows=_mean(run.rows for run in runs),
        cpu_seconds=_mean(run.cpu_seconds for run in runs),
        verdict=_verdict(gain, runs),
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _verdict(gain: Estimate, runs: list[Result]) -> str:
    if gain.low > 0:
        return "yes"
    if gain.high < 0:
        return "no: significantly worse"
    reasons = [f"the interval of ±{(gain.high - gain.low) / 2:.3f} holds 0"]
    if idle := sum(run.updates_without_signal for run in runs):
        reasons.append(f"{idle} updates had no group with a signal")
    moved = float(np.mean([np.nanmean(np.abs(run.solved[0] - run.solved[1])) for run in runs]))
    if moved < 0.02:
        reasons.append(f"only {moved:.1%} of the answers changed, so the weights hardly moved")
    return "no: " + "; ".join(reasons)


def markdown(
    task: Task,
    everyone: Sequence[Contestant],
    lines: Sequence[Line],
    results: Sequence[Result],
    searched: Sequence[Result],
    outdated: Sequence[Result] = (),
) -> str:
    parts = [f"# {task.title}", HOW, "![Gains, and gains against the learner's rows](gym.png)" if lines else ""]
    comparable = {setting: [line for line in lines if line.setting == setting] for setting in task.settings}
    parts += [_table(setting, found) for setting, found in comparable.items()]
    parts += [_duels(found) for found in comparable.values()]
    parts.append(_others(everyone, lines, results, outdated))
    parts.append(_notes(everyone))
    parts.append(_rates(searched))
    return "\n\n".join(part for part in parts if part) + "\n"


HOW = """\
Share of held-out problems solved by greedy completions (images: without noise on the way), before and after training.
The gain is paired by problem; its 95 % interval is for other problems and other seeds, and knows little of seeds where
there are two. Gains are comparable within a base. Samples are those drawn for training, or of methods that learn from
data the answers read. Updates are the optimizer's. Forwards are those of the rollouts as their metric counts them
(text: one for a whole batch; images: one for each sample), rows are canvases that the learner scored with any model, s
are CPU seconds without the rewards' process."""

COLUMNS = (
    "algorithm",
    "cell",
    "base",
    "after",
    "gain",
    "significant",
    "seeds",
    "learning rate",
    "samples",
    "updates",
    "forwards",
    "rows",
    "s",
)


def _table(setting: str, lines: Sequence[Line]) -> str:
    if not lines:
        return ""
    return f"## {setting}: base `{lines[0].base}`\n\n" + table(COLUMNS, [_cells(line) for line in lines])


def _cells(line: Line) -> list[str]:
    return [
        f"**{line.name}** (ours)" if line.ours else line.name,
        ", ".join(line.cell),
        f"{line.before:.3f}",
        f"{line.after:.3f}",
        _signed(line.gain),
        line.verdict,
        str(len(line.solved)),
        f"{line.learning_rate:g}",
        f"{line.samples:.0f}",
        f"{line.optimizer_updates:.0f}",
        f"{line.forwards:.0f}",
        f"{line.rows:.0f}",
        f"{line.cpu_seconds:.0f}",
    ]


def _duels(lines: Sequence[Line]) -> str:
    """The best of ours against the published ones of one base, on the problems and seeds that both have."""
    best = next((line for line in lines if line.ours), None)
    if best is None:
        return ""
    rows = []
    for line in (line for line in lines if not line.ours):
        if common := sorted(line.solved.keys() & best.solved.keys()):
            theirs, ours = (np.stack([each.solved[seed] for seed in common], axis=1) for each in (line, best))
            rows.append([line.name, _signed(crossed_difference(theirs, ours)), str(len(common))])
    head = f"## {best.setting}: what {best.name} solves more than each"
    return f"{head}\n\n" + table(["algorithm", "difference", "seeds"], rows) if rows else ""


def _signed(difference: Estimate) -> str:
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, ["---"] * len(columns), *rows])


def _others(
    everyone: Sequence[Contestant], lines: Sequence[Line], results: Sequence[Result], outdated: Sequence[Result]
) -> str:
    """Those without a number, and runs that failed or are outdated beside others that are not."""
    measured = {line.name for line in lines}
    failed = [result for result in results if result.error]
    rows = [f"- {one.name}: left out: {one.entry.skip}" for one in everyone if one.entry.skip]
    rows += [f"- {one.name}, seed {one.seed}: failed: {' '.join(one.error.split())}" for one in failed]
    rows += [f"- {one.name}, seed {one.seed}: of an earlier configuration; run it again" for one in outdated]
    known = measured | {result.name for result in [*failed, *outdated]}
    rows += [f"- {one.name}: not run yet" for one in everyone if one.name not in known and not one.entry.skip]
    return "## Without a number\n\n" + "\n".join(rows) if rows else ""


def _notes(everyone: Sequence[Contestant]) -> str:
    rows = [
        f"- {one.name}: {one.entry.note}" + (f" (`{' '.join(one.entry.overrides)}`)" if one.entry.overrides else "")
        for one in everyone
        if one.entry.note
    ]
    return "## What differs from the published file, and why\n\n" + "\n".join(rows) if rows else ""


def _rates(searched: Sequence[Result]) -> str:
    if not searched:
        return ""
    best = best_rates(searched)
    rates = sorted({result.learning_rate for result in searched if not result.error})
    shown = {
        (one.name, one.learning_rate): "failed" if one.error else f"{float(np.nanmean(one.solved[1])):.3f}"
        for one in searched
    }
    rows = []
    for name in sorted(best):
        shares = [shown.get((name, rate), "-") for rate in rates]
        marks = ["**" if rate == best[name] else "" for rate in rates]
        rows.append([name, *(f"{mark}{share}{mark}" for mark, share in zip(marks, shares, strict=True))])
    words = "Share solved after training with each rate, on a seed that the report does not have; the best was taken."
    return f"## Learning rates\n\n{words}\n\n" + table(["algorithm", *(f"{rate:g}" for rate in rates)], rows)

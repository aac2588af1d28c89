"""One table of the gym's results, from any number of folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from configs.errors import UserError
from rl.gym.lines import Line, lines_of
from rl.gym.outdated import current_and_outdated
from rl.gym.picture import draw
from rl.gym.rates import best_rates
from rl.gym.results import Result, read_result
from rl.gym.tasks import Contestant, Task, contestants
from rl.run.statistics import Estimate, crossed_difference


def write_report(
    tasks: dict[str, Task],
    folders: Sequence[Path],
    console: Console,
    config_dir: Path | None = None,
    only: Sequence[str] = (),
) -> list[Path]:
    """Writes `gym.md` and `gym.png` of each task that has results into the first folder's `<task>`.

    Args:
        only: names that were asked for; beside them whatever has results is listed. All of the task's if empty.

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
        if only:
            ran = {result.name for result in [*results, *searched, *outdated]}
            everyone = [one for one in everyone if one.name in only or one.name in ran]
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

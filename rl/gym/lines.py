"""What each contestant gained, over its seeds."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import UserError
from rl.gym.results import Result
from rl.run.statistics import Estimate, crossed_difference, row_means


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

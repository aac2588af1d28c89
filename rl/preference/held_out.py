"""How good a preference model is on pairs that it has not seen: accuracy with its interval, and calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import UserError
from rl.run.statistics import Estimate, solve_rate

BINS = 10


@dataclass(frozen=True)
class Bin:
    low: float
    high: float
    pairs: int
    predicted: float
    """Mean probability that the model gives to the answer that it prefers."""
    right: Estimate
    """How often that answer is the chosen one."""


@dataclass(frozen=True)
class HeldOut:
    pairs: int
    prompts: int
    accuracy: Estimate
    """Wilson's interval, with the pairs of one prompt as what they are (`rl.run.statistics.solve_rate`)."""
    ties: int
    """Pairs of equal scores, which count as wrong."""
    log_loss: float
    """Mean of -log P(chosen). Unit: nats."""
    calibration_error: float
    """Mean over the bins, by their pairs, of the distance of what is predicted from what is right."""
    bins: list[Bin]


def held_out(margins: np.ndarray, keys: Sequence[str]) -> HeldOut:
    """
    Args:
        margins: (N,) log-odds that the chosen answer is preferred.
        keys: (N,) of the prompts.
    """
    margins = np.asarray(margins, np.float64)
    if not np.isfinite(margins).all():
        raise UserError("the model's scores of held-out pairs are not finite: lower learning_rate")
    right, predicted = margins > 0, 1 / (1 + np.exp(-np.abs(margins)))
    found = _bins(predicted, right, keys)
    gaps = [each.pairs * abs(each.predicted - each.right.value) for each in found]
    return HeldOut(
        pairs=len(margins),
        prompts=len(set(keys)),
        accuracy=solve_rate(by_prompt(right, keys)),
        ties=int((margins == 0).sum()),
        log_loss=float(np.logaddexp(0, -margins).mean()),
        calibration_error=float(sum(gaps) / len(margins)),
        bins=found,
    )


def by_prompt(values: np.ndarray, keys: Sequence[str]) -> np.ndarray:
    """(prompts, most pairs of one) fp64, NaN where a prompt has fewer."""
    rows: dict[str, list[float]] = {}
    for key, value in zip(keys, values, strict=True):
        rows.setdefault(key, []).append(float(value))
    most = max(map(len, rows.values()))
    return np.array([row + [np.nan] * (most - len(row)) for row in rows.values()])


def _bins(predicted: np.ndarray, right: np.ndarray, keys: Sequence[str]) -> list[Bin]:
    edges = np.linspace(0.5, 1.0, BINS + 1)
    place = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, BINS - 1)
    found = []
    for index in range(BINS):
        inside = np.flatnonzero(place == index)
        if len(inside):
            rate = solve_rate(by_prompt(right[inside], [keys[int(each)] for each in inside]))
            low, high = float(edges[index]), float(edges[index + 1])
            found.append(Bin(low, high, len(inside), float(predicted[inside].mean()), rate))
    return found

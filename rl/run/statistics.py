"""How sure a number is: 95 % intervals for evaluations, with several samples of one problem counted as what they are.

Samples of one problem resemble each other, so the problem is the unit of the statistics, as in E. Miller, "Adding error
bars to evals" (arXiv 2411.00640). Arrays are (N problems, K samples) with NaN for a sample that could not be scored;
(N,) means one sample each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Estimate:
    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    problems: int
    """Problems with at least one scored sample."""

    @property
    def interval(self) -> list[float] | None:
        """Its ends; None where there is a single problem, of which nothing says how problems differ."""
        return None if np.isnan(self.low) else [self.low, self.high]

    def metrics(self, name: str) -> dict[str, float]:
        """Flat metrics `name`, and where there is an interval `name_low` and `name_high`."""
        return {name: self.value} | ({f"{name}_low": self.low, f"{name}_high": self.high} if self.interval else {})


def solve_rate(solved: np.ndarray) -> Estimate:
    """Mean solve rate over problems with its Wilson interval.

    Wilson's interval (JASA 22, 1927) stays inside [0, 1] and keeps a width when every problem is solved. With several
    samples of a problem it is taken at the effective sample size p (1 - p) / variance, where the variance is clustered
    by problem (Franco et al., J. Survey Statistics and Methodology 7, 2019). That size is kept between N, as if a
    problem's samples were copies, and the number of samples, as if they were independent.

    Args:
        solved: (N,) or (N, K) of 0 and 1, NaN where unscored.
    """
    rates, count = _per_problem(solved)
    if not np.isin(solved, (0.0, 1.0)).sum() == count:
        raise ValueError("solve_rate wants 0, 1 or NaN; take `mean` for a graded reward")
    problems, rate = len(rates), float(rates.mean())
    size = float(problems)
    if problems > 1 and 0.0 < rate < 1.0:
        variance = float(rates.var(ddof=1)) / problems
        size = count if variance == 0.0 else min(max(rate * (1.0 - rate) / variance, problems), count)
    low, high = _wilson(rate, size)
    return Estimate(rate, low, high, problems)


def mean(values: np.ndarray) -> Estimate:
    """Mean over problems of each problem's mean, with a normal interval clustered by problem.

    Args:
        values: (N,) or (N, K), NaN where unscored; at least two problems with a score.
    """
    averages, _ = _per_problem(values)
    if len(averages) < 2:
        raise ValueError("an interval of a mean needs at least two scored problems: evaluate on more of them")
    value = float(averages.mean())
    half = Z95 * float(averages.std(ddof=1)) / len(averages) ** 0.5
    return Estimate(value, value - half, value + half, len(averages))


def mean_if_any(values: np.ndarray) -> Estimate | None:
    """`mean` of however many problems have a score: None for none, and for one of them a value without an interval.

    Args:
        values: (N,) or (N, K), NaN where unscored.
    """
    averages = row_means(values)
    known = averages[~np.isnan(averages)]
    if len(known) == 1:
        return Estimate(float(known[0]), np.nan, np.nan, 1)
    return mean(values) if len(known) else None


def paired_difference(before: np.ndarray, after: np.ndarray) -> Estimate | None:
    """Mean of after - before on the same problems; pairing removes the problems' own difficulty from the interval.

    Args:
        before, after: (N,) or (N, K), row i of both is problem i; a problem unscored in either is left out. The two may
            differ in K.

    Returns:
        None if no problem was scored both times.
    """
    if len(before) != len(after):
        raise ValueError(f"a paired difference needs the same problems: {len(before)} before, {len(after)} after")
    return mean_if_any(row_means(after) - row_means(before))


def crossed_difference(before: np.ndarray, after: np.ndarray) -> Estimate:
    """Mean of after - before over problems and training seeds, with a 95 % interval for other problems *and* seeds.

    Problems are crossed with seeds: a lucky seed lifts all of its problems together, which `paired_difference` would
    not see. The variance of the mean is that of the problems' means plus that of the seeds' means minus that of the
    rest, which both contain (two-way clustering, Cameron, Gelbach and Miller, J. Business & Economic Statistics 29,
    2011), but at least the larger of the two. The quantile is Student's with Satterthwaite's degrees of freedom
    (Biometrics Bulletin 2, 1946), because seeds are few. A single seed leaves the problems alone.

    Args:
        before, after: (N problems, S seeds), NaN where unscored; a problem without a score in any seed is left out.
    """
    from scipy.stats import t  # imported here: scipy.stats takes a second

    if before.shape != after.shape:
        raise ValueError(f"the same problems and seeds are needed: {before.shape} before, {after.shape} after")
    difference = np.asarray(after, np.float64) - before
    difference = difference[~np.isnan(difference).any(axis=1)]
    problems, seeds = difference.shape
    if seeds == 1 or problems < 2:
        return mean(difference)
    value = float(difference.mean())
    of_problems = float(difference.mean(axis=1).var(ddof=1)) / problems
    of_seeds = float(difference.mean(axis=0).var(ddof=1)) / seeds
    rest = difference - difference.mean(axis=1, keepdims=True) - difference.mean(axis=0) + value
    of_rest = float((rest**2).sum()) / ((problems - 1) * (seeds - 1)) / (problems * seeds)
    variance = max(of_problems + of_seeds - of_rest, of_problems, of_seeds)
    if variance == 0.0:
        return Estimate(value, value, value, problems)
    freedom = (of_problems + of_seeds) ** 2 / (of_problems**2 / (problems - 1) + of_seeds**2 / (seeds - 1))
    half = float(t.ppf(0.975, freedom)) * variance**0.5
    return Estimate(value, value - half, value + half, problems)


def _per_problem(values: np.ndarray) -> tuple[np.ndarray, int]:
    """The mean of each problem that has a scored sample, and the number of scored samples."""
    averages = row_means(values)
    averages = averages[~np.isnan(averages)]
    if len(averages) == 0:
        raise ValueError("no problem has a scored sample: the reward failed on all of them, look at its errors")
    return averages, int((~np.isnan(np.asarray(values, dtype=np.float64))).sum())


def row_means(values: np.ndarray) -> np.ndarray:
    """(N,) float64, NaN for a row without a score."""
    values = np.asarray(values, dtype=np.float64)
    if np.isinf(values).any():
        raise ValueError("a score is infinite; scores must be finite, or NaN where a sample could not be scored")
    rows = values.reshape(len(values), -1)
    scored = ~np.isnan(rows)
    count = scored.sum(axis=1)
    total = np.where(scored, rows, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(rows), np.nan), where=count > 0)


def _wilson(rate: float, size: float) -> tuple[float, float]:
    centre = (rate + Z95**2 / (2 * size)) / (1 + Z95**2 / size)
    half = Z95 / (1 + Z95**2 / size) * (rate * (1 - rate) / size + Z95**2 / (4 * size**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)

"""What must be true of the first update, before any weight has moved: the cheapest detector of a broken setup.

The policy that is trained is then the one that generated, so its importance ratio is 1. A ratio that is not 1 means
that rollout and learner disagree: another mask, temperature, precision, position or template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table


@dataclass(frozen=True)
class Check:
    meaning: str
    expected: float
    tolerance: float

    def passes(self, value: float) -> bool:
        return abs(value - self.expected) <= self.tolerance  # False for NaN


def checks(tolerance: float) -> dict[str, Check]:
    """What each metric of the first update should be.

    Args:
        tolerance: allowed error of a log-probability in nats: 1e-5 for fp32, more for a policy stored in bf16.
    """
    return {
        "ratio/mean": Check("importance ratio, mean", 1.0, tolerance),
        "ratio/max_error": Check("importance ratio, largest |ratio - 1|", 0.0, tolerance),
        "ratio/clip_fraction": Check("fraction of ratios clipped", 0.0, 0.0),
        "logp/max_error": Check("log-probability, recorded - replayed", 0.0, tolerance),
        "kl/behaviour": Check("KL to the policy that generated", 0.0, tolerance),
        "kl/reference": Check("KL to the reference, which is still itself", 0.0, tolerance),
    }


def sanity_table(values: Mapping[str, float], tolerance: float = 1e-5) -> Table:
    """The measured values beside what they should be, with ok or FAIL.

    Args:
        values: metrics of the first update; the known ones among them are shown.
    """
    table = Table(title="Before the first update", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("check")
    table.add_column("measured", justify="right")
    table.add_column("expected", justify="right")
    table.add_column("")
    for name, check in checks(tolerance).items():
        if name in values:
            verdict = "[green]ok[/]" if check.passes(values[name]) else "[bold red]FAIL[/]"
            margin = f" ± {check.tolerance:g}" if check.tolerance else ""
            table.add_row(check.meaning, f"{values[name]:.7g}", f"{check.expected:g}{margin}", verdict)
    return table


def failed(values: Mapping[str, float], tolerance: float = 1e-5) -> list[str]:
    """A sentence for every value that is not what it should be."""
    return [
        f"{check.meaning} ({name}) is {values[name]:.7g}, expected {check.expected:g} within {check.tolerance:g}"
        for name, check in checks(tolerance).items()
        if name in values and not check.passes(values[name])
    ]

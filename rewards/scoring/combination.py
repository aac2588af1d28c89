"""What the terms of a reward come to: a weighted sum, within clips and behind gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rewards.options import RewardOptions
from rewards.scoring.scores import MALFORMED, Failure, Scores, TermScores
from rewards.scoring.term_call import LARGEST, short, usable


def combine(found: TermScores, options: RewardOptions, completion: Callable[[int], Any], update: int | None) -> Scores:
    """The sum over the terms that apply.

    A sample's total is NaN when any rewarded term failed on it, or a gate of one, or when every rewarded one returned
    None. As in TRL, None means that a term does not apply to the sample and leaves it out of the sum. Terms of weight 0
    are measures: they are reported, and neither their None nor their failure touches the total.

    Args:
        completion: of a sample, to be shown with a failure.
        update: whose weights are meant; None: those of evaluations.
    """
    count = len(next(iter(found.terms.values())))
    weights = {name: weight for name, weight in options.weights(update).items() if weight != 0}
    paid = {name: _paid(name, found.terms, options) for name in weights}
    total, applies = np.zeros(count), np.zeros(count, bool)
    for name, values in paid.items():
        present = ~np.isnan(values)
        total[present] += weights[name] * values[present]
        applies |= present
    whose = costly(options, update)
    failed = np.zeros(count, bool)
    failed[[f.index for f in found.failures if f.term in whose and f.kind != MALFORMED]] = True
    names = ", ".join(weights)
    failures = list(found.failures)
    for index in np.flatnonzero(~applies & ~failed):
        message = "every rewarded term returned None for this sample"
        failures.append(Failure(int(index), names, "not_applicable", message, short(completion(int(index)))))
    for index in np.flatnonzero(applies & ~failed & ~usable(total)):
        failed[index] = True
        message = f"the weighted sum of the terms is {total[index]}, and a finite number below {LARGEST:g} is expected"
        failures.append(Failure(int(index), names, "not_finite", message, short(completion(int(index)))))
    total[failed | ~applies] = np.nan
    return Scores(total, found.terms, failures, found.metrics, paid, found.calls)


def _paid(name: str, terms: dict[str, np.ndarray], options: RewardOptions) -> np.ndarray:
    """(N,) what the sum counts of one term or criterion."""
    term = options.terms[options.term_of(name)]
    values = terms[name] if term.clip is None else terms[name].clip(*term.clip)
    for gate, least in term.requires.items():
        values = np.where((terms[gate] < least) & ~np.isnan(values), 0.0, values)  # NaN is below nothing
    return values


def costly(options: RewardOptions, update: int | None) -> set[str]:
    """Whose failure costs a sample: what is paid, the gates of that, and the terms that these belong to.

    Args:
        update: whose weights are meant; None: those of evaluations.
    """
    paid = [name for name, weight in options.weights(update).items() if weight != 0]
    gates = {gate for name in paid for gate in options.terms[options.term_of(name)].requires}
    reported = {*paid, *gates}
    return {*reported, *(options.term_of(name) for name in reported)}

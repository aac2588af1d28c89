"""What the user is told about samples that a reward function could not score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rewards.options import Missing, RewardOptions
from rewards.scoring.scores import MALFORMED, Failure


def failure_notes(
    what: str, failures: Sequence[Failure], rewards: RewardOptions, unscored: int, samples: int
) -> Iterator[str]:
    """One line about the samples without a reward, and one for each measure (a term of weight 0) that failed, which
    costs no sample.

    Args:
        what: `update 3`, for instance.
        unscored: how many of the `samples` have no reward.
    """
    if first := first_loss(failures, rewards):
        yield f"{what}: {unscored} of {samples} samples could not be scored and were left out; first: {first}"
    for name in _measures(rewards):
        if failed := [failure for failure in failures if failure.term == name and failure.kind != MALFORMED]:
            yield (
                f"{what}: the measure {name} (weight 0) has no value for {len(failed)} of {samples} samples, which "
                f"keep their reward; first: {_told(failed[0])}"
            )


def too_many(what: str, failures: Sequence[Failure], rewards: RewardOptions, unscored: int, samples: int) -> str:
    """Why samples without a reward end the run; "" if they do not."""
    limit = 0.0 if rewards.missing is Missing.stop else rewards.max_failed_fraction
    if unscored <= limit * samples:
        return ""
    first = first_loss(failures, rewards)
    rule = "reward.missing=stop allows" if rewards.missing is Missing.stop else f"reward.max_failed_fraction={limit:g}"
    way_out = "use reward.missing=drop_sample" if rewards.missing is Missing.stop else "raise the limit"
    return (
        f"{unscored} of {samples} samples of {what} could not be scored, more than {rule}"
        f"{f'; first: {first}' if first else ''}. Mend the reward or its data, or {way_out}"
    )


def first_loss(failures: Sequence[Failure], rewards: RewardOptions) -> str:
    """The first failure that cost a sample its reward; "" if there is none. Malformed ones have theirs, which is 0."""
    measures = _measures(rewards)
    lost = (failure for failure in failures if failure.kind != MALFORMED and failure.term not in measures)
    return next(map(_told, lost), "")


def _measures(rewards: RewardOptions) -> list[str]:
    """Terms, and criteria of terms, of weight 0."""
    names = [name for name, term in rewards.terms.items() if not any(term.weights(name).values())]
    return names + [name for name, weight in rewards.weights().items() if weight == 0 and name not in names]


def malformed_counts(failures: Sequence[Failure]) -> dict[str, float]:
    """`malformed/LABEL` -> how many samples paid nothing because their verifier, LABEL, could not read them."""
    counts = Counter(failure.label or failure.term for failure in failures if failure.kind == MALFORMED)
    return {f"malformed/{label}": float(count) for label, count in sorted(counts.items())}


def failed_counts(failures: Sequence[Failure]) -> dict[str, float]:
    """`reward/failed/KIND` -> how many scores could not be made: of terms, so that a sample may have several."""
    counts = Counter(failure.kind for failure in failures if failure.kind not in (MALFORMED, "not_applicable"))
    return {f"reward/failed/{kind}": float(count) for kind, count in sorted(counts.items())}


def worth_keeping(failures: Sequence[Failure]) -> list[Failure]:
    """All failures, and of the malformed samples, of which there may be many, the first of each label."""
    first = {failure.label: failure for failure in reversed(failures) if failure.kind == MALFORMED}
    return [failure for failure in failures if failure.kind != MALFORMED or failure is first[failure.label]]


def _told(failure: Failure) -> str:
    return f"{failure.term}: {failure.kind}: {failure.message} on {failure.completion!r}"

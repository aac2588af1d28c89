"""What the user is told about samples that a reward function could not score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rewards.options import Missing, RewardOptions
from rewards.scoring.combination import costly
from rewards.scoring.scores import MALFORMED, Failure


def failure_notes(
    what: str,
    failures: Sequence[Failure],
    rewards: RewardOptions,
    unscored: int,
    samples: int,
    update: int | None = None,
) -> Iterator[str]:
    """One line about the samples without a reward, and one for each measure (a term of weight 0 that is no gate of one
    that is paid) that failed, which costs no sample.

    Args:
        what: `update 3`, for instance.
        unscored: how many of the `samples` have no reward.
        update: whose weights they were scored with; None: those of evaluations.
    """
    if first := first_loss(failures, rewards, update):
        yield f"{what}: {unscored} of {samples} samples could not be scored and were left out; first: {first}"
    for name in _measures(rewards, update):
        if failed := [failure for failure in failures if failure.term == name and failure.kind != MALFORMED]:
            yield (
                f"{what}: the measure {name} (weight 0) has no value for {len(failed)} of {samples} samples, which "
                f"keep their reward; first: {_told(failed[0])}"
            )


def too_many(
    what: str,
    failures: Sequence[Failure],
    rewards: RewardOptions,
    unscored: int,
    samples: int,
    update: int | None = None,
) -> str:
    """Why samples without a reward end the run; "" if they do not. Arguments as of `failure_notes`."""
    limit = 0.0 if rewards.missing is Missing.stop else rewards.max_failed_fraction
    if unscored <= limit * samples:
        return ""
    first = first_loss(failures, rewards, update)
    rule = "reward.missing=stop allows" if rewards.missing is Missing.stop else f"reward.max_failed_fraction={limit:g}"
    way_out = "use reward.missing=drop_sample" if rewards.missing is Missing.stop else "raise the limit"
    return (
        f"{unscored} of {samples} samples of {what} could not be scored, more than {rule}"
        f"{f'; first: {first}' if first else ''}. Mend the reward or its data, or {way_out}"
    )


def first_loss(failures: Sequence[Failure], rewards: RewardOptions, update: int | None = None) -> str:
    """The first failure that cost a sample its reward; "" if there is none. Malformed ones have theirs, which is 0."""
    measures = _measures(rewards, update)
    lost = (failure for failure in failures if failure.kind != MALFORMED and failure.term not in measures)
    return next(map(_told, lost), "")


def _measures(rewards: RewardOptions, update: int | None) -> list[str]:
    """Terms, and criteria of terms, whose failure costs no sample."""
    whose = costly(rewards, update)
    return [name for name in dict.fromkeys([*rewards.terms, *rewards.weights()]) if name not in whose]


def malformed_counts(failures: Sequence[Failure]) -> dict[str, float]:
    """`malformed/LABEL` -> how many samples paid nothing because their verifier, LABEL, could not read them."""
    counts = Counter(failure.label or failure.term for failure in failures if failure.kind == MALFORMED)
    return {f"malformed/{label}": float(count) for label, count in sorted(counts.items())}


def failed_counts(failures: Sequence[Failure]) -> dict[str, float]:
    """`failed/KIND` -> how many scores could not be made: of terms, so that a sample may have several."""
    counts = Counter(failure.kind for failure in failures if failure.kind not in (MALFORMED, "not_applicable"))
    return {f"failed/{kind}": float(count) for kind, count in sorted(counts.items())}


def worth_keeping(failures: Sequence[Failure]) -> list[Failure]:
    """All failures, and of the malformed samples, of which there may be many, the first of each label."""
    first = {failure.label: failure for failure in reversed(failures) if failure.kind == MALFORMED}
    return [failure for failure in failures if failure.kind != MALFORMED or failure is first[failure.label]]


def _told(failure: Failure) -> str:
    return f"{failure.term}: {failure.kind}: {failure.message} on {failure.completion!r}"

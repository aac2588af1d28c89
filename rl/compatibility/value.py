"""Options of a value model that cannot work; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from configs.algorithm_options import AdvantageKind, AlgorithmOptions, LikelihoodKind, ObjectiveKind, Ratio


def value_problems(algorithm: AlgorithmOptions) -> Iterator[str]:
    value, likelihood = algorithm.value, algorithm.likelihood
    if value is None:
        if algorithm.advantage is AdvantageKind.raw:
            yield (
                "algorithm.advantage=raw is a reward that is compared with nothing but a value model's prediction, and "
                "algorithm.value is null; set algorithm.value.passes=1, say, or use advantage=centred"
            )
        return
    if algorithm.advantage.offline:
        yield (
            f"algorithm.value predicts what the policy's samples will be worth, and advantage="
            f"{algorithm.advantage.name} learns from answers in the data; use value=null"
        )
    elif likelihood.kind is not LikelihoodKind.replay:
        yield (
            f"algorithm.value needs a recorded trace, whose states it judges, and likelihood.kind="
            f"{likelihood.kind.name} has none; use kind=replay, or value=null"
        )
    if likelihood.sampled_parts is not None:
        yield (
            f"algorithm.value adds up the steps of a sample, and likelihood.sampled_parts={likelihood.sampled_parts} "
            f"leaves steps out; use sampled_parts=null"
        )
    if algorithm.anchor > 0:
        yield (
            "algorithm.anchor learns the samples with a positive advantage, and algorithm.value gives every decision "
            "one of its own; use anchor=0"
        )
    if algorithm.ratio is Ratio.sequence:
        yield (
            "algorithm.value gives every step an advantage of its own, and ratio=sequence has one for the whole "
            "sample; use ratio=element or step"
        )
    if algorithm.objective is ObjectiveKind.group_dpo and likelihood.kind is LikelihoodKind.replay:
        yield (
            "algorithm.value gives every step an advantage of its own, and objective=group_dpo compares whole samples; "
            "use another objective"
        )
    for name, share in (("discount", value.discount), ("gae_lambda", value.gae_lambda)):
        if share > 1:
            yield f"algorithm.value.{name}={share}: must be at most 1"

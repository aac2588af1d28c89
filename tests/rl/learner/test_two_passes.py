"""An update does not depend on how its minibatch is cut, in every cell: losses that join rows take two passes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from configs.algorithm_options import (
    AlgorithmOptions,
    Denominator,
    KlEstimator,
    KlOptions,
    LikelihoodOptions,
    ObjectiveKind,
    OptimizerOptions,
    Partition,
    Ratio,
)
from models.text.policy import TextPolicy
from rl.algorithm.requirements import is_coupled
from rl.likelihood.protocol import Likelihood, micro_batches
from rl.likelihood.text import TextReplay
from tests.models.pipelines import tiny_pipeline
from tests.rl.support.image_learning import CPU, Training, configuration
from tests.rl.support.text_learning import (
    SAMPLER,
    Outcome,
    RecordingEngine,
    SeveralDraws,
    learn,
    permuted,
    policy,
    recorded_groups,
)

pytestmark = pytest.mark.usefixtures("rank")

EXACT = 5e-6
"""Of fp32 gradients that differ in the order of their sums."""
SMALL, LARGE = 30, 10**6
"""Tokens of a micro-batch: two rows, or everything."""
K2, K3 = KlOptions(0.05, estimator=KlEstimator.k2), KlOptions(0.05, estimator=KlEstimator.k3)


def replay(trained: TextPolicy) -> TextReplay:
    return TextReplay(trained.spec, SAMPLER, LikelihoodOptions(), CPU)


def coarse(trained: TextPolicy) -> TextReplay:
    return TextReplay(trained.spec, SAMPLER, LikelihoodOptions(partition=Partition.one), CPU)


LOCAL = {
    "element": (replay, AlgorithmOptions(kl=K3)),
    "element_one_part": (coarse, AlgorithmOptions(kl=K3)),
    "row": (replay, AlgorithmOptions(denominator=Denominator.row)),
    "row_length": (replay, AlgorithmOptions(denominator=Denominator.row_length, kl=KlOptions(0.05))),
    "step": (replay, AlgorithmOptions(ratio=Ratio.step, denominator=Denominator.step, dual_clip=1.5)),
    "weighted": (replay, AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.weighted, anchor=0.2)),
    "trust_region": (replay, AlgorithmOptions(objective=ObjectiveKind.trust_region, clip_kl=1e-3)),
    "clip_always": (replay, AlgorithmOptions(objective=ObjectiveKind.clip_always, self_normalise=True, kl=K3)),
}
COUPLED = {
    "sequence": (replay, AlgorithmOptions(ratio=Ratio.sequence, clip=0.01, kl=K2)),
    "stable_drl": (
        SeveralDraws,
        AlgorithmOptions(ratio=Ratio.sequence, objective=ObjectiveKind.clip_always, self_normalise=True),
    ),
    "espo": (SeveralDraws, AlgorithmOptions(ratio=Ratio.sequence, denominator=Denominator.sequence, kl=K2)),
    "group_dpo": (SeveralDraws, AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.group_dpo, anchor=0.1)),
    "sandwich": (SeveralDraws, AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.sandwich)),
    "linear_bound": (SeveralDraws, AlgorithmOptions(ratio=Ratio.sequence, objective=ObjectiveKind.linear_bound)),
    "overlapping": (SeveralDraws, AlgorithmOptions(kl=K2)),
}
CELLS = LOCAL | COUPLED


def cell(name: str, tokens: int, **changes) -> tuple[AlgorithmOptions, Callable[[TextPolicy], Likelihood]]:
    likelihood, options = CELLS[name]
    options = copy.deepcopy(options)
    options.micro_batch_tokens = tokens
    options.optimizer = OptimizerOptions(learning_rate=1e-2, eps=1e-2)  # a step that is not merely a sign
    for key, value in changes.items():
        setattr(options, key, value)
    return options, likelihood


def outcome(name: str, tokens: int, change=lambda groups: groups) -> Outcome:
    """Two minibatches of two groups, of samples whose policy has moved on: the ratios of both are far from one."""
    options, likelihood = cell(name, tokens)
    groups = recorded_groups()
    return learn(options, likelihood, [change(groups[:2]), change(groups[2:])], moved=0.01)


def assert_same(one: Outcome, other: Outcome) -> None:
    for gradient, again in zip(one.gradients, other.gradients, strict=True):
        assert gradient.norm() > 1e-3
        assert (gradient - again).norm() <= EXACT * gradient.norm()
    before = torch.cat([p.detach().flatten() for p in policy(0.01).parameters()])
    assert (one.weights - other.weights).norm() <= EXACT * (one.weights - before).norm()


@pytest.mark.parametrize("name", CELLS)
def test_update_does_not_depend_on_micro_batches_or_on_the_order_of_samples(name):
    likelihood, options = CELLS[name]
    trained = policy()
    assert is_coupled(options, likelihood(trained).overlapping) == (name in COUPLED)
    rows = likelihood(trained).rows([group.trajectory for group in recorded_groups()[:2]], 0)
    assert len(micro_batches(rows, SMALL)) >= 3
    whole, cut = outcome(name, LARGE), outcome(name, SMALL)
    assert_same(whole, cut)
    assert cut.metrics["learner/loss"] == pytest.approx(whole.metrics["learner/loss"], rel=1e-4, abs=1e-5)
    assert_same(whole, outcome(name, SMALL, lambda groups: [permuted(group, 7) for group in groups[::-1]]))


@pytest.mark.parametrize("name", CELLS)
def test_rows_that_keep_ranks_in_step_change_no_update(name, monkeypatch):
    """As if another rank had three micro-batches more: the last row is scored three times again, for nobody."""
    alone = outcome(name, SMALL)
    monkeypatch.setattr("rl.learner.collectives.maximum_over_ranks", lambda value, device: value + 3)
    assert_same(alone, outcome(name, SMALL))


@pytest.mark.parametrize("name", sorted(COUPLED.keys() - {"group_dpo"}))  # which is refused without its reference
def test_taken_apart_such_losses_would_have_another_gradient(name, monkeypatch):
    """The control: were micro-batches to be differentiated by themselves."""
    whole = outcome(name, LARGE)
    monkeypatch.setattr("rl.learner.learner.is_coupled", lambda *_: False)
    apart = outcome(name, SMALL)
    assert (whole.gradients[1] - apart.gradients[1]).norm() > 1e-2 * whole.gradients[1].norm()


def test_self_normalised_by_micro_batch_would_be_another_gradient(monkeypatch):
    whole = outcome("clip_always", LARGE)
    monkeypatch.setattr("rl.learner.learner.Learner._whole_sum", lambda *_: lambda part: part)
    apart = outcome("clip_always", SMALL)
    assert (whole.gradients[0] - apart.gradients[0]).norm() > 0.1 * whole.gradients[0].norm()


@pytest.mark.slow
def test_self_normalised_gaussian_steps_keep_what_only_they_have(tmp_path, monkeypatch):
    """Guard's ratio and the exact KL need means, which no slope of a log-probability stands for."""
    tiny_pipeline("sd3").save_pretrained(tmp_path)
    options = ("objective=clip_always", "self_normalise=true", "ratio=guard", "kl.estimator=exact", "clip_kl=0.5")
    gradients = []
    monkeypatch.setattr("rl.learner.engine.Engine", RecordingEngine)
    for tokens in (64, LARGE):
        overrides = [f"algorithm.{option}" for option in (*options, f"micro_batch_tokens={tokens}", "minibatches=2")]
        config = configuration(tmp_path, "algorithm=precise_grpo", *overrides)
        training = Training(config, lambda image: float(image[..., 0].mean()))
        training.update(0)
        gradients.append(training.learner.engine.gradients)
    for one, other in zip(*gradients, strict=True):
        assert one.norm() > 1e-3
        assert (one - other).norm() <= EXACT * one.norm()


@pytest.mark.parametrize("name", CELLS)
def test_at_the_first_update_ratios_are_one_and_the_kl_is_zero(name):
    """Exactly so where old and new are scored by the same forward; to rounding where the rollout recorded the old."""
    options, likelihood = cell(name, SMALL)
    found = learn(options, likelihood, [recorded_groups()], moved_reference=0.0)
    limit = 1e-5 if likelihood is replay else 0.0
    if "ratio/mean" in found.metrics:
        assert found.metrics["ratio/max_error"] <= limit
        assert found.metrics["ratio/clip_fraction"] == 0
    if options.kl.coefficient > 0:
        assert found.metrics["kl/reference"] == 0
        moved = learn(options, likelihood, [recorded_groups()], moved_reference=0.05)
        assert moved.metrics["kl/reference"] > 1e-6
    if options.objective is ObjectiveKind.group_dpo:
        assert found.metrics["preference/margin"] == 0


@pytest.mark.parametrize("name", [name for name in CELLS if CELLS[name][0] is not replay])
def test_several_updates_compare_with_the_policy_before_the_first(name):
    """Old log-probabilities are scored before the weights change, so the first ratios are still exactly one, and
    those of the second minibatch are not."""
    options, likelihood = cell(name, SMALL)
    groups = recorded_groups()
    first = learn(options, likelihood, [groups[:2]])
    both = learn(options, likelihood, [groups[:2], groups[2:]])
    assert (first.gradients[0] - both.gradients[0]).norm() <= EXACT * first.gradients[0].norm()
    if "ratio/mean" in both.metrics:
        assert both.metrics["ratio/max_error"] == 0
        assert both.metrics["ratio/mean"] != 1

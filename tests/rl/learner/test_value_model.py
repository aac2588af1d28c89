"""The value model of a text policy in the real learner: what it reads, what it changes, that it learns and resumes."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from configs.algorithm_options import AlgorithmOptions, Denominator, LikelihoodOptions, OptimizerOptions, ValueOptions
from models.text.policy import TextPolicy
from models.text.value import text_value
from rl.algorithm.decisions import Entry
from rl.algorithm.gae import step_advantages
from rl.learner.engine import Engine
from rl.learner.groups import Group
from rl.learner.learner import Learner
from rl.learner.report import LearnerError
from rl.learner.state_files import InFolder
from rl.learner.value_model import ValueModel
from rl.likelihood.protocol import micro_batches
from rl.likelihood.text import TextReplay
from rollout.options import Order, SamplerOptions
from rollout.trajectory import TextTrajectory
from tests.rl.support.image_learning import CPU
from tests.rl.support.text_learning import (
    SAMPLER,
    Outcome,
    learn,
    permuted,
    policy,
    recorded_groups,
    value_model,
    value_network,
)
from tests.sampling import prompts_of, roll_out
from tests.tiny import tiny_policy

pytestmark = pytest.mark.usefixtures("rank")

EXACT = 5e-6
"""Of fp32 gradients that differ in the order of their sums."""
SMALL, LARGE = 30, 10**6
"""Tokens of a micro-batch: two rows, or everything."""
OPTIMIZER = OptimizerOptions(learning_rate=1e-2, eps=1e-2)
HEAD = 0.3


def replay(trained: TextPolicy) -> TextReplay:
    return TextReplay(trained.spec, SAMPLER, LikelihoodOptions(), CPU)


def options(tokens: int = LARGE, **value) -> AlgorithmOptions:
    found = ValueOptions(**{"discount": 0.9, "gae_lambda": 0.8, "optimizer": copy.deepcopy(OPTIMIZER), **value})
    return AlgorithmOptions(
        denominator=Denominator.step, value=found, micro_batch_tokens=tokens, optimizer=copy.deepcopy(OPTIMIZER)
    )


def outcome(tokens: int, change=lambda groups: groups, **value) -> Outcome:
    """Two minibatches of two groups, judged by a value model that has learned something."""
    groups = recorded_groups()
    return learn(options(tokens, **value), replay, [change(groups[:2]), change(groups[2:])], value_head=HEAD)


def assert_same(one: Outcome, other: Outcome) -> None:
    for name in ("gradients", "value_gradients"):
        for gradient, again in zip(getattr(one, name), getattr(other, name), strict=True):
            assert gradient.norm() > 1e-3
            assert (gradient - again).norm() <= EXACT * gradient.norm()
    for name in ("value/loss", "value/mean", "value/explained_variance"):
        assert one.metrics[name] == pytest.approx(other.metrics[name], rel=1e-4, abs=1e-6)


def test_an_update_does_not_depend_on_micro_batches_or_on_the_order_of_samples():
    rows = replay(policy()).rows([group.trajectory for group in recorded_groups()[:2]], 0)
    assert len(micro_batches(rows, SMALL)) >= 3
    whole = outcome(LARGE)
    assert len(whole.value_gradients) == 2
    assert_same(whole, outcome(SMALL))
    assert_same(whole, outcome(SMALL, lambda groups: [permuted(group, 7) for group in groups[::-1]]))


def test_rows_that_keep_ranks_in_step_change_nothing(monkeypatch):
    alone = outcome(SMALL)
    monkeypatch.setattr("rl.learner.collectives.maximum_over_ranks", lambda value, device: value + 3)
    assert_same(alone, outcome(SMALL))


def test_samples_are_judged_before_the_value_model_learns_from_them():
    """However fast it learns, the policy's update is the same."""
    slow, fast = (
        outcome(LARGE, passes=passes, optimizer=OptimizerOptions(learning_rate=rate))
        for passes, rate in ((1, 1e-9), (2, 1.0))
    )
    assert len(fast.value_gradients) == 4
    for one, other in zip(slow.gradients, fast.gradients, strict=True):
        assert torch.equal(one, other)
    other_values = learn(options(), replay, [recorded_groups()[:2], recorded_groups()[2:]], value_head=0.0)
    assert (slow.gradients[0] - other_values.gradients[0]).norm() > 0.1 * slow.gradients[0].norm()  # they do matter


def test_a_value_model_that_has_learned_nothing_changes_nothing():
    """Its first values are 0, so that with discount = lambda = 1 the first advantages are the outcomes, to the bit."""
    plain = options(SMALL)
    plain.value = None
    with_value = learn(options(SMALL, discount=1.0, gae_lambda=1.0), replay, [recorded_groups()])
    without = learn(plain, replay, [recorded_groups()])
    assert torch.equal(with_value.weights, without.weights)
    assert with_value.metrics["value/mean"] == 0
    assert with_value.metrics["learner/rows"] == 3 * without.metrics["learner/rows"]  # judged, and trained on
    discounted = learn(options(SMALL, discount=0.5), replay, [recorded_groups()])
    assert not torch.equal(discounted.weights, without.weights)


def test_its_predictions_become_better():
    """Of outcomes that follow from the prompt, so that every canvas tells them."""
    groups = [
        dataclasses.replace(group, advantage=np.full(3, np.cos(2.0 * index), np.float32))
        for index, group in enumerate(recorded_groups())
    ]
    chosen = options(gae_lambda=1.0, discount=1.0, passes=4, clip=None)
    chosen.optimizer.learning_rate = 1e-9
    chosen.value.optimizer = OptimizerOptions(learning_rate=1e-2)
    trained = policy()
    engine = Engine(trained, chosen.optimizer, zero_stage=0, bf16=False)
    likelihood = replay(trained)
    learner = Learner(engine, likelihood, None, None, chosen, 100, CPU, value=value_model(chosen.value, likelihood))
    rows = [learner.step(update, [groups], fresh=False) for update in range(8)]
    explained = [row["value/explained_variance"] for row in rows]
    assert explained[0] == 0
    assert explained[-1] > 0.95
    assert rows[-1]["value/loss"] < 0.1 * rows[0]["value/loss"]
    assert rows[-1]["value/mean"] == pytest.approx(np.mean([g.advantage[0] for g in groups]), abs=0.2)


def test_advantages_are_gae_of_the_network_s_own_values():
    groups = recorded_groups()
    network = value_network(HEAD)
    for entries in judged(groups):
        rows = [entry.row for entry in entries]
        with torch.no_grad():
            value = replay(network).values(network, rows).numpy()
        step = np.concatenate([row.step for row in rows])
        worth = groups[entries[0].group].advantage[groups_valid(groups)[entries[0].sample]]
        reward = np.where(step == step.max(), worth, 0.0)
        advantage, target = step_advantages(reward, value, step, 0.9, 0.8)
        np.testing.assert_allclose(
            np.concatenate([entry.advantage for entry in entries]), advantage, rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(np.concatenate([entry.value_target for entry in entries]), target, rtol=1e-5)


def joined(entries: list[Entry], name: str) -> np.ndarray:
    return np.concatenate([getattr(entry, name) for entry in entries])


def groups_valid(groups: list[Group]) -> list[int]:
    """Place in its group of each sample that is learned from."""
    return [int(sample) for group in groups for sample in group.valid.nonzero()[0]]


def judged(groups: list[Group]) -> list[list[Entry]]:
    """The entries of each sample."""
    chosen, trained = options(SMALL), policy()
    likelihood = replay(trained)
    engine = Engine(trained, chosen.optimizer, zero_stage=0, bf16=False)
    learner = Learner(
        engine, likelihood, None, None, chosen, 100, CPU, value=value_model(chosen.value, likelihood, HEAD)
    )
    found: dict[int, list[Entry]] = {}
    for batch in learner._prepare(groups, 0, 0):
        for entry in batch:
            found.setdefault(entry.sample, []).append(entry)
    return list(found.values())


@pytest.mark.parametrize("family", ["sdar", "llada", "dream"])
def test_a_value_does_not_see_what_its_round_reveals(family):
    """Another token in place of one that was revealed in round r: values of the rounds up to r stay the same, and of
    later ones some change."""
    sampler = SamplerOptions(order=Order.max_prob, rounds_per_block=2, max_new_tokens=7)
    network = tiny_policy(family, scale=1.5)
    (trajectory,) = roll_out(network, sampler, prompts_of([5]), group_size=3)
    network = text_value(network)
    torch.nn.init.normal_(network.network.lm_head.weight, generator=torch.Generator().manual_seed(1))
    likelihood = TextReplay(network.spec, sampler, LikelihoodOptions(), CPU)
    seen_later = False
    before = values_of(likelihood, network, trajectory)
    for place in range(trajectory.mask.shape[1]):
        ids = trajectory.canvas_ids.copy()
        ids[:, place] = (ids[:, place] + 1) % 3
        after = values_of(likelihood, network, dataclasses.replace(trajectory, canvas_ids=ids))
        round_of = trajectory.reveal[:, place : place + 1]
        up_to_it = trajectory.mask & (trajectory.reveal <= round_of) & (round_of > 0)
        np.testing.assert_array_equal(after[up_to_it], before[up_to_it])
        later = trajectory.mask & (trajectory.reveal > round_of) & (round_of > 0)
        seen_later |= bool((np.abs(after - before)[later] > 1e-4).any())
    assert seen_later


def values_of(likelihood: TextReplay, network: TextPolicy, trajectory: TextTrajectory) -> np.ndarray:
    """(G, D), NaN where not trained."""
    values = np.full(trajectory.logp.shape, np.nan)
    for row in likelihood.rows([trajectory], 0):
        with torch.no_grad():
            values[row.sample, row.decision] = likelihood.values(network, [row]).numpy()
    return values


def test_it_resumes_where_it_stopped(tmp_path):
    """Weights and Adam's moments: the third update is the same to the bit. Without loading, it is not."""

    def model() -> ValueModel:
        chosen = options().value
        chosen.optimizer = OptimizerOptions(learning_rate=1e-2)
        return value_model(chosen, replay(policy()), HEAD)

    def train(value: ValueModel, update: int) -> torch.Tensor:
        chosen, trained = options(), policy()
        engine = Engine(trained, chosen.optimizer, zero_stage=0, bf16=False)
        learner = Learner(engine, replay(trained), None, None, chosen, 100, CPU, value=value)
        learner.step(update, [recorded_groups()], fresh=False)
        return torch.cat([p.detach().flatten() for p in value.engine.module.parameters()])

    straight = model()
    for update in range(2):
        train(straight, update)
    straight.save(InFolder(tmp_path))
    third = train(straight, 2)
    resumed = model()
    resumed.load(tmp_path)
    assert torch.equal(train(resumed, 2), third)
    assert resumed.engine.updates == 3
    assert not torch.equal(train(model(), 2), third)


def test_predictions_that_are_not_finite_stop_the_run():
    value = value_model(options().value, replay(policy()))
    with torch.no_grad():
        value.engine.module.network.lm_head.weight.fill_(float("nan"))
    chosen, trained = options(), policy()
    engine = Engine(trained, chosen.optimizer, zero_stage=0, bf16=False)
    learner = Learner(engine, replay(trained), None, None, chosen, 100, CPU, value=value)
    with pytest.raises(LearnerError, match="predicts numbers that are not finite"):
        learner.step(0, [recorded_groups()], fresh=False)

"""The likelihood of all that a text's rounds proposed: what it reproduces, MDPO's loss, and its bias."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from configs.algorithm_options import AlgorithmOptions, Denominator, KlEstimator, KlOptions
from models.text.policy import TextPolicy
from rl.algorithm.decisions import Decisions, Entry
from rl.algorithm.objectives import policy_loss
from rl.algorithm.scores import Scores
from rl.learner.groups import Group
from rl.likelihood.text import TextReplay
from rl.likelihood.text_proposals import TextProposals
from rollout.options import Order, Remask, SamplerOptions
from rollout.text.proposals import proposal_view
from rollout.trajectory import TextTrajectory, TrajectoryError
from tests.rl.likelihood.test_policy_gradient_bias import cosine, relative_error
from tests.rl.support.image_learning import CPU
from tests.rl.support.text_learning import learn
from tests.rl.support.text_learning import policy as learning_policy
from tests.sampling import prompts_of, roll_out
from tests.tiny import tiny_policy
from tests.traces import text_trajectory

SAMPLER = SamplerOptions(rounds_per_block=3, max_new_tokens=7, temperature=0.8)
RULES = {
    "max_prob": SAMPLER,
    "drawn_prob": dataclasses.replace(SAMPLER, order=Order.drawn_prob),
    "entropy": dataclasses.replace(SAMPLER, order=Order.entropy, temperature=1.3),
    "remasked": dataclasses.replace(SAMPLER, remask=Remask.running_confidence),
    "remasked blocks": dataclasses.replace(SAMPLER, remask=Remask.running_confidence, block_length=4),
    "blocks": dataclasses.replace(SAMPLER, block_length=4),
}
CASES = [(family, name) for family in ("llada", "dream") for name in RULES] + [("sdar", n) for n in list(RULES)[:3]]


def groups_of(family: str, sampler: SamplerOptions) -> tuple[TextPolicy, list[TextTrajectory]]:
    policy = tiny_policy(family, scale=1.0)
    return policy, roll_out(policy, sampler, prompts_of([5, 6]), group_size=4, proposals=True)


def gap(policy: TextPolicy, sampler: SamplerOptions, groups: list[TextTrajectory]) -> float:
    likelihood = TextProposals(policy.spec, sampler, CPU)
    views = [likelihood.decisions_of(group) for group in groups]
    rows = likelihood.rows(views, 0)
    keys = [(row.trajectory, row.sample, d) for row in rows for d in row.decision.tolist()]
    assert len(set(keys)) == len(keys) == sum(int((group.proposed_ids >= 0).sum()) for group in groups)
    with torch.no_grad():
        found = likelihood.score(policy, rows).log_prob.numpy()
    recorded = np.concatenate([views[row.trajectory].logp[row.sample, row.decision] for row in rows])
    assert np.abs(recorded).max() > 0.1
    return float(np.abs(found - recorded).max())


@pytest.mark.parametrize(("family", "name"), CASES)
def test_what_was_recorded_comes_out_again(family: str, name: str) -> None:
    """Every token that any round proposed, once a round."""
    assert gap(*sampled(family, name)) <= 1e-5


def sampled(family: str, name: str) -> tuple[TextPolicy, SamplerOptions, list[TextTrajectory]]:
    policy, groups = groups_of(family, RULES[name])
    return policy, RULES[name], groups


def test_a_canvas_of_another_round_would_be_noticed(monkeypatch) -> None:
    policy, sampler, groups = sampled("llada", "remasked")
    canvas_at = TextTrajectory.canvas_at
    monkeypatch.setattr(TextTrajectory, "canvas_at", lambda self, r, mask: canvas_at(self, max(r - 1, 1), mask))
    assert gap(policy, sampler, groups) > 1e-3


@pytest.mark.parametrize("family", ["llada", "sdar"])
def test_recording_proposals_changes_no_sample(family: str) -> None:
    for name in ("max_prob", "drawn_prob", "blocks") if family == "llada" else ("max_prob", "drawn_prob"):
        policy = tiny_policy(family, scale=1.0)
        with_them, without = (
            roll_out(policy, RULES[name], prompts_of([5]), group_size=4, proposals=kept)[0] for kept in (True, False)
        )
        assert without.proposed_ids is None
        for field in ("canvas_ids", "reveal", "stop_length", "logp"):
            np.testing.assert_array_equal(getattr(with_them, field), getattr(without, field))
        for r in range(1, int(without.reveal.max()) + 2):
            mask = policy.spec.mask_id
            np.testing.assert_array_equal(with_them.canvas_at(r, mask), without.canvas_at(r, mask))


def test_a_trajectory_without_proposals_is_refused() -> None:
    policy, groups = groups_of("llada", SAMPLER)
    bare = dataclasses.replace(groups[0], proposed_ids=None, proposed_logp=None)
    with pytest.raises(TrajectoryError, match="holds no proposals"):
        TextProposals(policy.spec, SAMPLER, CPU).decisions_of(bare)


def test_the_ordinary_replay_refuses_remasked_texts() -> None:
    from configs.algorithm_options import LikelihoodOptions

    with pytest.raises(TrajectoryError, match="scores each position once"):
        TextReplay(tiny_policy("llada").spec, RULES["remasked"], LikelihoodOptions(), CPU)


# MDPO's loss

BETA, CLIP, MOVED, REFERENCE = 0.02, 0.2, 0.05, 0.1
MDPO = AlgorithmOptions(
    clip=CLIP,
    denominator=Denominator.step,
    kl=KlOptions(coefficient=BETA, estimator=KlEstimator.k2),
    micro_batch_tokens=40,
)


def log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values - values.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def logits_of(policy: TextPolicy, prompt: np.ndarray, canvas: np.ndarray) -> np.ndarray:
    """(L, V) in fp64, what may not be drawn left out."""
    text = torch.tensor(np.concatenate([prompt, canvas]).astype(np.int64))[None]
    place = torch.arange(text.shape[1])[None]
    read = torch.stack([torch.zeros(len(canvas), dtype=torch.long), len(prompt) + torch.arange(len(canvas))])
    with torch.no_grad():
        logits = policy(text, place, torch.zeros_like(place), torch.zeros_like(place), read).double().numpy()
    logits[:, list(policy.spec.forbidden_ids)] = -np.inf
    return logits


def mdpo_loss(group: TextTrajectory, advantage: np.ndarray, valid: np.ndarray, sampler: SamplerOptions) -> float:
    """Read off the paper: sample by sample, round by round, position by position."""
    policy, reference, mask_id = learning_policy(MOVED), learning_policy(REFERENCE), learning_policy().spec.mask_id
    of_samples = []
    for i in range(group.group_size):
        of_rounds = []
        for t in valid[i].nonzero()[0]:
            canvas = group.canvas_at(t + 1, mask_id)[i]
            masked = (canvas == mask_id).nonzero()[0]
            new, frozen = (
                log_softmax(logits_of(p, group.prompt_ids, canvas) / sampler.temperature) for p in (policy, reference)
            )
            total = 0.0
            for k in masked:
                token, old = group.proposed_ids[i, t, k], float(group.proposed_logp[i, t, k])
                ratio = np.exp(new[k, token] - old)
                surrogate = min(ratio * advantage[i, t], np.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage[i, t])
                kl = 0.5 * (frozen[k, token] - new[k, token]) ** 2
                total += np.exp(old) * (-len(canvas) / len(masked) * surrogate + BETA * kl)
            of_rounds.append(total / len(masked))
        of_samples.append(np.mean(of_rounds))
    return float(np.mean(of_samples))


def recorded_group(sampler: SamplerOptions) -> tuple[TextTrajectory, np.ndarray, np.ndarray]:
    (group,) = roll_out(learning_policy(), sampler, prompts_of([5], words=3), group_size=3, proposals=True)
    rounds = group.proposed_ids.shape[1]
    advantage = np.cos(np.arange(3 * rounds)).reshape(3, rounds).astype(np.float32)
    valid = (group.proposed_ids >= 0).any(-1)
    valid[:, 1] = False  # a round that was not selected
    assert (valid.sum(-1) > 1).all()
    return group, advantage, valid


@pytest.mark.parametrize("name", ["max_prob", "remasked"])
def test_the_loss_is_the_one_of_mdpo(rank, name: str) -> None:
    sampler = dataclasses.replace(RULES[name], rounds_per_block=4)
    group, advantage, valid = recorded_group(sampler)
    by_hand = mdpo_loss(group, advantage, valid, sampler)

    def loss(**changes) -> float:
        options = dataclasses.replace(MDPO, **changes)
        outcome = learn(
            options,
            lambda policy: TextProposals(policy.spec, sampler, CPU),
            [[Group(group, advantage, valid)]],
            moved=MOVED,
            moved_reference=REFERENCE,
        )
        return outcome.metrics["learner/loss"]

    assert loss() == pytest.approx(by_hand, abs=1e-6)
    assert abs(loss(denominator=Denominator.token) - by_hand) > 1e-3  # controls
    assert abs(loss(clip=10.0) - by_hand) > 1e-4
    assert abs(loss(kl=KlOptions(coefficient=2 * BETA, estimator=KlEstimator.k2)) - by_hand) > 1e-4


# Bias

LENGTH, WORDS = 3, 3
ORDERS = {"max_prob": Order.max_prob, "drawn_prob": Order.drawn_prob}


class World:
    """All that two rounds can propose on three positions, two of which the first one reveals."""

    def __init__(self, order: Order) -> None:
        self.sampler = SamplerOptions(order=order, rounds_per_block=2, max_new_tokens=LENGTH)
        policy = tiny_policy("llada", words=WORDS, scale=1.5, seed=3)
        self.policy = TextPolicy(policy.network, dataclasses.replace(policy.spec, stop_ids=()))
        self.prompt = np.array([0, 1], np.int32)
        mask = self.policy.spec.mask_id
        q = self.law(np.full(LENGTH, mask))
        self.probability, self.reward, self.ids, reveal = [], [], [], []
        for first in itertools.product(range(WORDS), repeat=LENGTH):
            scores = [float((q[k, first[k]] if order.depends_on_draw else q[k].max()).detach()) for k in range(LENGTH)]
            left = min(range(LENGTH), key=lambda k: (scores[k], -k))
            canvas = np.array([mask if k == left else first[k] for k in range(LENGTH)])
            second = self.law(canvas)[left]
            for token in range(WORDS):
                final = np.where(canvas == mask, token, canvas)
                joint = torch.stack([q[k, v] for k, v in enumerate(first)]).prod() * second[token]
                self.probability.append(joint)
                self.reward.append(np.cos(3.0 * sum(k * t for k, t in enumerate(final))))
                self.ids.append([first, [token if k == left else -1 for k in range(LENGTH)]])
                reveal.append([2 if k == left else 1 for k in range(LENGTH)])
        self.joint = torch.stack(self.probability)
        self.trajectory = self.as_trajectory(np.array(self.ids, np.int32), np.array(reveal, np.int16))

    def law(self, canvas: np.ndarray) -> torch.Tensor:
        """(L, V) differentiable"""
        text = torch.tensor(np.concatenate([self.prompt, canvas]).astype(np.int64))[None]
        place = torch.arange(text.shape[1])[None]
        read = torch.stack([torch.zeros(LENGTH, dtype=torch.long), len(self.prompt) + torch.arange(LENGTH)])
        logits = self.policy(text, place, torch.zeros_like(place), torch.zeros_like(place), read)
        return logits[:, :WORDS].softmax(-1)

    def as_trajectory(self, proposed: np.ndarray, reveal: np.ndarray) -> TextTrajectory:
        count = len(proposed)
        logp = np.zeros(proposed.shape, np.float32)
        for n in range(count):
            canvas = np.full(LENGTH, self.policy.spec.mask_id)
            for t in range(2):
                q = self.law(canvas).detach().numpy()
                for k in (proposed[n, t] >= 0).nonzero()[0]:
                    logp[n, t, k] = np.log(q[k, proposed[n, t, k]])
                canvas = np.where(reveal[n] == t + 1, proposed[n, t], canvas)
        final = np.where(reveal == 2, proposed[:, 1], proposed[:, 0])
        return text_trajectory(self.prompt, final, reveal, self.sampler, proposed_ids=proposed, proposed_logp=logp)

    def gradient(self, value: torch.Tensor) -> torch.Tensor:
        parameters = list(self.policy.parameters())
        found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
        return torch.cat([gradient.flatten() for gradient in filled]).double()

    def policy_gradient(self) -> torch.Tensor:
        """Of minus the expected reward of the finished text."""
        return self.gradient(-self.joint @ torch.tensor(self.reward).float())

    def expected_gradient(self, emphasised: bool, scaled: bool) -> torch.Tensor:
        """Of the clipped surrogate at ratio 1, with raw rewards as advantages."""
        likelihood = TextProposals(self.policy.spec, self.sampler, CPU)
        rows = likelihood.rows([proposal_view(self.trajectory)], 0)
        entries = []
        for row in rows:
            ones, weight = np.ones(len(row.decision), np.float32), float(self.probability[row.sample].detach())
            entries.append(
                Entry(
                    row=row,
                    sample=row.sample,
                    group=0,
                    length=LENGTH + 1,
                    weight=weight * (row.emphasis if emphasised else ones),
                    sample_weight=weight,
                    advantage=ones * np.float32(self.reward[row.sample]),
                    imitated=ones > 1,
                    recorded=ones,
                )
            )
        scores: Scores = likelihood.score(self.policy, rows)
        scores = scores if scaled else Scores(scores.log_prob)
        return self.gradient(
            policy_loss(scores, Decisions.of(entries, CPU), AlgorithmOptions(), 1, lambda part: part).value
        )


@pytest.fixture(scope="module", params=ORDERS)
def world(request) -> World:
    return World(ORDERS[request.param])


def test_all_proposals_together_have_the_policy_gradient(world: World) -> None:
    """Without MDPO's weights, and for orders that look at the drawn tokens too: the ones that lost are not left out."""
    assert world.joint.sum().item() == pytest.approx(1, abs=1e-6)
    assert relative_error(world.expected_gradient(False, False), world.policy_gradient()) <= 1e-5


# (cosine to the policy gradient, relative error) with the weights of rounds and of tokens. Measured.
BIAS = {
    (Order.max_prob, True, False): (0.4923, 1.1732),
    (Order.max_prob, False, True): (0.7832, 1.0348),
    (Order.max_prob, True, True): (0.3789, 1.4710),
    (Order.drawn_prob, True, False): (0.6378, 0.9701),
    (Order.drawn_prob, False, True): (0.9236, 1.4160),
    (Order.drawn_prob, True, True): (0.6249, 1.0954),
}


@pytest.mark.parametrize(("emphasised", "scaled"), [(True, False), (False, True), (True, True)])
def test_bias_of_mdpo_s_weights(world: World, emphasised: bool, scaled: bool) -> None:
    found, exact = world.expected_gradient(emphasised, scaled), world.policy_gradient()
    measured = cosine(found, exact), relative_error(found, exact)
    assert measured == pytest.approx(BIAS[world.sampler.order, emphasised, scaled], abs=1e-3)

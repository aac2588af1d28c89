"""The loss of the library is the learner's, value and gradient, in every cell, of trajectories and of plain arrays."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.algorithm_options import AlgorithmOptions, AnchorOn, Denominator, KlOptions, ObjectiveKind, Ratio
from rl import loss
from rl.algorithm.requirements import needs_reference
from rl.api.configuration import algorithm_options
from rl.api.scored import LogProbs
from rl.learner.groups import Group
from rl.likelihood.protocol import micro_batches
from rl.likelihood.text import TextElbo
from tests.rl.learner.test_two_passes import CELLS, EXACT, LARGE, SMALL, cell
from tests.rl.support.text_learning import learn, policy, recorded_groups

pytestmark = pytest.mark.usefixtures("rank")

MOVED, MOVED_REFERENCE = 0.02, 0.03


def scored(likelihood, model, groups: list[Group], tokens: int) -> LogProbs:
    """As `rl.log_probs` does it, for a policy that no checkpoint holds."""
    one = likelihood(model)
    shown = [one.decisions_of(group.trajectory) for group in groups]
    batches = [(batch, one.score(model, batch)) for batch in micro_batches(one.rows(shown, 0), tokens)]
    return LogProbs(shown, one, batches, one.exact)


def worth(groups: list[Group]) -> np.ndarray:
    return np.stack([np.where(group.valid, group.advantage, np.nan) for group in groups])


def gradient_of(model) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("tokens", [SMALL, LARGE], ids=["batches", "one batch"])
@pytest.mark.parametrize("name", CELLS)
def test_value_and_gradient_are_the_learners(name, tokens):
    options, likelihood = cell(name, tokens)
    groups = recorded_groups()
    expected = learn(copy.deepcopy(options), likelihood, [groups], moved=MOVED, moved_reference=MOVED_REFERENCE)
    model = policy(MOVED)
    found = scored(likelihood, model, groups, tokens)
    reference = None
    if needs_reference(options):
        with torch.no_grad():
            reference = scored(likelihood, policy(MOVED_REFERENCE), groups, tokens)
    result = loss(found, reference=reference, advantages=worth(groups), options=options)
    result.backward()
    scale = float(expected.gradients[0].abs().max())
    assert float(result) == pytest.approx(expected.metrics["learner/loss"], rel=1e-5, abs=1e-7)
    torch.testing.assert_close(gradient_of(model), expected.gradients[0], rtol=0, atol=10 * EXACT * max(scale, 1e-3))
    assert scale > 1e-4  # else the comparison says nothing
    for metric, value in result.metrics.items():
        assert value == pytest.approx(expected.metrics[metric], rel=1e-4, abs=1e-6), metric


@pytest.mark.parametrize(
    "options",
    [
        AlgorithmOptions(kl=KlOptions(0.05)),
        AlgorithmOptions(ratio=Ratio.sequence, denominator=Denominator.sequence, clip=0.01),
        AlgorithmOptions(ratio=Ratio.step, denominator=Denominator.step),
        AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.weighted, anchor=0.3),
        AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.group_dpo),
        AlgorithmOptions(denominator=Denominator.canvas, dual_clip=1.5),
    ],
    ids=["kl", "sequence", "step", "weighted", "dpo", "canvas"],
)
def test_plain_arrays_give_what_trajectories_give(options):
    groups, tokens = recorded_groups(), LARGE
    replay = CELLS["element"][0]
    model = policy(MOVED)
    found = scored(replay, model, groups, tokens)
    with torch.no_grad():
        reference = scored(replay, policy(MOVED_REFERENCE), groups, tokens)
    whole = loss(found, reference=reference, advantages=worth(groups), options=options)
    whole.backward()
    expected = gradient_of(model)

    model.zero_grad()
    grids = [grid.nan_to_num(0.0) for grid in scored(replay, model, groups, tokens).per_decision()]
    plain = loss(
        grids,
        [group.trajectory.logp for group in groups],
        [grid.nan_to_num(0.0) for grid in reference.per_decision()],
        worth(groups),
        [group.trajectory.mask for group in groups],
        options,
        steps=[group.trajectory.reveal.astype(np.int64) for group in groups],
    )
    plain.backward()
    assert float(plain) == pytest.approx(float(whole), rel=1e-5)
    torch.testing.assert_close(gradient_of(model), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_by_hand():
    """Two samples of three and two decisions, clipped at 0.1, mean over decisions, then over samples."""
    new, old = [[-1.0, -2.0, -0.5], [-0.7, -1.1, 9.0]], [[-1.1, -1.8, -0.5], [-0.7, -1.0, 0.0]]
    mask = [[True, True, True], [True, True, False]]
    first = (min(np.exp(0.1), 1.1) + np.exp(-0.2) + 1.0) / 3
    second = -(1.0 + np.exp(-0.1)) / 2
    found = loss(new, old, advantages=[1.0, -1.0], mask=mask, options={"clip": 0.1, "denominator": "sequence"})
    assert float(found) == pytest.approx(-(first + second) / 2, abs=1e-6)
    left_out = loss(new, old, advantages=[1.0, np.nan], mask=mask, options={"clip": 0.1, "denominator": "sequence"})
    assert float(left_out) == pytest.approx(-first, abs=1e-6)
    halved = loss(new, old, advantages=[1.0, 0.0], mask=mask, options={"clip": 0.1, "denominator": "sequence"})
    assert float(halved) == pytest.approx(-first / 2, abs=1e-6)  # the control: 0 counts, NaN does not


def test_the_first_loss_of_dpo_is_log_2_whatever_the_masks_hide():
    """One draw hides nothing of every ninth answer of eight tokens. Its pair was lighter for it, and the first loss
    lay below log 2 at margin 0. A pair of which nothing at all is hidden is not there."""
    group = replace(recorded_groups()[0].trajectory.take([0, 1]), rewards=None)
    pairs = [Group(replace(group, uid=uid), np.ones(2), np.ones(2, bool)) for uid in np.arange(60).reshape(30, 2)]
    model, options = policy(MOVED), algorithm_options("dpo")
    elbo = TextElbo(model.spec, options.likelihood, 1, torch.device("cpu"))
    with torch.no_grad():
        found = scored(lambda _: elbo, model, pairs, LARGE)
    seen = [len({row.sample for row in found.rows if row.trajectory == pair}) for pair in range(len(pairs))]
    assert 1 in seen
    result = loss(found, reference=found, advantages=[[1.0, -1.0]] * len(pairs), options=options)
    assert result.metrics["preference/margin"] == 0
    assert float(result) == pytest.approx(math.log(2) * np.mean([count > 0 for count in seen]))


def dllm_rl(new, old, advantages, steps, lengths, per_row: bool) -> float:
    """What dLLM-RL's trainers minimise, as written there: of each row, which is what one round scores, the policy's
    term and the KL to the policy that sampled; then the mean over rows. For block diffusion both are sums through the
    longest response, for bidirectional models a mean and a sum."""
    longest, rows = max(lengths), []
    for x, x_old, advantage, step, length in zip(new, old, advantages, steps, lengths, strict=True):
        for one in np.unique(step[:length]):
            target = (step == one) & (np.arange(len(step)) < length)
            d = x[target] - x_old[target]
            surrogate = np.minimum(np.exp(d) * advantage, np.exp(d).clip(0.8, 1.2) * advantage).sum()
            k3 = (np.exp(-d) - 1 + d).sum()
            rows.append(-surrogate / (target.sum() if per_row else longest) + 0.01 * k3 / (1 if per_row else longest))
    return float(np.mean(rows))


@pytest.mark.parametrize(
    ("algorithm", "per_row"), [("tracerl", False), ("tracerl_value", False), ("tracerl_full", True)]
)
def test_tracerl_is_the_authors(algorithm: str, per_row: bool):
    """With the mean over each answer's rounds, which the files had, the same numbers give another loss, here of the
    other sign: the first sample took eight rounds and the second two."""
    generator = np.random.default_rng(4)
    old = generator.normal(-1, 0.3, (2, 64))
    new = old + generator.normal(0, 0.15, old.shape)
    steps = np.stack([np.arange(64) // 8, np.arange(64) // 8])
    lengths = [64, 16]
    mask = np.arange(64) < np.array(lengths)[:, None]
    advantages = np.array([-1.0, 1.6])
    options = replace(algorithm_options(algorithm), value=None)
    expected = dllm_rl(new, old, advantages, steps, lengths, per_row)
    found = loss(torch.tensor(new), old, advantages=advantages, mask=mask, options=options, steps=steps)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    of_answers = replace(options, denominator=Denominator.step, kl=replace(options.kl, coefficient=0.01))
    other = loss(torch.tensor(new), old, advantages=advantages, mask=mask, options=of_answers, steps=steps)
    assert float(other) * expected < 0


def test_what_is_missing_or_does_not_fit_is_named():
    groups = recorded_groups()
    replay = CELLS["element"][0]
    found = scored(replay, policy(MOVED), groups, LARGE)
    other = scored(replay, policy(MOVED), groups[:2], LARGE)
    dpo = AlgorithmOptions(ratio=Ratio.none, objective=ObjectiveKind.group_dpo)
    solved = AlgorithmOptions(anchor=1.0, anchor_on=AnchorOn.solved)
    ones = np.ones((4, 3))
    for arguments, message in [
        ({}, "advantages are missing"),
        ({"advantages": ones, "options": dpo}, "give reference="),
        ({"advantages": ones, "old": other}, "not of the same decisions"),
        ({"advantages": ones, "old": np.zeros((4, 3, 2))}, "old has shapes"),
        ({"advantages": np.ones((3, 3))}, "advantages are of 3 groups"),
        ({"advantages": ones * np.nan}, "nothing to learn from"),
        ({"advantages": ones, "mask": ones}, "for plain arrays"),
        ({"advantages": ones, "options": solved}, "give solved="),
        ({"advantages": ones, "options": replace(solved, anchor_growth=2.0), "solved": ones}, "anchor_growth"),
        ({"advantages": ones, "options": {"objective": "nft", "ratio": "none"}}, "objective=nft"),
        (
            {"advantages": ones, "reference": np.zeros(3), "options": {"kl": {"coefficient": 1, "estimator": "exact"}}},
            "use k1, k2 or k3",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            loss(found, **arguments)
    for new, mask, message in [
        (np.zeros(3), None, r"has shape \(3,\)"),
        (np.zeros((2, 3)), np.ones((2, 2)), "must be equal"),
        (np.zeros((2, 3)), np.zeros((2, 3)), "no decision counts"),
    ]:
        with pytest.raises(ValueError, match=message):
            loss(new, advantages=[1.0, -1.0], mask=mask)

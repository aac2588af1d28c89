"""With equal weights the learner recomputes what the sampler recorded; every known way to lose that is shown to."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import rl.likelihood.text_rows
from configs.algorithm_options import LikelihoodOptions
from models.text.policy import TextPolicy
from rl.algorithm.scored_rows import ScoredRow
from rl.likelihood.protocol import micro_batches
from rl.likelihood.text import TextReplay
from rollout.options import Count, Order, SamplerOptions
from rollout.text.reveal import RevealKernel
from rollout.trajectory import TextTrajectory, TrajectoryError
from tests.sampling import prompts_of, roll_out
from tests.tiny import tiny_policy

LENGTHS = [4, 5, 6, 7]  # every remainder of the block
PROBABILITIES = (Order.max_prob, Order.drawn_prob, Order.drawn_raw_prob)


def sampler_rules() -> list[SamplerOptions]:
    """Every order with every count that can rank by it, in one round a token and in three rounds a block."""
    rules = []
    for order in Order:
        rules += [SamplerOptions(order=order, count=Count.quota, rounds_per_block=rounds) for rounds in (None, 3)]
        if order in PROBABILITIES:
            rules.append(SamplerOptions(order=order, count=Count.threshold, threshold=0.6))
            rules.append(SamplerOptions(order=order, count=Count.factor, factor=1.2))
        if order is Order.entropy:
            rules.append(SamplerOptions(order=order, count=Count.entropy_bound, entropy_bound=0.7))
    return rules


PROCESSING = {"plain": {}, "tempered": {"temperature": 0.7}, "top_k": {"top_k": 3}, "top_p": {"top_p": 0.8}}


def rule_name(rule: SamplerOptions) -> str:
    return f"{rule.order.value}-{rule.count.value}-{rule.rounds_per_block}"


def options_for(rule: SamplerOptions, family: str, **changes) -> SamplerOptions:
    window = {"max_new_tokens": 9, "block_length": None if family == "sdar" else 5}
    return dataclasses.replace(rule, **window, **changes)


def gap(
    policy: TextPolicy,
    trajectories: list[TextTrajectory],
    options: SamplerOptions,
    max_tokens: int = 10_000,
    rearrange=lambda rows: rows,
) -> float:
    """Largest |recorded - replayed| over the trained decisions, all of which must be scored exactly once."""
    replay = TextReplay(policy.spec, options, LikelihoodOptions(), torch.device("cpu"))
    rows = rearrange(replay.rows(trajectories, 0))
    scored = [np.zeros(trajectory.mask.shape, int) for trajectory in trajectories]
    worst = 0.0
    with torch.no_grad():
        for batch in micro_batches(rows, max_tokens):
            values = replay.log_prob(policy, batch).float().numpy()
            worst = max(worst, float(np.abs(values - recorded(trajectories, batch)).max()))
            for row in batch:
                np.add.at(scored[row.trajectory], (row.sample, row.decision), 1)
    for counts, trajectory in zip(scored, trajectories, strict=True):
        np.testing.assert_array_equal(counts, trajectory.mask)
    return worst


def recorded(trajectories: list[TextTrajectory], rows: list[ScoredRow]) -> np.ndarray:
    return np.concatenate([trajectories[row.trajectory].logp[row.sample, row.decision] for row in rows])


@pytest.mark.parametrize("processing", PROCESSING)
@pytest.mark.parametrize("rule", sampler_rules(), ids=rule_name)
@pytest.mark.parametrize("family", ["sdar", "llada", "dream"])
def test_replay_equals_the_record(family, rule, processing):
    policy, options = tiny_policy(family, scale=1.5), options_for(rule, family, **PROCESSING[processing])
    trajectories = roll_out(policy, options, prompts_of(LENGTHS), group_size=3)
    assert sum(t.mask.sum() for t in trajectories) > 30
    assert gap(policy, trajectories, options) <= 1e-5


@pytest.mark.parametrize("family", ["sdar", "llada"])
def test_rows_in_any_order_and_any_micro_batch(family):
    rule = SamplerOptions(order=Order.drawn_prob, rounds_per_block=3, top_p=0.9)
    policy, options = tiny_policy(family), options_for(rule, family)
    trajectories = roll_out(policy, options, prompts_of(LENGTHS), group_size=3)
    shuffle = np.random.default_rng(0)
    for max_tokens in (1, 60, 200):
        arrangement = lambda rows: [rows[k] for k in shuffle.permutation(len(rows))]  # noqa: E731
        assert gap(policy, trajectories, options, max_tokens, arrangement) <= 1e-5


@pytest.mark.parametrize("family", ["sdar", "llada", "dream"])
def test_parity_in_bf16(family):
    """Another shape of the same forward rounds differently. Logits of size 2 to 4 have steps of 2^-6 = 0.016 in bf16;
    measured over three seeds: at most 0.032, so two steps."""
    policy, options = tiny_policy(family, scale=1.0), options_for(SamplerOptions(rounds_per_block=3), family)
    policy.network.to(torch.bfloat16)
    trajectories = roll_out(policy, options, prompts_of(LENGTHS), group_size=4)
    assert gap(policy, trajectories, options, max_tokens=1) <= 0.04


# The controls: each defect, put in, breaks parity by far more than the tolerance.

BROKEN = 1e-3


def mid_block(family: str = "sdar", **changes) -> tuple[TextPolicy, SamplerOptions, list[TextTrajectory]]:
    """Prompts that end inside a block, completions that end inside one."""
    policy = tiny_policy(family, scale=1.0)
    options = options_for(SamplerOptions(rounds_per_block=None), family, **changes)
    return policy, options, roll_out(policy, options, prompts_of([5, 6, 7]), group_size=8)


def test_a_block_grid_that_starts_at_the_response_breaks_parity(monkeypatch):
    policy, options, trajectories = mid_block()
    assert gap(policy, trajectories, options) <= 1e-5
    real = rl.likelihood.text_rows.pack

    def cut_from_the_response(prompt, canvas, views, spec):
        """Positions stay, but blocks are counted as if the prompt filled its last one."""
        rows = real(prompt, canvas, views, spec)
        ahead = -len(prompt) % spec.block_length
        return [dataclasses.replace(row, block=(row.position + ahead) // spec.block_length) for row in rows]

    monkeypatch.setattr("rl.likelihood.text.pack", cut_from_the_response)
    assert gap(policy, trajectories, options) > BROKEN


def with_tail(trajectory: TextTrajectory, fill: int) -> TextTrajectory:
    """What a trainer sees that keeps the stop token and overwrites what stands behind it."""
    place = np.arange(trajectory.canvas_ids.shape[1])
    behind = place >= trajectory.stop_length[:, None]
    return dataclasses.replace(
        trajectory,
        canvas_ids=np.where(behind, fill, trajectory.canvas_ids).astype(np.int32),
        mask=trajectory.mask & ~behind,
    )


@pytest.mark.parametrize("fill", ["pad", "mask"])
@pytest.mark.parametrize("family", ["sdar", "llada"])
def test_overwriting_the_tail_behind_the_stop_breaks_parity(family, fill):
    policy, options, trajectories = mid_block(family)
    token = policy.spec.pad_id if fill == "pad" else policy.spec.mask_id
    assert gap(policy, [with_tail(t, token) for t in trajectories], options) > BROKEN


@pytest.mark.parametrize("family", ["sdar", "llada"])
def test_dropping_the_tail_behind_the_stop_breaks_parity(family):
    policy, options, trajectories = mid_block(family)
    place = np.arange(trajectories[0].canvas_ids.shape[1])
    cut = [
        dataclasses.replace(
            t,
            canvas_length=t.stop_length,
            mask=t.mask & (place[: t.mask.shape[1]] < t.stop_length[:, None]),
        )
        for t in trajectories
    ]
    assert gap(policy, cut, options) > BROKEN


@pytest.mark.parametrize(
    ("sampled", "claimed"),
    [
        ({"temperature": 0.7}, {"temperature": 1.0}),
        ({"top_p": 0.8}, {"top_p": 1.0}),
        ({"top_k": 3}, {"top_k": 0}),
    ],
    ids=["temperature", "top_p", "top_k"],
)
def test_scoring_under_another_law_breaks_parity(sampled, claimed):
    policy, options, trajectories = mid_block(**sampled)
    assert gap(policy, trajectories, options) <= 1e-5
    other = dataclasses.replace(options, **claimed)
    renamed = [dataclasses.replace(t, sampler=contract_of(other)) for t in trajectories]
    assert gap(policy, renamed, other) > BROKEN


def contract_of(options: SamplerOptions) -> str:
    from rollout.trajectory import contract

    return contract(options)


@pytest.mark.parametrize(("family", "shift"), [("dream", 0), ("llada", 1)])
def test_a_logit_shift_off_by_one_breaks_parity(family, shift):
    policy, options, trajectories = mid_block(family)
    assert gap(policy, trajectories, options) <= 1e-5
    shifted = TextPolicy(policy.network, dataclasses.replace(policy.spec, logit_shift=shift))
    assert gap(shifted, trajectories, options) > BROKEN


@pytest.mark.parametrize("family", ["sdar", "llada"])
def test_dropping_the_correction_of_draw_scored_orders_breaks_parity(family, monkeypatch):
    policy = tiny_policy(family, scale=1.0)
    options = options_for(SamplerOptions(order=Order.drawn_prob), family)
    trajectories = roll_out(policy, options, prompts_of(LENGTHS), group_size=2)
    assert gap(policy, trajectories, options) <= 1e-5
    monkeypatch.setattr(RevealKernel, "_not_revealed", lambda self, logits, *rest: torch.zeros_like(logits[:, 0]))
    assert gap(policy, trajectories, options) > BROKEN


def test_a_bf16_log_softmax_breaks_parity(monkeypatch):
    policy, options, trajectories = mid_block()
    real = TextPolicy._head
    monkeypatch.setattr(TextPolicy, "_head", lambda self, hidden, read: real(self, hidden, read).bfloat16())
    assert gap(policy, trajectories, options) > BROKEN


def test_other_weights_break_parity():
    policy, options, trajectories = mid_block()
    policy.network.lm_head.weight.data *= 1.01
    assert gap(policy, trajectories, options) > BROKEN


@pytest.mark.parametrize(
    "change", [{"temperature": 0.9}, {"order": Order.margin}, {"max_new_tokens": 10}, {"top_k": 2}], ids=str
)
def test_another_contract_is_refused(change):
    policy, options, trajectories = mid_block()
    replay = TextReplay(policy.spec, dataclasses.replace(options, **change), LikelihoodOptions(), torch.device("cpu"))
    with pytest.raises(TrajectoryError, match="sampled under another contract"):
        replay.rows(trajectories, 0)


def test_a_truncated_law_without_its_support_is_refused():
    policy, options, trajectories = mid_block(top_k=3)
    bare = [dataclasses.replace(t, support=None) for t in trajectories]
    with pytest.raises(TrajectoryError, match="carries no support"):
        gap(policy, bare, options)

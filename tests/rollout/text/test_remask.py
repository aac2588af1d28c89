"""Running-confidence remasking against a slow reading of its algorithm, and the states it leaves on record."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from models.text.policy import TextPolicy
from rollout.noise import Purpose, uniform
from rollout.options import Order, Remask, SamplerOptions
from rollout.text.denoiser import RecomputingDenoiser
from rollout.text.reveal import RevealKernel
from rollout.text.sampler import Sampler
from tests.rollout.text.test_sampler import batch_effects
from tests.sampling import prompts_of, roll_out
from tests.tiny import tiny_policy

WHOLE = SamplerOptions(remask=Remask.running_confidence, rounds_per_block=4, max_new_tokens=10)
RULES = {
    "whole canvas": WHOLE,
    "one token a round": dataclasses.replace(WHOLE, rounds_per_block=None),
    "two blocks": dataclasses.replace(WHOLE, block_length=5, rounds_per_block=3),
    "more rounds than positions": dataclasses.replace(WHOLE, block_length=5, rounds_per_block=5),
    "drawn probability": dataclasses.replace(WHOLE, order=Order.drawn_prob),
    "margin": dataclasses.replace(WHOLE, order=Order.margin, temperature=0.7),
    "greedy": dataclasses.replace(WHOLE, temperature=0.0),
}


def by_hand(policy: TextPolicy, options: SamplerOptions, prompt: np.ndarray, uid: int) -> list[np.ndarray]:
    """Canvases before each round and after the last, position by position."""
    spec, length = policy.spec, options.max_new_tokens
    block = options.block_length or length
    kernel = RevealKernel(options, spec)
    canvas, certain, states, turn = [spec.mask_id] * length, [np.inf] * length, [], 0
    for start in range(0, length, block):
        end = min(start + block, length)
        rounds = options.rounds_per_block or end - start
        quota = [(end - start) // rounds + (r < (end - start) % rounds) for r in range(rounds)]
        for r in range(rounds):
            states.append(np.array(canvas))
            turn += 1
            text = torch.tensor([[*prompt, *canvas]])
            place = torch.arange(text.shape[1])[None]
            read = torch.stack([torch.zeros(length, dtype=torch.long), len(prompt) + torch.arange(length)])
            with torch.no_grad():
                logits = policy(text, place, torch.zeros_like(place), torch.zeros_like(place), read)
            for k in range(end):
                if canvas[k] != spec.mask_id:
                    continue
                q = kernel.process(logits[k])[None]
                if options.temperature == 0:
                    token = int(q.argmax())
                else:
                    u = uniform(torch.tensor(uid), torch.tensor(len(prompt) + k), torch.tensor(turn), Purpose.TOKEN)
                    token = int((q[0].double().exp().cumsum(0) <= u).sum())
                best = q[0].exp().sort(descending=True).values
                canvas[k] = token
                certain[k] = {
                    Order.max_prob: float(best[0]),
                    Order.margin: float(best[0] - best[1]),
                    Order.drawn_prob: float(q[0, token].exp()),
                }[options.order]
            for _ in range(sum(quota[r + 1 :])):  # the least certain of all that is not masked again already
                open_to = [k for k in range(length) if canvas[k] != spec.mask_id and certain[k] < np.inf]
                canvas[min(open_to, key=lambda k: (certain[k], -k))] = spec.mask_id
    return [*states, np.array(canvas)]


@pytest.mark.parametrize("rule", RULES)
def test_canvases_are_those_of_the_algorithm_and_are_rebuilt_from_the_record(rule: str, monkeypatch) -> None:
    """What the sampler saw, what the trajectory says it saw, and the slow reading."""
    options, policy = RULES[rule], tiny_policy("llada", scale=1.0)
    policy.spec = dataclasses.replace(policy.spec, stop_ids=())  # nothing ends early
    seen: list[np.ndarray] = []
    predict = RecomputingDenoiser.predict

    def watched(denoiser, canvas, window, read):
        seen.append(canvas.ids[0, int(canvas.canvas_start[0]) :].numpy().copy())
        return predict(denoiser, canvas, window, read)

    monkeypatch.setattr(RecomputingDenoiser, "predict", watched)
    (prompt,) = prompts_of([5])
    (group,) = roll_out(policy, options, [prompt], first_uid=321)
    expected = by_hand(policy, options, prompt, 321)
    rebuilt = [group.canvas_at(r, policy.spec.mask_id)[0] for r in range(1, len(expected) + 1)]
    np.testing.assert_array_equal(expected, rebuilt)
    np.testing.assert_array_equal(seen, rebuilt[:-1])
    np.testing.assert_array_equal(expected[-1], group.canvas_ids[0])
    assert (group.reveal > 0).all()
    np.testing.assert_array_equal(group.estimate_at(len(seen))[0], group.canvas_ids[0])


def changed_minds(options: SamplerOptions) -> np.ndarray:
    """(samples, L) bool: tokens that were shown in one round and masked in a later one."""
    policy = tiny_policy("llada", scale=1.0)
    (group,) = roll_out(policy, options, prompts_of([5]), group_size=12)
    masks = [group.canvas_at(r, policy.spec.mask_id) == policy.spec.mask_id for r in range(1, group.reveal.max() + 2)]
    shown = ~np.logical_and.accumulate(masks)
    return np.any([earlier & now for earlier, now in zip(shown[:-1], masks[1:], strict=True)], axis=0)


def test_tokens_of_this_and_of_earlier_blocks_are_revised() -> None:
    assert changed_minds(WHOLE).any()
    assert changed_minds(RULES["two blocks"])[:, :5].any()
    assert not changed_minds(dataclasses.replace(WHOLE, remask=Remask.none)).any()  # the control


def test_one_round_a_block_revises_nothing() -> None:
    """The quotas leave nothing to mask again."""
    assert not changed_minds(dataclasses.replace(WHOLE, block_length=5, rounds_per_block=1)).any()


def test_a_round_masks_as_many_as_the_quotas_say() -> None:
    (group,) = roll_out(tiny_policy("llada", scale=0.0), WHOLE, prompts_of([5]), group_size=3)
    masked = [(group.proposed_ids[:, r] >= 0).sum(-1).tolist() for r in range(4)]
    assert masked == [[10] * 3, [7] * 3, [4] * 3, [2] * 3]  # 10 positions in 4 rounds: 3, 3, 2 and 2


@pytest.mark.parametrize("rule", ["whole canvas", "two blocks", "drawn probability"])
def test_a_sample_does_not_depend_on_its_batch(rule: str) -> None:
    assert batch_effects(tiny_policy("llada"), RULES[rule]) == []


def test_a_stop_token_ends_a_text_at_the_end_of_its_block() -> None:
    policy = tiny_policy("llada", scale=1.0)
    (group,) = roll_out(policy, RULES["two blocks"], prompts_of([5]), group_size=12)
    rounds = group.reveal.max(-1)
    early = group.stop_length <= 5
    assert early.any()
    assert not early.all()
    assert (group.reveal[early][rounds[early] == 3, 5:] == 0).all()
    assert set(rounds) == {3, 6}


def test_block_causal_models_are_refused() -> None:
    with pytest.raises(ValueError, match="no block of a block-causal sdar could be filled in"):
        Sampler(tiny_policy("sdar"), WHOLE)

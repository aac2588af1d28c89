"""The sampler's promises: a sample depends on its prompt and key only, and no forward pass is wasted."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

import models.text.policy
from models.text.attention import PADDING
from models.text.policy import TextPolicy
from rollout.options import Cache, Count, Order, SamplerOptions
from rollout.text.canvas import lay_out
from rollout.text.denoiser import CachingDenoiser, RecomputingDenoiser
from rollout.text.record import Samples
from rollout.text.sampler import Sampler, sampling_window
from tests.sampling import prompts_of, sample
from tests.tiny import tiny_policy

BLOCK = 4
RULES = [
    SamplerOptions(order=Order.max_prob, count=Count.quota, rounds_per_block=2),
    SamplerOptions(order=Order.max_prob, count=Count.threshold, threshold=0.6, temperature=0.7),
    SamplerOptions(order=Order.entropy, count=Count.entropy_bound, entropy_bound=0.5, top_p=0.9),
    SamplerOptions(order=Order.random, count=Count.quota, top_k=3),
    SamplerOptions(order=Order.drawn_prob, count=Count.quota),
    SamplerOptions(order=Order.drawn_raw_prob, count=Count.factor, factor=1.2, temperature=1.3),
]


def rule_name(options: SamplerOptions) -> str:
    return f"{options.order.value}-{options.count.value}"


def with_length(options: SamplerOptions, length: int, **changes) -> SamplerOptions:
    return dataclasses.replace(options, max_new_tokens=length, **changes)


def for_family(options: SamplerOptions, family: str, length: int = 10) -> SamplerOptions:
    """A bidirectional canvas is sampled in two windows, so that its order of windows is tested too."""
    return with_length(options, length, block_length=None if family == "sdar" else 6)


def difference(samples: Samples, row: int, others: Samples, other_row: int) -> str | None:
    """What differs between two samples, or None. Padding of the batch does not count."""
    length = samples.canvas_length[row]
    if length != others.canvas_length[other_row]:
        return "canvas_length"
    for name in ("canvas_ids", "reveal"):
        if (getattr(samples, name)[row, :length] != getattr(others, name)[other_row, :length]).any():
            return name
    for name in ("stop_length", "rounds"):
        if getattr(samples, name)[row] != getattr(others, name)[other_row]:
            return name
    gap = np.abs(samples.logp[row, :length] - others.logp[other_row, :length]).max()
    return "logp" if gap > 1e-5 else None


LENGTHS = [5, 8, 1, 11, 6]


def batch_effects(policy: TextPolicy, options: SamplerOptions) -> list[str]:
    """Differences between samples drawn alone and the same samples in other company."""
    prompts = prompts_of(LENGTHS)
    uids = [9000 + 7 * k for k in range(len(prompts))]
    sampler = Sampler(policy, options)
    alone = [sampler.sample([prompt], [uid], [0]) for prompt, uid in zip(prompts, uids, strict=True)]
    found = []
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1], [1, 1, 3], [2, 0]):
        together = sampler.sample([prompts[k] for k in order], [uids[k] for k in order], order)
        found += [difference(alone[k], 0, together, place) for place, k in enumerate(order)]
    return [what for what in found if what]


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
@pytest.mark.parametrize("family", ["sdar", "llada", "dream"])
def test_a_sample_does_not_depend_on_its_batch(family, rule):
    """No tie between floats occurs under these seeds, so the claim is checked without any exception."""
    assert batch_effects(tiny_policy(family), for_family(rule, family)) == []


@pytest.mark.parametrize("family", ["sdar", "llada", "dream"])
def test_attending_to_padding_would_break_that(family, monkeypatch):
    real = models.text.policy.visibility

    def sees_padding(query_stream, query_block, key_stream, key_block):
        padding = (key_stream == PADDING)[:, None, None]
        return real(query_stream, query_block, key_stream, key_block) | padding

    monkeypatch.setattr(models.text.policy, "visibility", sees_padding)
    options = for_family(RULES[0], family)
    assert batch_effects(tiny_policy(family), dataclasses.replace(options, cache=Cache.none))


@pytest.mark.parametrize("family", ["sdar", "llada"])
def test_groups_of_one_prompt_differ_by_their_keys(family):
    """SGLang sampled greedily whatever the temperature; G equal samples teach nothing."""
    samples = sample(tiny_policy(family), for_family(RULES[0], family), prompts_of([6]), group_size=6)
    assert len({row.tobytes() for row in samples.canvas_ids}) > 1
    greedy = for_family(RULES[0], family)
    samples = sample(tiny_policy(family), dataclasses.replace(greedy, temperature=0.0), prompts_of([6]), group_size=6)
    assert len({row.tobytes() for row in samples.canvas_ids}) == 1
    assert not samples.logp.any()


def test_a_shared_prefill_changes_nothing():
    policy, options = tiny_policy("sdar"), with_length(RULES[0], 10)
    prompts = [prompt for prompt in prompts_of([9, 6]) for _ in range(3)]
    uids = [50 + k for k in range(6)]
    shared = Sampler(policy, options).sample(prompts, uids, [0, 0, 0, 1, 1, 1])
    separate = Sampler(policy, options).sample(prompts, uids, [0, 1, 2, 3, 4, 5])
    mistaken = Sampler(policy, options).sample(prompts, uids, [0, 0, 0, 0, 0, 0])  # the control: the wrong prompt
    assert [difference(shared, k, separate, k) for k in range(6)] == [None] * 6
    assert any(difference(shared, k, mistaken, k) for k in range(3, 6))
    assert shared.counters["token_forwards"] < separate.counters["token_forwards"]


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_the_cache_is_exact(rule):
    policy, prompts = tiny_policy("sdar"), prompts_of([3, 4, 9, 14])
    cached, recomputed = (
        sample(policy, with_length(rule, 11, cache=cache), prompts, group_size=2) for cache in (Cache.block, Cache.none)
    )
    assert [difference(cached, k, recomputed, k) for k in range(8)] == [None] * 8
    assert cached.counters["token_forwards"] < recomputed.counters["token_forwards"]


def test_a_cache_of_unfinished_blocks_would_not_be(monkeypatch):
    """The control: keep the keys and values of the block's last denoising pass instead of a pass over its tokens."""

    def keep_noisy(self, canvas, window):
        stale = dataclasses.replace(canvas, ids=torch.full_like(canvas.ids, self.policy.spec.mask_id))
        self._forward(stale, window, None)

    monkeypatch.setattr(CachingDenoiser, "finish", keep_noisy)
    policy, prompts = tiny_policy("sdar"), prompts_of([3, 4, 9, 14])
    cached, recomputed = (
        sample(policy, with_length(RULES[0], 11, cache=cache), prompts) for cache in (Cache.block, Cache.none)
    )
    assert any(difference(cached, k, recomputed, k) for k in range(4))


def test_rows_may_finish_in_the_first_block_when_no_prompt_fills_one():
    """Nothing is cached then, but rows must leave all the same."""
    lengths, policy = [1, 2, 3], tiny_policy("sdar", scale=1.0)
    cached, recomputed = (
        sample(policy, with_length(RULES[0], 12, cache=cache), prompts_of(lengths), group_size=16) for cache in Cache
    )
    in_first_block = cached.canvas_length + np.repeat(lengths, 16) == BLOCK
    assert 0 < in_first_block.sum() < len(in_first_block)
    assert [difference(cached, k, recomputed, k) for k in range(len(in_first_block))] == [None] * len(in_first_block)


# Every state that the network sees


class Watched:
    """Copies of the live canvases, as each forward over a window began."""

    def __init__(self, monkeypatch) -> None:
        self.states: list[tuple[list[int], torch.Tensor, torch.Tensor]] = []
        self.reads: list[torch.Tensor] = []
        for kind in (RecomputingDenoiser, CachingDenoiser):
            monkeypatch.setattr(kind, "predict", self._watching(kind.predict))

    def _watching(self, predict):
        def watching(denoiser, canvas, window, read):
            self.states.append((canvas.row.tolist(), canvas.ids.clone(), canvas.canvas_start.clone()))
            self.reads.append(read.clone())
            return predict(denoiser, canvas, window, read)

        return watching

    def canvases(self, row: int) -> list[np.ndarray]:
        """The row's ids behind its prompt at each forward in which one of its positions was predicted."""
        found = []
        for (rows, ids, start), read in zip(self.states, self.reads, strict=True):
            if row in rows and (read[0] == rows.index(row)).any():
                place = rows.index(row)
                found.append(ids[place, start[place] :].numpy())
        return found


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
@pytest.mark.parametrize("family", ["sdar", "llada"])
def test_each_round_commits_and_nothing_is_overwritten(family, rule, monkeypatch):
    policy, watched = tiny_policy(family), Watched(monkeypatch)
    samples = sample(policy, for_family(rule, family), prompts_of([5, 8, 2]), group_size=3)
    mask = policy.spec.mask_id
    for row, (reveal, length) in enumerate(zip(samples.reveal, samples.canvas_length, strict=True)):
        rounds = samples.rounds[row]
        assert set(reveal[reveal > 0]) == set(range(1, rounds + 1))
        states = watched.canvases(row)
        assert len(states) == rounds
        final = samples.canvas_ids[row, :length]
        for number, state in enumerate([s[:length] for s in states], start=1):
            expected = np.where((reveal[:length] > 0) & (reveal[:length] < number), final, mask)
            np.testing.assert_array_equal(state, expected)
        assert ((final == mask) == (reveal[:length] == 0)).all()  # MASK is never committed
        assert not np.isin(final[reveal[:length] > 0], policy.spec.forbidden_ids).any()


@pytest.mark.parametrize("prompt_length", range(5, 5 + BLOCK))
@pytest.mark.parametrize("cache", list(Cache))
def test_prompts_may_hold_stop_and_mask_tokens_and_end_inside_a_block(prompt_length, cache, monkeypatch):
    policy, watched = tiny_policy("sdar"), Watched(monkeypatch)
    spec = policy.spec
    prompt = prompts_of([prompt_length])[0]
    prompt[-1], prompt[1], prompt[0] = spec.stop_ids[0], spec.mask_id, spec.pad_id
    company = prompts_of([2])[0]
    options = with_length(RULES[0], 10, cache=cache)
    samples = sample(policy, options, [prompt, company], group_size=4)
    for row in range(4):
        reveal, kept = samples.reveal[row], samples.stop_length[row]
        is_stop = np.isin(samples.canvas_ids[row], spec.stop_ids) & (reveal > 0)
        expected = is_stop.argmax() + 1 if is_stop.any() else options.max_new_tokens
        assert kept == min(expected, options.max_new_tokens)
        assert (reveal[:kept] > 0).all()
        assert (prompt_length + samples.canvas_length[row]) % BLOCK == 0  # whole blocks of the absolute grid
        last = reveal.nonzero()[0].max()
        assert (prompt_length + samples.canvas_length[row]) // BLOCK == (prompt_length + last) // BLOCK + 1
        for (rows, ids, start), read in zip(watched.states, watched.reads, strict=True):
            if row in rows:
                place = rows.index(row)
                begin = int(start[place]) - prompt_length
                assert ids[place, begin : begin + prompt_length].tolist() == prompt.tolist()
                assert (read[1][read[0] == place] >= start[place]).all()  # the prompt is never predicted
    assert samples.stop_length[:4].max() > 1  # the prompt's own stop token did not end the completions


def test_blocks_lie_on_the_absolute_grid():
    """Revealed one block after the other, where a block is absolute position // 4."""
    policy = tiny_policy("sdar")
    for length in range(4, 8):
        samples = sample(policy, with_length(RULES[0], 12), prompts_of([length]), group_size=4)
        for reveal, ids in zip(samples.reveal, samples.canvas_ids, strict=True):
            block = (length + np.arange(len(ids))) // BLOCK
            places = (reveal > 0).nonzero()[0]
            for earlier in places:
                assert (reveal[places[block[places] > block[earlier]]] > reveal[earlier]).all()


def stopping_and_not(family: str, rule: SamplerOptions) -> tuple[Samples, Samples, int]:
    policy = tiny_policy(family, scale=1.0)
    endless = TextPolicy(policy.network, dataclasses.replace(policy.spec, stop_ids=()))
    options, prompts = for_family(rule, family, 16), prompts_of([5, 8, 2])
    stopped, full = (sample(p, options, prompts, group_size=8) for p in (policy, endless))
    return stopped, full, policy.spec.stop_ids[0]


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
@pytest.mark.parametrize("family", ["sdar", "llada"])
def test_stopping_early_is_a_prefix_of_not_stopping(family, rule):
    stopped, full, stop = stopping_and_not(family, rule)
    early = 0
    for row in range(len(stopped.rounds)):
        kept, rounds = stopped.stop_length[row], stopped.rounds[row]
        reveal, length = stopped.reveal[row], stopped.canvas_length[row]
        done = reveal[:length] > 0
        early += rounds < full.rounds[row]
        # What was revealed is what the endless run had revealed by then, and nothing else.
        np.testing.assert_array_equal(done, full.reveal[row, :length] * (full.reveal[row, :length] <= rounds) > 0)
        np.testing.assert_array_equal(reveal[:length][done], full.reveal[row, :length][done])
        np.testing.assert_array_equal(stopped.canvas_ids[row, :length][done], full.canvas_ids[row, :length][done])
        assert (full.canvas_ids[row, : kept - 1] != stop).all()
        assert kept == 16 or full.canvas_ids[row, kept - 1] == stop
        # It stopped at the first round after which the kept tokens were all there.
        assert rounds == full.reveal[row, :kept].max()
    assert early > 0


def test_stopping_a_round_too_late_would_be_noticed(monkeypatch):
    from rollout.text.record import Record

    real = Record.update_finished

    def only_whole_canvases(self, samples):
        real(self, samples)
        self.finished[samples] &= ~(self.reveal[samples] == 0).any(-1)

    monkeypatch.setattr(Record, "update_finished", only_whole_canvases)
    stopped, full, _ = stopping_and_not("llada", RULES[0])
    assert any(stopped.rounds[k] > full.reveal[k, : stopped.stop_length[k]].max() for k in range(len(stopped.rounds)))


# Costs


def expected_costs(policy: TextPolicy, options: SamplerOptions, prompt_lengths: list[int], samples: Samples) -> Counter:
    """Forwards, tokens and head rows, from what was revealed when: one pass a round in which any row of the batch has
    something to reveal, one pass over each prompt, one over each finished block that a running row will look back at.

    A row takes part in round n of window w while it has an unrevealed position there and is not finished.
    """
    spec = policy.spec
    window = sampling_window(options, spec)
    cached = spec.block_length is not None and options.cache is not Cache.none
    grid = [p // window * window if spec.block_length else p for p in prompt_lengths]  # where the first window starts
    cost: Counter = Counter()
    if cached and max(grid) > 0:
        cost["forwards"] += 1
        cost["token_forwards"] += sum(grid)
    rows = range(len(prompt_lengths))

    def window_of(row: int) -> np.ndarray:
        place = np.arange(samples.canvas_length[row])
        offset = prompt_lengths[row] - grid[row]
        return (offset + place) // window

    last = [int(window_of(row)[(samples.reveal[row, : samples.canvas_length[row]] > 0)].max()) for row in rows]
    for index in range(max(last) + 1):
        running = [row for row in rows if last[row] >= index]
        widths = {}
        rounds = {}
        for row in running:
            reveal = samples.reveal[row, : samples.canvas_length[row]][window_of(row) == index]
            rounds[row] = sorted(set(reveal[reveal > 0].tolist()))
            canvas_end = prompt_lengths[row] + samples.canvas_length[row]
            seen = min(grid[row] + (index + 1) * window, canvas_end)
            if spec.block_length is None:
                widths[row] = canvas_end
            else:
                widths[row] = window if cached else seen
            for number in rounds[row]:
                cost["head_rows"] += int(((reveal == 0) | (reveal >= number)).sum())
        passes = max(len(r) for r in rounds.values())
        cost["forwards"] += passes
        cost["token_forwards"] += passes * sum(widths.values())
        later = [row for row in running if last[row] > index]
        if cached and later:
            cost["forwards"] += 1
            cost["token_forwards"] += window * len(later)
    return cost


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
@pytest.mark.parametrize("lengths", [[4], [3, 9, 6]], ids=str)
@pytest.mark.parametrize(("family", "cache"), [("sdar", Cache.block), ("sdar", Cache.none), ("llada", Cache.none)])
def test_no_forward_is_wasted(family, cache, lengths, rule):
    policy = tiny_policy(family)
    options = dataclasses.replace(for_family(rule, family, 12), cache=cache)
    samples = sample(policy, options, prompts_of(lengths), group_size=1, first_uid=40)
    assert samples.counters == expected_costs(policy, options, lengths, samples)


def test_smallest_cost_by_hand():
    """One block of four in two rounds behind one block of prompt: prefill and two rounds, nothing after the last."""
    policy = tiny_policy("sdar", words=8)
    endless = TextPolicy(policy.network, dataclasses.replace(policy.spec, stop_ids=()))
    counters = sample(endless, with_length(RULES[0], 4), prompts_of([4])).counters
    assert counters == {"forwards": 3, "token_forwards": 12, "head_rows": 4 + 2}
    counters = sample(endless, with_length(RULES[0], 8), prompts_of([4])).counters  # and one pass between the blocks
    assert counters == {"forwards": 6, "token_forwards": 24, "head_rows": 12}


def test_a_wasted_pass_would_be_noticed(monkeypatch):
    """The control: JetEngine and SGLang also commit the last block."""
    real = Sampler._fill

    def fill_and_commit(self, canvas, window, denoiser, record):
        real(self, canvas, window, denoiser, record)
        if window.stop == canvas.ids.shape[1]:
            denoiser.finish(canvas, window)

    monkeypatch.setattr(Sampler, "_fill", fill_and_commit)
    policy, options = tiny_policy("sdar"), with_length(RULES[0], 12)
    samples = sample(policy, options, prompts_of([4]), first_uid=44)
    assert samples.counters != expected_costs(policy, options, [4], samples)


# Refusals


def test_errors_name_the_cause():
    policy, options = tiny_policy("sdar", max_length=16), with_length(RULES[0], 10)
    with pytest.raises(ValueError, match="a prompt has no tokens"):
        sample(policy, options, [np.array([], np.int32)])
    assert sample(policy, options, prompts_of([6])).canvas_length.max() <= 10  # 16 positions are just enough
    with pytest.raises(ValueError, match=r"7 tokens and a canvas of 10 need 20 positions.*lower rollout"):
        sample(policy, options, prompts_of([7]))


def test_a_key_for_each_row():
    with pytest.raises(ValueError, match="2 prompts, 3 uids and 2 prompt indices"):
        Sampler(tiny_policy("sdar"), with_length(RULES[0], 10)).sample(prompts_of([5, 5]), [1, 2, 3], [0, 0])


def test_layout_of_two_rows():
    """Prompts of 3 and 6 tokens, blocks of 4, canvases of 5: windows fall on the same columns."""
    spec = tiny_policy("sdar").spec
    prompts = prompts_of([3, 6])
    canvas = lay_out(prompts, spec, 5, 4, torch.device("cpu"))
    assert (canvas.window_start, canvas.windows) == (4, 2)
    assert canvas.stream.tolist() == [[-1] * 4 + [0] * 8, [0] * 12]
    assert canvas.position.tolist() == [[0] * 4 + list(range(8)), list(range(12))]
    assert canvas.masked.nonzero()[:, 1].tolist() == [*range(7, 12), *range(6, 12)]

"""Packed rows against one plain forward a view; how a trace is cut into parts; what rows cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rl.likelihood.text_rows
from configs.algorithm_options import Denominator, LikelihoodOptions, Partition
from models.text.attention import PADDING
from models.text.policy import TextPolicy
from rl.algorithm.denominators import row_weights
from rl.algorithm.scored_rows import ScoredRow
from rl.likelihood.partitions import parts
from rl.likelihood.text import TextReplay
from rl.likelihood.text_rows import View, collate, pack
from rollout.branching import Tree
from rollout.options import Count, Order, SamplerOptions
from rollout.trajectory import TextTrajectory
from tests.sampling import prompts_of, roll_out
from tests.tiny import tiny_policy
from tests.traces import text_trajectory

CPU = torch.device("cpu")
BLOCK = 4
PARTITIONS = [
    LikelihoodOptions(),
    LikelihoodOptions(partition=Partition.shrink, shrink=2),
    LikelihoodOptions(partition=Partition.segments, segments=2),
    LikelihoodOptions(partition=Partition.one),
    LikelihoodOptions(partition=Partition.left_to_right),
]


def alone(policy: TextPolicy, prompt: np.ndarray, canvas: np.ndarray, view: View) -> torch.Tensor:
    """Logits of the view's scored positions from an ordinary sequence that ends with the view's block."""
    spec = policy.spec
    end = len(canvas) if spec.block_length is None else (view.block + 1) * spec.block_length - len(prompt)
    ids = np.concatenate([prompt, np.where(view.masked, spec.mask_id, canvas)[:end]]).astype(np.int64)
    position = torch.arange(len(ids))[None]
    block = position // spec.block_length if spec.block_length else torch.zeros_like(position)
    read = torch.from_numpy(np.stack([np.zeros(view.scored.sum(), int), len(prompt) + view.scored.nonzero()[0]]))
    with torch.no_grad():
        return policy(torch.from_numpy(ids)[None], position, torch.zeros_like(position), block, read)


def random_views(spec, prompt_length: int, length: int, generator: np.random.Generator) -> list[View]:
    block = (prompt_length + np.arange(length)) // spec.block_length if spec.block_length else np.zeros(length, int)
    views = []
    for b in np.unique(block):
        for _ in range(3):
            masked = (block == b) & (generator.random(length) < 0.6)
            scored = masked & (generator.random(length) < 0.7)
            if scored.any():
                views.append(View(masked, scored, scored, int(b)))
    return views


def packing_gap(family: str) -> float:
    policy, generator, worst = tiny_policy(family, scale=1.0), np.random.default_rng(0), 0.0
    cases, rows, expected = [(4, 8), (5, 11), (6, 6), (7, 5), (1, 7)], [], []
    for prompt_length, length in cases:
        prompt = prompts_of([prompt_length])[0]
        canvas = generator.integers(0, 8, length).astype(np.int32)
        views = random_views(policy.spec, prompt_length, length, generator)
        rows += pack(prompt, canvas, views, policy.spec)
        expected += [alone(policy, prompt, canvas, view) for view in views]
    batch = collate(rows, policy.spec.pad_id, CPU)
    with torch.no_grad():
        logits = policy(batch.input_ids, batch.position_ids, batch.stream, batch.block, batch.read)
    worst = (logits - torch.cat(expected)).abs().max().item()
    return worst


@pytest.mark.parametrize("family", ["sdar", "llada", "dream"])
def test_packed_rows_equal_each_view_alone(family):
    assert packing_gap(family) <= 2e-5  # of logits of size 10


def test_views_that_see_each_other_would_not(monkeypatch):
    real = rl.likelihood.text_rows._packed_row

    def one_stream(prompt, canvas, views, spec):
        row = real(prompt, canvas, views, spec)
        row.stream[row.stream > 0] = 1
        return row

    monkeypatch.setattr(rl.likelihood.text_rows, "_packed_row", one_stream)
    assert packing_gap("sdar") > 1e-2


def test_collate_pads_what_nobody_sees():
    spec = tiny_policy("sdar").spec
    generator = np.random.default_rng(0)
    rows = []
    for length in (3, 11):
        views = random_views(spec, 5, length, generator)
        rows += pack(prompts_of([5])[0], generator.integers(0, 8, length), views, spec)
    batch = collate(rows, spec.pad_id, CPU)
    behind = torch.arange(batch.input_ids.shape[1]) >= torch.tensor([len(row) for row in rows])[:, None]
    assert (batch.stream[behind] == PADDING).all()
    assert (batch.input_ids[behind] == spec.pad_id).all()
    assert not (batch.stream[~behind] == PADDING).any()
    views_of_rows = [set(batch.view[batch.read[0] == r].tolist()) for r in range(len(rows))]
    assert not views_of_rows[0] & views_of_rows[1]


@pytest.mark.parametrize("likelihood", PARTITIONS, ids=lambda o: o.partition.value)
@pytest.mark.parametrize("prompt_length", range(4, 8))
def test_tokens_of_a_packed_row(prompt_length, likelihood):
    """P + L - the last block's clean copy + one block for each part."""
    policy = tiny_policy("sdar", scale=1.0)
    options = SamplerOptions(max_new_tokens=9)
    trajectory = roll_out(policy, options, prompts_of([prompt_length]), group_size=4)[0]
    rows = TextReplay(policy.spec, options, likelihood, CPU).rows([trajectory], 0)
    assert [row.sample for row in rows] == [0, 1, 2, 3]
    for row in rows:
        mask, length = trajectory.mask[row.sample], trajectory.canvas_length[row.sample]
        block = (prompt_length + np.arange(len(mask))) // BLOCK
        part = parts(trajectory.reveal[row.sample], block, likelihood)
        count = len({(b, p) for b, p in zip(block[mask], part[mask], strict=True)})
        last_trained_end = (block[mask].max() + 1) * BLOCK
        assert last_trained_end <= prompt_length + length
        assert row.tokens == len(row.content[0]) == last_trained_end - BLOCK + count * BLOCK


# Partitions


@st.composite
def traces(draw):
    """(reveal, block): rounds that fill one block after the other, some positions never."""
    reveal, block, start = [], [], 0
    for b in range(draw(st.integers(1, 3))):
        size = draw(st.integers(1, 6))
        rounds = draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))
        used = {r: start + 1 + rank for rank, r in enumerate(sorted(set(rounds) - {0}))}
        reveal += [used.get(r, 0) for r in rounds]
        block += [b] * size
        start += len(used)
    return np.array(reveal, np.int16), np.array(block)


BY_RANK = [kind for kind in Partition if kind not in (Partition.left_to_right, Partition.forks)]
partition_options = st.sampled_from(BY_RANK).flatmap(
    lambda kind: st.builds(
        LikelihoodOptions, partition=st.just(kind), shrink=st.integers(1, 4), segments=st.integers(1, 6)
    )
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(traces(), partition_options)
def test_parts_keep_the_order_of_the_rounds(trace, options):
    reveal, block = trace
    part = parts(reveal, block, options)
    assert ((part == 0) == (reveal == 0)).all()
    for b in np.unique(block):
        inside = (block == b) & (reveal > 0)
        if not inside.any():
            continue
        rounds, found = reveal[inside], part[inside]
        number = len(np.unique(rounds))
        expected = {
            Partition.every_step: number,
            Partition.shrink: -(-number // options.shrink),
            Partition.segments: min(number, options.segments),
            Partition.one: 1,
        }[options.partition]
        if options.partition is not Partition.segments or options.segments <= number:
            assert sorted(set(found)) == list(range(1, expected + 1))
        assert len(set(found)) == expected
        assert (np.diff(found[np.argsort(rounds, kind="stable")]) >= 0).all()  # never before an earlier round
        assert all(len(set(found[rounds == r])) == 1 for r in rounds)  # a round is not torn
        if options.partition is Partition.segments:
            per_part = [len(set(rounds[found == p])) for p in set(found)]
            assert max(per_part) - min(per_part) <= 1


def test_left_to_right_follows_positions_whatever_the_rounds():
    reveal, block = np.array([3, 0, 1, 1, 5, 4]), np.array([0, 0, 0, 0, 1, 1])
    options = LikelihoodOptions(partition=Partition.left_to_right)
    assert parts(reveal, block, options).tolist() == [1, 0, 2, 3, 1, 2]


def test_forks_cut_a_trace_where_samples_part():
    reveal, block = np.array([3, 0, 1, 2, 7, 4, 5, 5]), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    options = LikelihoodOptions(partition=Partition.forks)
    # Round 3 is step 2. The second block begins behind the fork there and meets the one at step 6.
    assert parts(reveal, block, options, (0, 2, 6)).tolist() == [2, 0, 1, 1, 2, 1, 1, 1]
    assert parts(reveal, 0 * block, options, (0, 2, 6)).tolist() == [2, 0, 1, 1, 3, 2, 2, 2]
    assert parts(reveal, 0 * block, options, (2, 3)).tolist() == [2, 0, 1, 1, 3, 3, 3, 3]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(traces(), partition_options, st.integers(0, 2**31))
def test_step_weights_sum_to_one_for_any_partition(trace, options, seed):
    reveal, block = trace
    part = parts(reveal, block, options)
    step = block * len(reveal) + part
    mask = (reveal > 0) & (np.random.default_rng(seed).random(len(reveal)) < 0.8)
    everything = np.arange(len(reveal))
    row = ScoredRow(None, 0, 0, everything, np.ones(len(reveal), np.float32), step, 1)
    (weights,) = row_weights([_with_mask(mask)], [row], Denominator.step, draws=1)
    assert weights.sum() == pytest.approx(float(mask.any()), abs=1e-6)
    assert not weights[~mask].any()
    for s in set(step[mask]):
        assert weights[step == s].sum() == pytest.approx(1 / len(set(step[mask])), abs=1e-6)


def _with_mask(mask: np.ndarray) -> TextTrajectory:
    canvas = np.zeros((1, len(mask)), np.int32)
    return text_trajectory(np.zeros(1, np.int32), canvas, np.ones(canvas.shape, np.int16), mask=mask[None])


def values_under(
    likelihood: LikelihoodOptions, policy, options, trajectory, tree=lambda update: None
) -> dict[tuple[int, int], float]:
    replay = TextReplay(policy.spec, options, likelihood, CPU, tree)
    rows = replay.rows([trajectory], 0)
    with torch.no_grad():
        values = replay.log_prob(policy, rows).tolist()
    return dict(zip([(row.sample, k) for row in rows for k in row.decision.tolist()], values, strict=True))


@pytest.mark.parametrize("family", ["sdar", "llada"])
def test_the_ends_of_the_family_of_partitions(family):
    """As many segments as rounds, and shrink 1, are exact; one segment is the all-masked one-step estimate."""
    policy = tiny_policy(family, scale=1.0)
    options = SamplerOptions(order=Order.max_prob, count=Count.quota, max_new_tokens=8)
    trajectory = roll_out(policy, options, prompts_of([5]), group_size=3)[0]
    exact = values_under(LikelihoodOptions(), policy, options, trajectory)
    one = values_under(LikelihoodOptions(partition=Partition.one), policy, options, trajectory)
    for key, value in exact.items():
        assert value == pytest.approx(trajectory.logp[key], abs=1e-5)
    shrink, segments = Partition.shrink, Partition.segments
    for same in ({"partition": shrink, "shrink": 1}, {"partition": segments, "segments": 8}):
        found = values_under(LikelihoodOptions(**same), policy, options, trajectory)
        assert found == pytest.approx(exact, abs=1e-5)
    for same in ({"partition": shrink, "shrink": 8}, {"partition": segments, "segments": 1}):
        found = values_under(LikelihoodOptions(**same), policy, options, trajectory)
        assert found == pytest.approx(one, abs=1e-5)
    assert max(abs(one[key] - exact[key]) for key in exact) > 0.1
    for sample in range(3):  # one-step by hand: every revealed position masked, in its block only
        length = trajectory.canvas_length[sample]
        block = (5 + np.arange(length)) // BLOCK if family == "sdar" else np.zeros(length, int)
        for b in np.unique(block):
            selected = (block == b) & trajectory.mask[sample, :length]
            if not selected.any():
                continue
            view = View(block == b, selected, selected, int(b))
            logits = alone(policy, trajectory.prompt_ids, trajectory.canvas_ids[sample, :length], view)
            logits[:, list(policy.spec.forbidden_ids)] = -torch.inf
            for row, k in zip(logits.log_softmax(-1), selected.nonzero()[0].tolist(), strict=True):
                assert one[sample, k] == pytest.approx(row[trajectory.canvas_ids[sample, k]].item(), abs=1e-5)


@pytest.mark.parametrize("family", ["sdar", "llada"])
def test_a_branch_is_scored_under_the_canvas_of_its_parent(family):
    """d-TreeRPO, by one plain forward a branch (a block of it): what its parent did not reveal is masked."""
    policy = tiny_policy(family, scale=1.0)
    options = SamplerOptions(order=Order.max_prob, count=Count.quota, max_new_tokens=8)
    trajectory = roll_out(policy, options, prompts_of([5]), group_size=3)[0]
    asked = []

    def tree(update: int) -> Tree:
        asked.append(update)
        return Tree((0, 3), (2, 2), 8)

    found = values_under(LikelihoodOptions(partition=Partition.forks), policy, options, trajectory, tree)
    assert set(asked) == {trajectory.update}
    checked = 0
    for sample in range(3):
        length = trajectory.canvas_length[sample]
        reveal = np.where(trajectory.reveal[sample, :length] == 0, 99, trajectory.reveal[sample, :length])
        block = (5 + np.arange(length)) // BLOCK if family == "sdar" else np.zeros(length, int)
        for first, stop in ((0, 3), (3, 99)):
            branch = (reveal > first) & (reveal <= stop) & trajectory.mask[sample, :length]
            for b in np.unique(block[branch]):
                selected = branch & (block == b)
                view = View((block == b) & (reveal > first), selected, selected, int(b))
                logits = alone(policy, trajectory.prompt_ids, trajectory.canvas_ids[sample, :length], view)
                logits[:, list(policy.spec.forbidden_ids)] = -torch.inf
                for row, k in zip(logits.log_softmax(-1), selected.nonzero()[0].tolist(), strict=True):
                    assert found[sample, k] == pytest.approx(row[trajectory.canvas_ids[sample, k]].item(), abs=1e-5)
                    checked += 1
    assert checked == len(found)
    exact = values_under(LikelihoodOptions(), policy, options, trajectory)
    assert max(abs(found[key] - exact[key]) for key in exact) > 0.1  # the control: another likelihood than the trace's

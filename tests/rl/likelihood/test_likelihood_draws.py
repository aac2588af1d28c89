"""What a likelihood draws: random parts, and what the noise of parts, masks and prompts belongs to."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from configs.algorithm_options import LikelihoodOptions
from rl.algorithm.scored_rows import ScoredRow
from rl.likelihood.protocol import micro_batches
from rl.likelihood.text import TextReplay
from tests.rl.support.enumeration import (
    CASES,
    CPU,
    ELBOS,
    LENGTH,
    RANDOM_ORDER,
    REPLAYS,
    TEXT,
    TEXTS,
    WORDS,
    likelihood_of,
    oracle,
    trajectory_of,
)
from tests.tiny import tiny_policy

# Parts drawn at random


def test_sampled_parts_are_every_subset_equally_often_and_their_mean_gradient_is_exact() -> None:
    policy, wanted, passes = oracle("llada").policy, 2, 600
    trajectory = trajectory_of([TEXT])
    replay = TextReplay(policy.spec, RANDOM_ORDER, LikelihoodOptions(sampled_parts=wanted), CPU)
    full = TextReplay(policy.spec, RANDOM_ORDER, LikelihoodOptions(), CPU)
    assert replay.exact
    drawn: dict[tuple, list[ScoredRow]] = {}
    counts: dict[tuple, int] = {}
    for draw in range(passes):
        rows = replay.rows([trajectory], draw)
        key = tuple(int(row.decision[0]) for row in rows)
        drawn[key], counts[key] = rows, counts.get(key, 0) + 1
    assert set(drawn) == set(itertools.combinations(range(LENGTH), wanted))
    expected = passes / len(drawn)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_square < 20.5  # 5 degrees of freedom: p = 0.001

    def gradient(likelihood: TextReplay, rows: list[ScoredRow], importance: bool = True) -> torch.Tensor:
        weight = torch.tensor([row.importance if importance else 1.0 for row in rows])
        value = (likelihood.log_prob(policy, rows) * weight).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(policy.parameters()))])

    exact = gradient(full, full.rows([trajectory], 0))
    mean = torch.stack([gradient(replay, rows) for rows in drawn.values()]).mean(0)
    assert (mean - exact).norm() <= 1e-5 * exact.norm()
    unweighted = torch.stack([gradient(replay, rows, importance=False) for rows in drawn.values()]).mean(0)
    assert (unweighted - exact).norm() > 0.4 * exact.norm()  # the control


def test_more_parts_than_there_are_scores_all() -> None:
    replay = likelihood_of(oracle("llada").policy, LikelihoodOptions(sampled_parts=9))
    rows = replay.rows([trajectory_of([TEXT])], 0)
    assert len(rows) == LENGTH
    assert {row.importance for row in rows} == {1.0}


def test_parts_of_a_block_model_are_of_single_blocks() -> None:
    replay = likelihood_of(oracle("sdar").policy, LikelihoodOptions(sampled_parts=1))
    places = set()
    for draw in range(40):
        (row,) = replay.rows([trajectory_of([TEXT])], draw)
        assert row.importance == 4
        places.add(tuple(row.decision))
    assert places == {(0,), (1,), (2,), (3,)}


# What noise belongs to

DRAWN = {**ELBOS, "diffu_grpo": REPLAYS["diffu_grpo"], "agrpo": REPLAYS["agrpo"]}
del DRAWN["wd1"]  # masks everything, always


def plain(rows: list[ScoredRow], trajectory: int, uid: np.ndarray) -> list[tuple]:
    """Everything about the rows of one trajectory, by the samples' keys."""
    found = []
    for row in rows:
        content = row.content[0] if isinstance(row.content, tuple) else row.content
        if row.trajectory == trajectory:
            arrays = (content.input_ids, content.view, row.decision, row.coefficient, row.step)
            found.append((int(uid[row.sample]), row.importance, *(a.tolist() for a in arrays)))
    return found


@pytest.mark.parametrize("name", DRAWN)
def test_draws_belong_to_sample_and_pass(name: str) -> None:
    """Not to their place in a list, to the policy, or to the generators of torch and numpy."""
    first = trajectory_of(TEXTS[10:14], uid=2**40)
    second = trajectory_of(TEXTS[20:24], uid=90)
    likelihood = likelihood_of(oracle("llada").policy, DRAWN[name])
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    one = likelihood.rows([first, second], 3)
    swapped = likelihood.rows([second, first], 3)
    some = likelihood.rows([first.take([3, 1])], 3)
    other_policy = likelihood_of(tiny_policy("llada", words=WORDS, seed=9), DRAWN[name])
    assert plain(swapped, 1, first.uid) == plain(one, 0, first.uid)
    chosen = [row for key in first.uid[[3, 1]] for row in plain(one, 0, first.uid) if row[0] == key]
    assert plain(some, 0, first.uid[[3, 1]]) == chosen
    assert plain(other_policy.rows([first, second], 3), 1, second.uid) == plain(one, 1, second.uid)
    assert plain(likelihood.rows([first], 4), 0, first.uid) != plain(one, 0, first.uid)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize(("family", "name"), [*CASES, ("llada", "agrpo"), ("sdar", "agrpo")])
def test_steps_and_estimates_do_not_depend_on_micro_batches(family: str, name: str) -> None:
    policy = oracle(family).policy
    likelihood = likelihood_of(policy, {**ELBOS, **REPLAYS}[name])
    trajectory = trajectory_of(TEXTS[::9])
    rows = likelihood.rows([trajectory], 1)
    for sample in range(trajectory.group_size):  # a place is scored once in a step, so that steps tell draws apart
        keys = [(s, d) for row in rows if row.sample == sample for s, d in zip(row.step, row.decision, strict=True)]
        assert len(keys) == len(set(keys))
    totals = []
    for limit in (1, 64, 4096):
        total = np.zeros(trajectory.group_size)
        for batch in micro_batches(rows, limit):
            with torch.no_grad():
                values = likelihood.score(policy, batch).log_prob.double().numpy()
            for row, value in zip(
                batch, np.split(values, np.cumsum([len(r.decision) for r in batch])[:-1]), strict=True
            ):
                total[row.sample] += (value * row.coefficient).sum()
        totals.append(total)
    np.testing.assert_allclose(totals[1], totals[0], rtol=1e-6)
    np.testing.assert_allclose(totals[2], totals[0], rtol=1e-6)


def test_what_is_not_trained_stays_as_it_was_recorded() -> None:
    """Positions behind the stop are neither scored nor hidden, but for what `canvas_block` and empty canvases hide."""
    trajectory = dataclasses.replace(trajectory_of([TEXT]), mask=np.array([[True, True, True, False]]))
    for name, options in ELBOS.items():
        likelihood = likelihood_of(oracle("llada").policy, options)
        last = []
        for draw in range(20):
            for row in likelihood.rows([trajectory], draw):
                assert 3 not in row.decision
                last.append(row.content.input_ids[-1] == TEXT[-1])
        hidden = name.startswith(("wd1", "block_autoregressive", "spg"))
        assert any(last) is not hidden, name
        assert all(last) or hidden or name == "coupled_grpo"


def test_draws_of_a_pass_are_of_one_canvas_block() -> None:
    """So that a position is hidden by several of them, which the upper bound takes the mean of."""
    options = dataclasses.replace(ELBOS["spg"], draws=8)
    likelihood = likelihood_of(oracle("llada").policy, options)
    found = set()
    for draw in range(30):
        rows = likelihood.rows([trajectory_of([TEXT])], draw)
        (block,) = {int(decision) // 2 for row in rows for decision in row.decision}
        assert all(row.importance == 2 for row in rows)
        assert len(rows) == 8
        found.add(block)
    assert found == {0, 1}


def test_nothing_behind_the_stop_is_scored_until_the_stop() -> None:
    trajectory = dataclasses.replace(trajectory_of([TEXT]), stop_length=np.array([2], np.int32))
    for kind, options in [("elbo", ELBOS["espo"]), ("replay", LikelihoodOptions())]:
        for until_stop, expected in [(False, {0, 1, 2, 3}), (True, {0, 1})]:
            likelihood = likelihood_of(oracle("llada").policy, dataclasses.replace(options, until_stop=until_stop))
            seen = likelihood.decisions_of(trajectory)
            assert set(seen.mask[0].nonzero()[0]) == expected
            rows = [row for draw in range(20) for row in likelihood.rows([seen], draw)]
            assert {int(place) for row in rows for place in row.decision} == expected, kind
    assert trajectory.mask.all()


@pytest.mark.parametrize("name", ["coupled_grpo", "wd1"])
def test_the_empty_canvas_shows_nothing_of_the_answer(name) -> None:
    """Not even what is not trained, which the policy that starts from nothing does not see."""
    policy = oracle("llada").policy
    trajectory = dataclasses.replace(trajectory_of([TEXT]), mask=np.array([[True, True, True, False]]))
    rows = likelihood_of(policy, ELBOS[name]).rows([trajectory], 0)
    empty = rows if name == "wd1" else rows[-1:]  # the full view is the last
    for row in empty:
        assert set(row.decision) == {0, 1, 2}
        assert (row.content.input_ids[-4:] == policy.spec.mask_id).all()

"""From a ticket's request to trajectories and text, with a real tokenizer and published layouts."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from rollout.options import Count, Order, SamplerOptions
from rollout.text.worker import TextRolloutWorker
from rollout.trajectory import TextTrajectory, contract
from rollout.worker import Completions, Origin, Recording, RolloutRequest
from tests.models.text.published import END, MASK, PUBLISHED, tiny_tokenizer, write_checkpoint

LETTERS = "abcdefghijklmnopqrstuvwxyz "
GROUP = 16


@pytest.fixture(params=["sdar", "llada", "dream"])
def worker(request, tmp_path):
    from models.options import ModelOptions
    from models.text.checkpoint import load_text_policy

    write_checkpoint(tmp_path, PUBLISHED[request.param])
    return TextRolloutWorker(*load_text_policy(ModelOptions(path=str(tmp_path))))


def request_of(prompts: list[str], group_size: int = GROUP, **options) -> RolloutRequest:
    tokenizer = tiny_tokenizer()
    encoded = tuple(np.array(tokenizer.encode(text), np.int32) for text in prompts)
    return RolloutRequest(
        origin=Origin(ticket=4, update=2, version=1, seed=99),
        prompt_ids=tuple(f"p{index}" for index in range(len(prompts))),
        prompts=encoded,
        uids=tuple(range(100, 100 + group_size * len(prompts))),
        sampler=SamplerOptions(max_new_tokens=12, **options),
    )


def test_text_is_that_of_the_kept_tokens(worker):
    trajectories, completions, statistics = worker.run(request_of(["abc", "hello you"]))
    assert [t.prompt_id for t in trajectories] == ["p0", "p1"]
    assert len(completions.outputs) == len(completions.ids) == 2 * GROUP
    row = 0
    for trajectory in trajectories:
        assert (trajectory.ticket, trajectory.update, trajectory.version, trajectory.seed) == (4, 2, 1, 99)
        for sample in range(GROUP):
            kept = trajectory.canvas_ids[sample, : trajectory.stop_length[sample]].tolist()
            assert completions.ids[row] == kept
            assert completions.outputs[row] == " ".join(LETTERS[token] for token in kept if token < len(LETTERS))
            assert END not in kept[:-1]
            assert MASK not in kept
            assert END in kept or len(kept) == 12
            row += 1
    assert statistics["stopped"] == sum(END in ids for ids in completions.ids)
    assert 0 < statistics["stopped"] < 2 * GROUP  # both ways to end occur, so that the count is tested


def test_statistics_are_those_of_the_trajectories(worker):
    trajectories, completions, statistics = worker.run(request_of(["abc", "hello you"], rounds_per_block=2))
    assert statistics["tokens"] == sum(len(ids) for ids in completions.ids)
    assert statistics["rounds"] == sum(t.reveal.max(1).sum() for t in trajectories)
    assert statistics["rounds"] == sum(t.counters["nfe"] for t in trajectories)
    assert statistics["forwards"] > 0
    assert statistics["seconds"] > 0


def test_the_prompts_of_a_ticket_do_not_disturb_each_other(worker):
    together, _, _ = worker.run(request_of(["abc", "hello you"]))
    alone, _, _ = worker.run(request_of(["abc"]))
    length = alone[0].canvas_ids.shape[1]
    np.testing.assert_array_equal(alone[0].canvas_ids, together[0].canvas_ids[:, :length])
    np.testing.assert_array_equal(alone[0].reveal, together[0].reveal[:, :length])


def recorded(worker, **options) -> tuple[list[TextTrajectory], Completions]:
    request = dataclasses.replace(request_of(["abc", "hello you"], **options), recording=Recording(True, True))
    trajectories, completions, _ = worker.run(request)
    return trajectories, completions


@pytest.mark.parametrize("length", [None, 4])
def test_estimates_are_the_canvas_with_each_round_s_guesses(worker, length):
    """Cut at the first stop token, decoded; for a block-causal model up to the block that is being filled."""
    block = worker.policy.spec.block_length
    if block is not None and length is not None:
        pytest.skip("it has blocks of its own")
    trajectories, completions = recorded(worker, block_length=length)
    texts, ids = iter(completions.estimates.outputs), iter(completions.estimates.ids)
    finished = iter(completions.ids)
    counts, stopped_early = [], 0
    for trajectory in trajectories:
        for sample in range(GROUP):
            rounds = int(trajectory.reveal[sample].max())
            counts.append(rounds - 1)
            found = next(finished)
            for r in range(1, rounds + 1):
                canvas = trajectory.canvas_at(r, MASK)[sample, : trajectory.canvas_length[sample]]
                guess = np.where(canvas == MASK, trajectory.proposed_ids[sample, r - 1, : len(canvas)], canvas)
                if block is not None:
                    column = len(trajectory.prompt_ids) + int((canvas == MASK).argmax())
                    guess = guess[: (column // block + 1) * block - len(trajectory.prompt_ids)]
                guess = guess[:12].tolist()
                kept = guess[: guess.index(END) + 1] if END in guess else guess
                stopped_early += END in guess and r < rounds
                if r == rounds:  # the last one is the finished sample itself
                    assert kept == found
                    continue
                assert next(ids) == kept
                assert next(texts) == " ".join(LETTERS[token] for token in kept if token < len(LETTERS))
    assert completions.estimates.counts == counts
    assert completions.estimates.columns == {"denoising_rounds": [r for n in counts for r in range(1, n + 1)]}
    assert next(ids, None) is None
    assert stopped_early > 0


def test_only_what_is_asked_for_is_kept(worker):
    request = request_of(["abc"], group_size=3)
    plain = worker.run(request)
    assert plain[1].estimates is None
    rewarded = worker.run(dataclasses.replace(request, recording=Recording(estimates=True)))
    assert rewarded[1].estimates is not None
    assert [t.proposed_ids for t in (*plain[0], *rewarded[0])] == [None, None]
    assert rewarded[1].ids == plain[1].ids


def test_contract_is_the_whole_of_the_options():
    options = SamplerOptions(order=Order.entropy, count=Count.entropy_bound, entropy_bound=0.25)
    assert json.loads(contract(options)) == {
        **{name: value for name, value in vars(options).items() if name != "least_per_round"},  # which came later
        "order": "entropy",
        "count": "entropy_bound",
        "remask": "none",
    }
    assert contract(options) != contract(SamplerOptions())

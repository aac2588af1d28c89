"""From a ticket's request to trajectories and text, with a real tokenizer and published layouts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rollout.options import Count, Order, SamplerOptions
from rollout.text_worker import TextRolloutWorker
from rollout.trajectory import contract
from rollout.worker import Origin, RolloutRequest
from tests.models.published import END, MASK, PUBLISHED, tiny_tokenizer, write_checkpoint

LETTERS = "abcdefghijklmnopqrstuvwxyz "
GROUP = 16


@pytest.fixture(params=["sdar", "llada", "dream"])
def worker(request, tmp_path):
    from models.checkpoint import load_text_policy
    from models.options import ModelOptions

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


def test_contract_is_the_whole_of_the_options():
    options = SamplerOptions(order=Order.entropy, count=Count.entropy_bound, entropy_bound=0.25)
    assert json.loads(contract(options)) == {
        **vars(options),
        "order": "entropy",
        "count": "entropy_bound",
    }
    assert contract(options) != contract(SamplerOptions())

"""Traces of small attention blocks, scored under larger ones (TraceRL's adaptation to larger blocks)."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.algorithm_options import LikelihoodOptions, Partition
from configs.compose import compose
from models.files import CheckpointError
from models.options import ModelOptions
from models.text.attention import CLEAN
from models.text.checkpoint import load_text_policy
from models.text.export import export_text_policy
from models.text.policy import TextPolicy
from models.tiny.create import main as create
from rl.compatibility.text import text_problems
from rl.likelihood.text import TextReplay
from rollout.options import Order, SamplerOptions
from rollout.trajectory import TextTrajectory
from tests.sampling import prompts_of, roll_out
from tests.tiny import tiny_policy

CPU = torch.device("cpu")
SAMPLER = SamplerOptions(order=Order.entropy, rounds_per_block=2, max_new_tokens=13)
LARGER = LikelihoodOptions(block_length=8)


def replayed(policy: TextPolicy, trajectory: TextTrajectory, options: LikelihoodOptions) -> np.ndarray:
    """(G, L), NaN where not trained."""
    replay = TextReplay(policy.spec, SAMPLER, options, CPU)
    rows = replay.rows([trajectory], 0)
    with torch.no_grad():
        scored = replay.log_prob(policy, rows).numpy()
    result = np.full(trajectory.mask.shape, np.nan, np.float32)
    first = 0
    for row in rows:
        result[row.sample, row.decision] = scored[first : first + len(row.decision)]
        first += len(row.decision)
    return result


def read(policy: TextPolicy, trajectory: TextTrajectory, block_length: int) -> np.ndarray:
    """The same, one decision at a time: what its round saw, cut behind its block and filled up with MASK."""
    result = np.full(trajectory.mask.shape, np.nan, np.float32)
    prompt = trajectory.prompt_ids
    forbidden = list(policy.spec.forbidden_ids)
    for sample, place in zip(*trajectory.mask.nonzero(), strict=True):
        position = len(prompt) + int(place)
        end = (position // block_length + 1) * block_length
        seen = trajectory.canvas_at(int(trajectory.reveal[sample, place]), policy.spec.mask_id)[sample]
        seen = seen[: trajectory.canvas_length[sample]]
        text = np.concatenate([prompt, seen, np.full(block_length, policy.spec.mask_id)])[:end]
        ids = torch.from_numpy(text.astype(np.int64))[None]
        positions = torch.arange(end)[None]
        place_to_read = torch.tensor([[0], [position]])
        with torch.no_grad():
            logits = policy(ids, positions, torch.full_like(ids, CLEAN), positions // block_length, place_to_read)
        logits[:, forbidden] = -torch.inf
        result[sample, place] = logits.log_softmax(-1)[0, trajectory.canvas_ids[sample, place]]
    return result


@pytest.fixture(scope="module")
def trajectory() -> TextTrajectory:
    (found,) = roll_out(tiny_policy(scale=1.0), SAMPLER, prompts_of([6]), group_size=4)
    assert (found.canvas_length + 6).max() % 8 == 4  # a block of 8 ends behind the last one of 4
    return found


def test_a_trace_is_scored_under_the_larger_blocks(trajectory):
    policy = tiny_policy(scale=1.0)
    found = replayed(policy, trajectory, LARGER)
    np.testing.assert_allclose(found, read(policy, trajectory, 8), atol=2e-6)
    own = read(policy, trajectory, 4)
    np.testing.assert_allclose(own[trajectory.mask], trajectory.logp[trajectory.mask], atol=2e-6)
    assert np.nanmax(np.abs(found - own)) > 0.05  # it is another distribution


def test_the_models_own_blocks_score_as_without_the_option(trajectory):
    policy = tiny_policy(scale=1.0)
    own = replayed(policy, trajectory, LikelihoodOptions(block_length=4))
    np.testing.assert_array_equal(own, replayed(policy, trajectory, LikelihoodOptions()))


def test_shrinking_joins_rounds_of_several_small_blocks(trajectory):
    policy = tiny_policy(scale=1.0)
    together = replace(LARGER, partition=Partition.shrink, shrink=3)
    replay = TextReplay(policy.spec, SAMPLER, together, CPU)
    joined = 0
    for row in replay.rows([trajectory], 0):
        small = {(int(step), int((6 + place) // 4)) for step, place in zip(row.step, row.decision, strict=True)}
        joined += len(small) - len({step for step, _ in small})
    assert joined > 0


def test_it_is_no_exact_replay():
    spec = tiny_policy().spec
    assert TextReplay(spec, SAMPLER, LikelihoodOptions(), CPU).exact
    assert not TextReplay(spec, SAMPLER, LARGER, CPU).exact


def problems(model: str, *overrides: str) -> list[str]:
    config = compose(["recipe=quickstart", f"model={model}", *overrides]).config
    spec = tiny_policy("sdar" if model == "tiny_block" else "llada").spec
    return list(text_problems(config, spec))


def test_what_cannot_be_scored_so_is_refused():
    option = "algorithm.likelihood.block_length"
    assert problems("tiny_block", f"{option}=8") == []
    assert "must hold whole ones of 4" in problems("tiny_block", f"{option}=6")[0]
    assert "is bidirectional" in problems("tiny_full", f"{option}=8")[0]
    drawn = problems("tiny_block", f"{option}=8", "rollout.sampler.order=drawn_prob")
    assert "cannot tell apart" in drawn[0]


def test_a_checkpoint_is_loaded_with_larger_blocks_and_exported_so(tmp_path):
    create("block", str(tmp_path / "small"))
    small = ModelOptions(path=str(tmp_path / "small"))
    policy, tokenizer = load_text_policy(replace(small, block_length=16))
    assert policy.spec.block_length == 16
    export_text_policy(policy, tokenizer, tmp_path / "large", tmp_path / "small")
    assert json.loads((tmp_path / "large" / "config.json").read_text())["block_size"] == 16
    again, _ = load_text_policy(ModelOptions(path=str(tmp_path / "large")))
    assert again.spec == policy.spec
    unchanged, _ = load_text_policy(small)
    export_text_policy(unchanged, tokenizer, tmp_path / "same", tmp_path / "small")
    assert (tmp_path / "same" / "config.json").read_text() == (tmp_path / "small" / "config.json").read_text()


def test_a_bidirectional_checkpoint_has_no_blocks_to_enlarge(tmp_path):
    create("full", str(tmp_path))
    with pytest.raises(CheckpointError, match="is bidirectional and has no attention blocks"):
        load_text_policy(ModelOptions(path=str(tmp_path), block_length=8))

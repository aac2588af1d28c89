"""Loaded policies against the published architectures: full, block-causal, packed, padded and cached; the shift."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from models.text.attention import CLEAN, PADDING, block_of, visibility
from models.text.policy import TextPolicy
from tests.models.text import reference
from tests.models.text.published import END, MASK, PUBLISHED, ROWS

LENGTH = 11
BLOCK = 4
TOLERANCE = 1e-5


def random_ids(length: int = LENGTH, seed: int = 1) -> Tensor:
    ids = torch.randint(0, 26, (length,), generator=torch.Generator().manual_seed(seed))
    ids[2::3] = MASK
    return ids


def row(ids: Tensor, positions: Tensor, stream: Tensor, block: Tensor) -> dict[str, Tensor]:
    return {"input_ids": ids[None], "position_ids": positions[None], "stream": stream[None], "block": block[None]}


def clean_row(ids: Tensor, block_length: int | None) -> dict[str, Tensor]:
    positions = torch.arange(len(ids))
    return row(ids, positions, torch.full_like(positions, CLEAN), block_of(positions, block_length))


def read_columns(columns: Tensor, row_index: int = 0) -> Tensor:
    return torch.stack([torch.full_like(columns, row_index), columns])


def expected(name: str, tensors: dict[str, Tensor], ids: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
    published = PUBLISHED[name]
    return reference.logits(tensors, published.names, published.sizes, ids, positions, allowed)


@torch.no_grad()
def all_logits(policy: TextPolicy, inputs: dict[str, Tensor], row_index: int = 0) -> Tensor:
    """Logits at every column, shift undone, so that they compare with the reference's."""
    columns = torch.arange(inputs["input_ids"].shape[1]) + policy.spec.logit_shift
    return policy(**inputs, read=read_columns(columns, row_index))


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("block_length", [None, BLOCK])
def test_equals_the_published_architecture(load, name, block_length):
    policy, tensors = load(name)
    ids, positions = random_ids(), torch.arange(LENGTH)
    allowed = torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    if block_length is not None:
        for query in range(LENGTH):
            for key in range(LENGTH):
                allowed[query, key] = key // block_length <= query // block_length
    actual = all_logits(policy, clean_row(ids, block_length))
    assert actual.std() > 0.5  # the weights are large enough for a difference to show
    torch.testing.assert_close(actual, expected(name, tensors, ids, positions, allowed), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", PUBLISHED)
def test_clean_and_noisy_copies_in_one_row_equal_the_published_training_mask(load, name):
    """SDAR's block_diff_mask: a noisy block sees itself and the clean blocks before it; clean never sees noisy."""
    policy, tensors = load(name)
    clean = random_ids(seed=1)
    noisy = random_ids(seed=2)
    ids, positions = torch.cat([noisy, clean]), torch.arange(LENGTH).repeat(2)
    allowed = torch.zeros(2 * LENGTH, 2 * LENGTH, dtype=torch.bool)
    for query in range(2 * LENGTH):
        for key in range(2 * LENGTH):
            query_block, key_block = query % LENGTH // BLOCK, key % LENGTH // BLOCK
            query_clean, key_clean = query >= LENGTH, key >= LENGTH
            allowed[query, key] = (
                (query_block == key_block and query_clean == key_clean)
                or (query_block > key_block and key_clean and not query_clean)
                or (query_block >= key_block and key_clean and query_clean)
            )
    stream = torch.cat([torch.ones(LENGTH, dtype=torch.long), torch.full((LENGTH,), CLEAN)])
    actual = all_logits(policy, row(ids, positions, stream, block_of(positions, BLOCK)))
    torch.testing.assert_close(actual, expected(name, tensors, ids, positions, allowed), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", PUBLISHED)
def test_left_padding_and_batch_mates_change_nothing(load, name):
    policy, _ = load(name)
    block_length = PUBLISHED[name].block_length
    short, long = random_ids(6, seed=3), random_ids(LENGTH, seed=4)
    alone = all_logits(policy, clean_row(short, block_length))

    pads = LENGTH - len(short)
    columns = torch.arange(LENGTH)
    positions = torch.stack([(columns - pads).clamp(min=0), columns])
    batch = {
        "input_ids": torch.stack([torch.cat([torch.full((pads,), END), short]), long]),
        "position_ids": positions,
        "stream": torch.stack([torch.where(columns < pads, PADDING, CLEAN), torch.full_like(columns, CLEAN)]),
        "block": block_of(positions, block_length),
    }
    padded = all_logits(policy, batch)[pads:]
    assert torch.isfinite(all_logits(policy, batch)).all()
    torch.testing.assert_close(padded, alone, rtol=0, atol=TOLERANCE)

    visible_pads = all_logits(policy, batch | {"stream": torch.full_like(positions, CLEAN)})[pads:]
    assert (visible_pads - alone).abs().max() > 1e-2  # negative control: pads that are seen do change the logits


@pytest.mark.parametrize("name", PUBLISHED)
def test_two_samples_packed_into_one_row_do_not_see_each_other(load, name):
    policy, _ = load(name)
    first, second = random_ids(5, seed=5), random_ids(7, seed=6)
    positions = torch.cat([torch.arange(5), torch.arange(7)])
    sample = torch.tensor([1] * 5 + [2] * 7)  # two streams, each one block: bidirectional samples side by side
    packed = all_logits(policy, row(torch.cat([first, second]), positions, sample, torch.zeros_like(positions)))
    separate = torch.cat([all_logits(policy, clean_row(first, None)), all_logits(policy, clean_row(second, None))])
    torch.testing.assert_close(packed, separate, rtol=0, atol=TOLERANCE)

    mixed = all_logits(
        policy, row(torch.cat([first, second]), positions, torch.ones_like(sample), torch.zeros_like(positions))
    )
    assert (mixed - separate).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in PUBLISHED if not PUBLISHED[name].logit_shift])
def test_cached_blocks_equal_the_whole_row(load, name):
    policy, _ = load(name)
    inputs = clean_row(random_ids(), BLOCK)
    whole = all_logits(policy, inputs)
    cache = DynamicCache()
    parts = []
    for start in range(0, LENGTH, BLOCK):
        now, seen = slice(start, start + BLOCK), slice(0, start + BLOCK)
        stream, block = inputs["stream"], inputs["block"]
        visible = visibility(stream[:, now], block[:, now], stream[:, seen], block[:, seen])
        width = inputs["input_ids"][:, now].shape[1]
        read = read_columns(torch.arange(width)) if start else None  # the first block only fills the cache
        part = policy.forward_cached(inputs["input_ids"][:, now], inputs["position_ids"][:, now], visible, cache, read)
        assert (part is None) == (read is None)
        parts += [part] if part is not None else []
    assert cache.get_seq_length() == LENGTH
    torch.testing.assert_close(torch.cat(parts), whole[BLOCK:], rtol=0, atol=TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_token_is_read_where_its_family_predicts_it(load, name):
    """Dream predicts token k at k - 1, the others at k. The head copies the input token, so the answer is known."""
    policy, _ = load(name)
    network = policy.network
    for layer in network.model.layers:  # silence attention and MLP: the hidden state is the embedding of the input
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    network.model.norm.weight.fill_(1.0)
    code = torch.eye(ROWS, network.config.hidden_size)
    network.model.embed_tokens.weight.copy_(code)
    network.lm_head.weight.copy_(code)

    ids = torch.arange(8)
    columns = torch.arange(1, 8)
    answers = policy(**clean_row(ids, None), read=read_columns(columns)).argmax(-1)
    shift = PUBLISHED[name].logit_shift
    assert answers.tolist() == [column - shift for column in columns.tolist()]
    assert policy.spec.logit_shift == shift


@pytest.mark.parametrize("name", ["llada", "dream", "sdar"])
def test_gradient_checkpointing_changes_no_gradient(load, name):
    policy, _ = load(name)
    inputs = clean_row(random_ids(), BLOCK) if name != "dream" else clean_row(random_ids(), None)
    read = read_columns(torch.arange(1, LENGTH))

    def gradients() -> dict[str, Tensor]:
        policy.zero_grad()
        policy.train()
        policy(**inputs, read=read).log_softmax(-1)[:, 3].sum().backward()
        return {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}

    calls = []
    hook = policy.network.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    plain = gradients()
    assert len(calls) == 1
    policy.network.gradient_checkpointing_enable({"use_reentrant": False})
    recomputed = gradients()
    assert len(calls) == 3  # once more in the second forward pass, and once in its backward pass
    hook.remove()
    assert all(gradient.abs().max() > 0 for gradient in plain.values())
    for parameter, gradient in plain.items():
        torch.testing.assert_close(recomputed[parameter], gradient, rtol=0, atol=TOLERANCE)

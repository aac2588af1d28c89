"""Adapters: they start as nothing, switch off to the base bitwise, merge, and never touch global random state."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.lora import add_adapters, has_adapters, merged_state_dict, trainable_parameters, without_adapters
from models.options import LoraOptions
from models.text.policy import TextPolicy
from tests.models.text.published import PUBLISHED
from tests.models.text.test_architecture import all_logits, clean_row, random_ids

NAMES = ["llada", "dream", "sdar", "a2d-qwen3"]
OPTIONS = LoraOptions(rank=4, alpha=8.0)


def logits(policy: TextPolicy) -> Tensor:
    return all_logits(policy, clean_row(random_ids(), PUBLISHED[policy.spec.family].block_length))


def disturb(policy: TextPolicy) -> None:
    """Gives the B matrices values, as training would."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable_parameters(policy).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


@pytest.mark.parametrize("name", NAMES)
def test_adapters_start_as_nothing_and_switch_off_to_the_base_bitwise(load, name):
    policy, _ = load(name)
    base = logits(policy)
    add_adapters(policy, OPTIONS, seed=0)
    assert torch.equal(logits(policy), base)
    disturb(policy)
    trained = logits(policy)
    assert (trained - base).abs().max() > 1e-2
    with without_adapters(policy) as reference:
        assert torch.equal(logits(reference), base)
    assert torch.equal(logits(policy), trained)


def test_adapters_come_back_after_an_error(load):
    policy, _ = load("sdar")
    add_adapters(policy, OPTIONS, seed=0)
    disturb(policy)
    trained, names = logits(policy), list(trainable_parameters(policy))
    with pytest.raises(RuntimeError, match="stop"), without_adapters(policy):
        raise RuntimeError("stop")
    assert torch.equal(logits(policy), trained)
    assert list(trainable_parameters(policy)) == names


@pytest.mark.parametrize("name", NAMES)
def test_merged_weights_compute_the_same(load, name):
    policy, _ = load(name)
    base = {name: tensor.clone() for name, tensor in merged_state_dict(policy).items()}
    add_adapters(policy, OPTIONS, seed=0)
    assert merged_state_dict(policy).keys() == base.keys()
    disturb(policy)
    merged = merged_state_dict(policy)
    assert not torch.equal(merged["model.layers.0.mlp.down_proj.weight"], base["model.layers.0.mlp.down_proj.weight"])

    plain, _ = load(name)
    plain.network.load_state_dict(merged, strict=False)
    torch.testing.assert_close(logits(plain), logits(policy), rtol=0, atol=1e-5)


def test_only_adapters_are_trainable(load):
    policy, _ = load("llada")
    assert len(trainable_parameters(policy)) == len(list(policy.parameters()))
    add_adapters(policy, LoraOptions(rank=2, target_modules=["q_proj", "v_proj"]), seed=0)
    names = list(trainable_parameters(policy))
    assert len(names) == 2 * 2 * 2  # layers, targets, matrices
    assert all(".lora_" in name for name in names)
    policy(**clean_row(random_ids(), None), read=torch.tensor([[0], [1]])).sum().backward()
    with_gradient = [name for name, parameter in policy.named_parameters() if parameter.grad is not None]
    assert with_gradient == names


def test_first_weights_depend_on_the_seed_alone(load):
    def first_weights(seed: int, name: str) -> dict[str, Tensor]:
        policy, _ = load(name)
        torch.rand(3)  # whatever the global generator did before
        before = torch.get_rng_state()
        add_adapters(policy, OPTIONS, seed)
        assert torch.equal(torch.get_rng_state(), before)
        return trainable_parameters(policy)

    one, again, other = first_weights(1, "sdar"), first_weights(1, "sdar"), first_weights(2, "sdar")
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("targets", [["q_proj", "attn_out"], [], ["lm_head"]])
def test_unknown_target_lists_the_available(load, targets):
    policy, _ = load("llada")
    with pytest.raises(ValueError, match=r"target_modules.*'down_proj', 'gate_proj'.*'o_proj'"):
        add_adapters(policy, LoraOptions(target_modules=targets), seed=0)
    assert not has_adapters(policy)


def test_adapters_are_added_once_and_needed_for_a_reference(load):
    policy, _ = load("llada")
    with pytest.raises(ValueError, match="no adapters"), without_adapters(policy):
        pass
    add_adapters(policy, OPTIONS, seed=0)
    with pytest.raises(ValueError, match="already"):
        add_adapters(policy, OPTIONS, seed=0)

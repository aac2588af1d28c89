"""The slow copy of the weights: how fast it follows, that the network computes with it, and that it survives a file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from configs.algorithm_options import OldPolicyOptions
from rl.learner.old_policy import OldPolicy
from rl.learner.state_files import InFolder


def moved(network: nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += by


def test_it_follows_slower_with_every_update_up_to_the_limit():
    network = nn.Linear(3, 2)
    start = network.weight.detach().clone()
    old = OldPolicy(dict(network.named_parameters()), OldPolicyOptions(decay=0.5, growth=0.2))
    expected = start.clone()
    for update, share in enumerate((0.2, 0.4, 0.5, 0.5)):
        moved(network, 1.0)
        old.follow(update)
        expected = share * expected + (1 - share) * (start + update + 1)
        torch.testing.assert_close(old.weights["weight"], expected)


def test_without_decay_it_is_the_policy_before_the_update():
    network = nn.Linear(3, 2)
    old = OldPolicy(dict(network.named_parameters()), OldPolicyOptions(decay=0.0))
    moved(network, 1.0)
    assert not torch.equal(old.weights["weight"], network.weight)
    old.follow(0)
    assert torch.equal(old.weights["weight"], network.weight)


def test_the_network_computes_with_it_and_then_with_its_own_weights_again():
    network = nn.Linear(3, 2)
    inputs = torch.ones(1, 3)
    before = network(inputs)
    old = OldPolicy(dict(network.named_parameters()), OldPolicyOptions())
    moved(network, 1.0)
    after = network(inputs)
    with old.in_place():
        assert torch.equal(network(inputs), before)
    assert torch.equal(network(inputs), after)
    with pytest.raises(RuntimeError, match="inside"), old.in_place():
        raise RuntimeError("inside")
    assert torch.equal(network(inputs), after)


def test_a_half_precision_network_keeps_a_copy_that_small_steps_move():
    network = nn.Linear(3, 2).bfloat16()
    old = OldPolicy(dict(network.named_parameters()), OldPolicyOptions(decay=0.999, growth=1.0))
    start = old.weights["weight"].clone()
    moved(network, 1.0)
    old.follow(0)
    assert (old.weights["weight"] > start).all()
    assert {tensor.dtype for tensor in old.published().values()} == {torch.bfloat16}


def test_it_survives_a_file(tmp_path):
    network = nn.Linear(3, 2)
    old = OldPolicy(dict(network.named_parameters()), OldPolicyOptions())
    moved(network, 1.0)
    old.save(InFolder(tmp_path))
    other = OldPolicy(dict(network.named_parameters()), OldPolicyOptions())
    assert not torch.equal(other.weights["bias"], old.weights["bias"])
    other.load(tmp_path)
    assert all(torch.equal(other.weights[name], weight) for name, weight in old.weights.items())

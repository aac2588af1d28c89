"""The first updates are those of plain AdamW on fp32 weights, whatever DeepSpeed does to shard and to round."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product

import psutil
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from configs.algorithm_options import OptimizerOptions
from rl.learner.engine import Engine, _interface_towards, open_store

pytestmark = pytest.mark.usefixtures("rank")

OPTIONS = OptimizerOptions(learning_rate=0.5, weight_decay=0.1, max_grad_norm=1.0)
RATES = (0.25, 0.125, 0.25)
INPUTS = torch.tensor([[1.0, -2.0, 0.5, 0.0], [-0.25, 1.0, 0.0, 2.0], [0.0625, -0.125, 0.25, -0.03125]])
"""(updates, inputs): the gradients of a linear loss, exact in bf16. The last one is too small to be clipped."""


def weights() -> Tensor:
    return torch.tensor([[1.0, -0.5, 2.0, 0.25]])


def plain_adamw() -> list[Tensor]:
    """The weights after each update."""
    weight = nn.Parameter(weights())
    optimizer = torch.optim.AdamW([weight], betas=OPTIONS.betas, eps=OPTIONS.eps, weight_decay=OPTIONS.weight_decay)
    after = []
    for inputs, rate in zip(INPUTS, RATES, strict=True):
        weight.grad = inputs[None].clone()
        torch.nn.utils.clip_grad_norm_([weight], OPTIONS.max_grad_norm)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        after.append(weight.detach().clone())
    return after


@pytest.mark.parametrize(("zero_stage", "bf16"), [(0, False), *product((1, 2, 3), (False, True))])
def test_the_first_updates_are_those_of_adamw(zero_stage, bf16):
    network = nn.Linear(4, 1, bias=False)
    network.weight.data = weights()
    engine = Engine(network, OPTIONS, zero_stage=zero_stage, bf16=bf16)
    dtype = torch.bfloat16 if bf16 else torch.float32
    for inputs, rate, expected in zip(INPUTS, RATES, plain_adamw(), strict=True):
        engine.backward(engine(inputs[None].to(dtype)).float().sum())
        assert engine.update(rate) == pytest.approx(float(inputs.norm()), rel=1e-5)
        with engine.gathered(list(network.parameters())):
            found = network.weight.detach().float()
        # Masters are fp32, so that what is seen of them is wrong by one rounding, however many updates there were.
        torch.testing.assert_close(found, expected, rtol=2**-8 if bf16 else 1e-5, atol=1e-5)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_gradients_of_many_micro_batches_are_added_in_fp32(zero_stage):
    """In bf16, 1 + 2^-9 is 1, and so is 1 and any number of them."""
    engine = Engine(nn.Linear(4, 1, bias=False), OPTIONS, zero_stage=zero_stage, bf16=True)
    for size in [1.0] + [2**-9] * 256:
        engine.backward(engine(torch.tensor([[size, 0, 0, 0]], dtype=torch.bfloat16)).float().sum())
    assert engine.update(0.1) == pytest.approx(1.5, rel=1e-5)


def test_the_store_listens_on_its_own_interface_alone():
    """A wildcard would let whoever reaches the machine write into the learners' store, which asks for no password."""
    store = open_store("127.0.0.1")
    listening = [
        connection.laddr.ip
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == store.port
    ]
    assert listening == ["127.0.0.1"]
    client = dist.TCPStore("127.0.0.1", store.port, is_master=False)
    client.set("key", "value")
    assert store.get("key") == b"value"


def test_nothing_is_compiled(tmp_path):
    """A learner that compiles waits for a minute, or for ever behind the lock that a killed compilation left."""
    program = (
        "import torch; from rl.learner.engine import join_group, open_store; store = open_store('127.0.0.1'); "
        "join_group('127.0.0.1', store.port, 0, 1, 60, torch.device('cpu')); "
        "import torch.distributed as dist; ones = torch.ones(3); dist.all_reduce(ones); dist.destroy_process_group()"
    )
    environment = os.environ | {"TORCH_EXTENSIONS_DIR": str(tmp_path), "DS_ACCELERATOR": "cpu"}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=200, env=environment)
    assert list(tmp_path.iterdir()) == []


def test_ranks_of_one_machine_talk_by_loopback():
    loopback = _interface_towards("127.0.0.1", 1)
    assert {address.address for address in psutil.net_if_addrs()[loopback]} >= {"127.0.0.1"}
    assert os.environ["GLOO_SOCKET_IFNAME"] == loopback  # set by the group that this file has joined

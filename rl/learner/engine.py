"""A DeepSpeed engine whose optimizer updates are ours to count.

Gradient accumulation is *unmanaged*: `backward` only accumulates, and one call of `update` is one optimizer step.
Hidden accumulation counters have silently turned every micro-batch into an update in several public trainers, so the
number of updates is asserted after each.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from configs.algorithm_options import OptimizerOptions


def join_group(host: str, port: int, rank: int, world_size: int, timeout_seconds: float, device: torch.device) -> None:
    """Enter the learners' process group; its store is the one that rank 0 holds open (`open_store`).

    Neither store nor gloo asks who is there, so they listen where the ranks are and nowhere else: on the interface that
    has rank 0's address, or this rank's towards it, unless the environment names one.
    """
    interface = _interface_towards(host, port)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, interface)
    store = dist.TCPStore(host, port, world_size, is_master=False, timeout=timedelta(seconds=timeout_seconds))
    os.environ.update(
        MASTER_ADDR=host, MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK="0"
    )
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=timeout_seconds)
    )
    import deepspeed  # after the environment: it reads it on import

    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


def open_store(host: str) -> dist.TCPStore:
    """A store on a free port of `host`'s interface alone, chosen and kept by the same process: no race for the port."""
    listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = listener.getsockname()[1]
    return dist.TCPStore(
        host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach(), use_libuv=True
    )


def _interface_towards(host: str, port: int) -> str:
    """Name of the network interface by which this machine reaches `host`."""
    import psutil

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))  # sends nothing: the kernel chooses a way
        own = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address.partition("%")[0] == own for address in addresses):
            return name
    raise RuntimeError(f"no network interface has the address {own}, which leads to {host}; set GLOO_SOCKET_IFNAME")


class GradientError(RuntimeError):
    """The gradient is not finite; the weights are as they were."""


class Engine:
    """`model` must return what the loss needs from its forward; ZeRO-3 gathers parameters around that call only."""

    def __init__(
        self,
        model: nn.Module,
        options: OptimizerOptions,
        *,
        zero_stage: int,
        bf16: bool,
    ) -> None:
        import deepspeed

        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            trainable,
            lr=0.0,  # `update` sets it; until then no step may move or decay a weight
            betas=(options.betas[0], options.betas[1]),
            eps=options.eps,
            weight_decay=options.weight_decay,
        )
        self.options = options
        self.zero_stage = zero_stage
        self.world_size = dist.get_world_size()
        self.deepspeed, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            model_parameters=trainable,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,
                "managed_gradient_accumulation": False,
                "gradient_clipping": options.max_grad_norm,
                "zero_optimization": {"stage": zero_stage, "overlap_comm": False},
                "zero_allow_untested_optimizer": True,
                "bf16": {"enabled": bf16},
                # In bf16 a sum of many micro-batches stops growing once it is 256 times as large as the next.
                "data_types": {"grad_accum_dtype": "fp32"},
                "steps_per_print": 10**9,
            },
        )
        # DeepSpeed casts buffers along with the weights, but rotary frequencies are too coarse in bf16 to agree with
        # the rollout's.
        for name, buffer in buffers.items():
            self.module.get_buffer(name).data = buffer
        self.updates = 0
        self._plain_norm: float | None = None
        self._clip = self.deepspeed.clip_fp32_gradients
        self.deepspeed.clip_fp32_gradients = self._measure_and_clip

    def _measure_and_clip(self) -> None:
        """Without ZeRO in fp32 DeepSpeed clips but keeps no norm. It is measured here, before the optimizer's step, so
        that a gradient that is not finite never reaches the weights."""
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        self._plain_norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(self._plain_norm):
            raise GradientError(f"the gradient norm is {self._plain_norm}")
        self._clip()

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.deepspeed(*inputs)

    @property
    def module(self) -> nn.Module:
        return self.deepspeed.module

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of this rank's part of a loss that is a *sum* over ranks."""
        self.deepspeed.backward(loss * self.world_size)  # DeepSpeed averages over ranks

    def update(self, learning_rate: float) -> float:
        """One optimizer step. Returns the gradient norm before clipping."""
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        before = self.deepspeed.global_steps
        self.deepspeed.step()
        self.updates += 1
        if self.deepspeed.global_steps != before + 1:
            raise RuntimeError(
                f"one call of update() made {self.deepspeed.global_steps - before} optimizer steps; this DeepSpeed "
                f"version handles unmanaged gradient accumulation differently from the tested one"
            )
        norm = self.deepspeed.get_global_grad_norm()
        if norm is None:
            norm = self._plain_norm
        if norm is None:
            raise RuntimeError("this DeepSpeed version reports no gradient norm")
        return float(norm)

    @contextmanager
    def gathered(self, parameters: list[nn.Parameter], changed: bool = False) -> Iterator[None]:
        """Whole parameters on every rank; collective under ZeRO-3, free otherwise.

        Args:
            changed: every rank writes the same values into them.
        """
        import deepspeed

        writer = 0 if changed else None
        gather: Any = (
            deepspeed.zero.GatheredParameters(parameters, modifier_rank=writer)
            if self.zero_stage == 3
            else nullcontext()
        )
        with gather:
            yield

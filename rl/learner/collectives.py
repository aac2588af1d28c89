"""Numbers that all learner ranks must agree on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


def sum_over_ranks(value: float, device: torch.device) -> float:
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return tensor.item()


def maximum_over_ranks(value: float, device: torch.device) -> float:
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.item()


def total(value: Tensor) -> Tensor:
    """Sum over ranks of a scalar, without its gradient."""
    reduced = value.detach().double()
    dist.all_reduce(reduced)
    return reduced.to(value)


def in_step(batches: list[list[Item]], idle: Callable[[Item], Item], device: torch.device) -> list[list[Item]]:
    """As many batches on every rank, whose collectives must pair up; `idle` makes the repeats count nothing."""
    wanted = int(maximum_over_ranks(float(len(batches)), device))
    return batches + [[idle(batches[-1][-1])] for _ in range(wanted - len(batches))]

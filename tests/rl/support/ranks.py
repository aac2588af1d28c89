"""Two learners' ranks as processes, for what a single process cannot show."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch

from rl.learner.engine import join_group, open_store


def on_two_ranks(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments, rank)` of a module returns on each, in the order in which they end."""
    store = open_store("127.0.0.1")
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [
        context.Process(target=_joined, args=(function, arguments, rank, store.port, results)) for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(200)
    assert [process.exitcode for process in ranks] == [0, 0]
    return [results.get(timeout=1) for _ in ranks]


def _joined(function: Callable[..., Any], arguments: tuple[Any, ...], rank: int, port: int, results: Any) -> None:
    join_group("127.0.0.1", port, rank, 2, 120, torch.device("cpu"))
    results.put(function(*arguments, rank))

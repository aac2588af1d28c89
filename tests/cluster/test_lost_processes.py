"""A process that is lost is named with a way out, whenever it is lost."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from cluster.joining import ClusterError
from configs.schema import Config
from rl.data.tickets import Ticket, TicketKind
from rl.driver import generation, processes
from rl.driver.generation import Generation, Job, Restart, key
from rl.driver.processes import ActorDied, Processes
from tests.benchmarks.mistakes.judge import FIX

GONE = ActorDied("reward-0", "The actor 7dfd is unavailable: RpcError: Socket closed rpc_code: 14.\nand more")


def gone(*arguments: Any, **options: Any) -> Any:
    raise GONE


def message_of(error: pytest.ExceptionInfo[ClusterError]) -> str:
    assert type(error.value) is ClusterError  # not ActorDied, which is to be caught by somebody
    text = str(error.value)
    assert "reward-0 died: The actor 7dfd is unavailable" in text
    assert "and more" not in text
    assert FIX.search(text.partition("rpc_code: 14.")[2])
    return text


def generating() -> Generation:
    config = Config()
    config.cluster.startup_timeout_seconds = 0.0
    nothing: Any = None
    return Generation(config, Processes({}, {}, {}), nothing, {}, lambda _: nullcontext(), print)


def test_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "reserved", lambda bundles, options: nullcontext())
    monkeypatch.setattr(processes, "_created", lambda *arguments: Processes({}, {}, {}))
    monkeypatch.setattr(processes, "gather", gone)
    with (
        pytest.raises(ClusterError) as error,
        processes.started(Config(), generating=True, learning=True),
    ):
        pass
    assert "It ended while it started: give the same command again" in message_of(error)


def test_while_it_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "result_of", gone)
    running = generating()
    reference: Any = object()
    running._restarts[reference] = Restart("reward-0", "reward", started=0.0)
    with pytest.raises(ClusterError) as error:
        running._finish_restart(reference)
    assert "reward-0 did not come back within 0 s" in message_of(error)


def test_three_times_with_the_same_ticket() -> None:
    running = generating()
    ticket = Ticket(5, 2, 2, (0,), 4, 1, TicketKind.train)
    running._attempts[key(ticket)] = generation.MAX_ATTEMPTS
    with pytest.raises(ClusterError) as error:
        running._reissue(Job(ticket, "reward-0", "reward", []), GONE)
    assert "ticket 5 of update 2 was lost 3 times" in message_of(error)

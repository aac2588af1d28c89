"""A process that is lost is named with a way out, whenever it is lost."""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cluster.joining import ClusterError
from configs.schema import Config
from rewards.judge.server import Served
from rewards.options import RewardTerm
from rewards.scoring.scores import Scores
from rl.data.tickets import Ticket, TicketKind
from rl.driver import generation, processes
from rl.driver.actors import RewardActor
from rl.driver.generation import Generation, Job, Restart, key
from rl.driver.processes import ActorDied, Processes
from rollout.worker import Completions
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
    running._attempts[key(ticket), "reward"] = generation.MAX_ATTEMPTS
    with pytest.raises(ClusterError) as error:
        running._reissue(Job(ticket, "reward-0", "reward", []), GONE)
    assert "reward of ticket 5 of update 2 was lost 3 times" in message_of(error)


def test_a_worker_of_each_pool_is_not_three_times() -> None:
    """A node that is lost takes one of each along; none of these is issued twice for it, and none is forgotten."""
    running = generating()
    ticket = Ticket(5, 2, 2, (0,), 4, 1, TicketKind.train)
    pools = ("reward", "reward-gpu", "reward-judge")
    running._to_score = {pool: deque() for pool in pools}
    for kind in ("rollout", *pools):
        running._reissue(Job(ticket, f"{kind}-0", kind, []), GONE)
    assert list(running._first) == [ticket]
    assert [len(jobs) for jobs in running._to_score.values()] == [1, 1, 1]


def test_a_reward_worker_that_died_idle_follows_the_judge_again(tmp_path: Path) -> None:
    """Nobody waits for it then, and nobody calls `ready`: where the judge was before would be all that it knew."""
    config = Config()
    config.reward.terms = {"judge": RewardTerm("judge", args={"url": "served"})}
    printed = tmp_path / "printed" / "reward-0.txt"
    actor = RewardActor(config, printed, lambda: Served("http://127.0.0.1:9", "m", "k"))
    scores: Any = SimpleNamespace(score=lambda request: Scores(np.ones(1), {}, []))
    actor.worker = scores
    ticket = Ticket(5, 2, 2, (0,), 1, 1, TicketKind.train)
    actor.score(Completions(["text"]), ["prompt"], {}, ticket, 1.0)
    assert "127.0.0.1:9" in (tmp_path / "judge" / "where-reward-0.json").read_text()

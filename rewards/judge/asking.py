"""Asking a judge about many contents at once: each of them once, from the records where they have it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rewards.judge.records import Records, key_of
from rewards.judge.settings import SERVED, Settings
from rewards.judge.verdict import Invalid, Reply, expectation, majority, of_schema, reply_of, verdict
from rewards.remote.client import Address, Client, NotAnswered

ADVICE = {
    True: "See judge/server.txt in the folder of the run, and raise args.patience_seconds where it starts slowly",
    False: "Start it again, correct args.url, args.model or the key, or raise args.patience_seconds",
}


class Failed(Exception):
    """One content could not be judged."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


@functools.cache
def records_in(folder: Path | None) -> Records:
    """Those of this process, shared by all terms that keep theirs there."""
    return Records(folder)


class Asking:
    """`async with Asking(...) as asking`, once for a call of a reward function."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._records = records_in(settings.records_folder)
        served = settings.url == SERVED
        direct = served or settings.where()[0].is_here
        self._client = Client(self._address, settings.patience, ADVICE[served], not direct)
        self._under_way: dict[str, asyncio.Future[Reply]] = {}
        self.asked = self.found = 0
        self.tokens = [0, 0]
        self.masses: list[float] = []

    def _address(self) -> Address:
        return self._settings.where()[0]

    async def __aenter__(self) -> Asking:
        await self._client.__aenter__()
        self._model = await self._model_name()
        return self

    async def __aexit__(self, *error: object) -> None:
        left = list(self._under_way.values())
        for request in left:
            request.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._client.__aexit__(*error)

    async def _model_name(self) -> str:
        """A served judge says it when it is there; the patience of the first request is for that, too."""
        for _ in range(int(10 * self._settings.patience_seconds)):
            try:
                return self._settings.where()[1]
            except LookupError:
                await asyncio.sleep(0.1)
        raise self._client.unavailable("it was not started in time")

    async def value(self, content: Any) -> dict[str, float]:
        """The judge's scores of a content by criterion; one number has the criterion "".

        Raises:
            Failed: this content has none. Unavailable: the judge is down.
        """
        votes = [self._settings.request(content, self._model, vote) for vote in range(self._settings.votes)]
        try:
            read = [self._read(reply) for reply in await asyncio.gather(*map(self._reply, votes))]
            return {name: majority(vote[name] for vote in read) for name in read[0]}
        except Invalid as error:
            raise Failed("invalid", f"judge: {error}") from None
        except NotAnswered as error:
            raise Failed(error.status, f"judge: {error}") from None

    def _read(self, reply: Reply) -> dict[str, float]:
        settings = self._settings
        if settings.mode == "verdict":
            return {"": verdict(reply, settings.scores)}
        if settings.mode == "expectation":
            value, mass = expectation(reply, settings.scores, settings.least_mass)
            self.masses.append(mass)
            return {"": value}
        assert settings.schema is not None
        return of_schema(reply, settings.schema)

    async def _reply(self, request: dict[str, Any]) -> Reply:
        key = key_of(request)
        self.asked += 1
        if (known := self._records.get(key)) is not None:
            self.found += 1
            return known
        if key in self._under_way:
            self.found += 1
        else:
            self._under_way[key] = asyncio.ensure_future(self._answered(key, request))
        return await asyncio.shield(self._under_way[key])  # whoever gives up does not take it from the others

    async def _answered(self, key: str, request: dict[str, Any]) -> Reply:
        with_likely = self._settings.mode == "expectation"
        reply = await self._client.post(
            "/chat/completions", request, lambda answer: reply_of(answer, self._model, with_likely)
        )
        self._records.put(key, reply)
        self.tokens[0] += reply.tokens[0]
        self.tokens[1] += reply.tokens[1]
        return reply

    def tell(self, log_metric: Callable[[str, float], None], samples: int) -> None:
        """What it took, for each sample where it says so."""
        counts = self._client.counts
        samples = max(samples, 1)
        told = {
            "judge/prompt_tokens": self.tokens[0] / samples,
            "judge/answer_tokens": self.tokens[1] / samples,
            "judge/known": self.found / max(self.asked, 1),
            "judge/retries": float(counts.retries),
            "judge/unreadable_records": float(self._records.unreadable),
        }
        if counts.seconds:
            told["judge/seconds"] = sum(counts.seconds) / len(counts.seconds)
            told["judge/longest_seconds"] = max(counts.seconds)
        if self.masses:
            told["judge/mass"] = sum(self.masses) / len(self.masses)
        for name, value in told.items():
            log_metric(name, value)

"""JSON over HTTP to a service that may be slow, overloaded, restarting, half there or somebody else.

What becomes of a request:

    429, 408, 425, 5xx, a lost connection, a missed deadline, half a JSON   again, after a wait that doubles
    the same beside answers to others                                        after five tries this sample's failure
    a body of another shape                                                  after three tries this sample's failure
    another 4xx (400, 413, 422)                                              this sample's failure at once
    401, 403, 404, 405, a redirect, answers of another model                 `Unavailable`: it is nobody's sample
    nothing has been answered for `patience_seconds`                         `Unavailable`
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Literal, TypeVar

import httpx

from rewards.printable import printable
from rewards.unavailable import Unavailable

Answer = TypeVar("Answer")

FIRST_WAIT, LONGEST_WAIT = 0.25, 10.0
"""Seconds before the second try, and at most between two. Each wait is drawn between half of it and all of it."""
TRIES_BESIDE_OTHERS = 5
"""Of a request that fails while the service answers others."""
TRIES_OF_ODD_ANSWERS = 3
"""Answers that are JSON of another shape, or of another model: the same is to be expected of the next."""
LARGEST_BODY = 16 * 2**20
"""Bytes of an answer that are read."""
SHOWN = 300
"""Characters of a body that an error shows."""
AGAIN = {408, 425, 429}
"""With 5xx: what a service says that may answer later."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
NOBODYS = {401, 403, 404, 405, 407}
"""What it says of the address or of who asks, so that all requests would get it."""


class OddAnswer(Exception):
    """A body is JSON, but not the answer that was asked for. Raised by those who read it."""


class OtherModel(OddAnswer):
    """It is the answer of another model."""


class NotAnswered(Exception):
    """This request has no answer, though the service is there."""

    def __init__(self, status: Literal["timeout", "error", "invalid"], why: str) -> None:
        super().__init__(why)
        self.status = status


class _Again(Exception):
    """Why a try failed that may be repeated."""

    def __init__(self, status: Literal["timeout", "error", "invalid"], why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.status: Literal["timeout", "error", "invalid"] = status
        self.wait = wait
        """Seconds that the service asks for."""


@dataclass(frozen=True)
class Patience:
    request_seconds: float = 60.0
    """Deadline of one try."""
    patience_seconds: float = 120.0
    """How long a service may answer nothing at all before it is `Unavailable`."""
    concurrency: int = 8
    """Requests in the air."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"{name} is {value!r}; a number above 0 is expected")


@dataclass
class Address:
    """Where a service is."""

    url: str
    """Without a slash at its end."""
    key: str | None = None
    """What it is paid or let in by, sent as a bearer token."""

    @property
    def is_here(self) -> bool:
        return httpx.URL(self.url).host in LOOPBACK


@dataclass
class Counts:
    """What it took."""

    requests: int = 0
    """Answered ones."""
    retries: int = 0
    seconds: list[float] = field(default_factory=list)
    """Of each answered request, its last try alone."""


class Client:
    """For one event loop: `async with Client(...) as client`."""

    def __init__(
        self, where: Callable[[], Address], patience: Patience, advice: str, through_proxies: bool = False
    ) -> None:
        """
        Args:
            where: asked before every try, since a service that is started again may be elsewhere; raises LookupError
                while it is nowhere.
            advice: what to do about a service that is down, for errors.
            through_proxies: as the environment says (HTTPS_PROXY, SSL_CERT_FILE); what is near is asked directly.
        """
        self._where, self._patience, self._advice = where, patience, advice
        self._through_proxies = through_proxies
        self._random = random.Random()
        self._answered = 0.0
        self.counts = Counts()

    async def __aenter__(self) -> Client:
        self._room = asyncio.Semaphore(int(self._patience.concurrency))
        self._http = httpx.AsyncClient(timeout=None, trust_env=self._through_proxies)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def post(self, path: str, body: Any, read: Callable[[Any], Answer]) -> Answer:
        """
        Args:
            path: behind the address.
            read: makes an answer of the body, or raises OddAnswer.

        Raises:
            NotAnswered: the failure of this request. Unavailable: that of the service.
        """
        async with self._room:  # also while it waits: a service in trouble is not asked by the next one meanwhile
            began = time.monotonic()
            tries = odd = 0
            while True:
                tries += 1
                try:
                    answer = await self._tried(path, body, read)
                except OddAnswer as error:
                    odd += 1
                    self.counts.retries += 1
                    if odd == TRIES_OF_ODD_ANSWERS:
                        if isinstance(error, OtherModel):
                            raise self.unavailable(f"{error}, in {odd} answers", path) from None
                        raise NotAnswered("invalid", f"{self._url(path)}: {error}, in {odd} answers") from None
                    wait = self._wait(odd, 0.0)
                except _Again as error:
                    self.counts.retries += 1
                    if tries >= TRIES_BESIDE_OTHERS and self._answered > began:
                        raise NotAnswered(error.status, f"{self._url(path)}: {error}, in {tries} tries") from None
                    wait = self._wait(tries, error.wait)
                    ends = max(began, self._answered) + self._patience.patience_seconds
                    if time.monotonic() + wait > ends:
                        raise self.unavailable(
                            f"no answer in {time.monotonic() - began:.0f} s and {tries} tries "
                            f"(patience_seconds={self._patience.patience_seconds:g}); the last: {error}",
                            path,
                        ) from None
                else:
                    self._answered = time.monotonic()
                    return answer
                await asyncio.sleep(wait)

    async def _tried(self, path: str, body: Any, read: Callable[[Any], Answer]) -> Answer:
        seconds = self._patience.request_seconds
        try:
            address = self._where()
        except LookupError as error:
            raise _Again("error", str(error.args[0])) from None
        began = time.monotonic()
        try:
            status, headers, content = await asyncio.wait_for(self._sent(address, path, body), seconds)
        except asyncio.TimeoutError:
            raise _Again("timeout", f"no answer within request_seconds={seconds:g}") from None
        except httpx.HTTPError as error:
            text = _without(str(error), address.key) or type(error).__name__
            raise _Again("error", f"the connection failed: {text}") from None
        said = _shown(content, address.key)
        if status in AGAIN or status >= 500:
            raise _Again("error", f"status {status}{said}", _retry_after(headers.get("retry-after")))
        if status in NOBODYS:
            raise self.unavailable(f"status {status}{said}", path)
        if 300 <= status < 400:
            raise self.unavailable(f"status {status}: it sends elsewhere, and no redirect is followed", path)
        if status != 200:
            raise NotAnswered("error", f"{self._url(path)}: status {status}{said}")
        if len(content) > LARGEST_BODY:
            raise OddAnswer(f"an answer of more than {LARGEST_BODY} bytes")
        try:
            found = json.loads(content)
        except ValueError:  # also of bytes that are no text
            raise _Again("invalid", f"an answer that is no JSON, or only a part of it{said}") from None
        answer = read(found)
        self.counts.requests += 1
        self.counts.seconds.append(time.monotonic() - began)
        return answer

    async def _sent(self, address: Address, path: str, body: Any) -> tuple[int, httpx.Headers, bytes]:
        headers = {"Content-Type": "application/json"}
        if address.key is not None:
            headers["Authorization"] = f"Bearer {address.key}"
        content = json.dumps(body, allow_nan=False).encode()  # half a surrogate pair travels, too, as an escape
        async with self._http.stream("POST", address.url + path, content=content, headers=headers) as response:
            found = bytearray()
            async for part in response.aiter_bytes():
                found += part
                if len(found) > LARGEST_BODY:
                    break
            return response.status_code, response.headers, bytes(found)

    def _wait(self, tries: int, asked: float) -> float:
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tries - 1)) * self._random.uniform(0.5, 1.0)
        return max(wait, asked)

    def _url(self, path: str) -> str:
        try:
            return self._where().url + path
        except LookupError:
            return "the service"

    def unavailable(self, why: str, path: str = "") -> Unavailable:
        return Unavailable(f"{self._url(path)} is unavailable: {why.rstrip('.')}. {self._advice}")


async def together(requests: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """Their results in order; when one raises, the others are cancelled, and it is raised."""
    tasks: list[Awaitable[Answer]] = [asyncio.ensure_future(request) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()  # type: ignore[attr-defined]
        await asyncio.gather(*tasks, return_exceptions=True)


def checked_url(url: object, key: str | None) -> str:
    """A URL without the slash at its end.

    Raises:
        ValueError: it is none, it carries a password, or a key would travel where everybody reads it.
    """
    try:
        parsed = httpx.URL(str(url))
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"url is {url!r}; http://HOST:PORT/... or https://... is expected")
    if parsed.userinfo or parsed.query:
        raise ValueError(
            "url carries a user, a password or a query, which logs and run folders would keep: give a key by an "
            "environment variable instead (OPENAI_API_KEY)"
        )
    if key is not None and parsed.scheme == "http" and parsed.host not in LOOPBACK:
        raise ValueError(
            f"url is {url}, and the key of the environment would be sent to it unencrypted: use https, or set "
            f"args.key_variable=null where it needs no key"
        )
    return str(url).rstrip("/")


def _retry_after(value: str | None) -> float:
    """Seconds from now that the header asks for, in either of its forms."""
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    now = datetime.now(timezone.utc)
    return max(0.0, ((when if when.tzinfo else when.replace(tzinfo=timezone.utc)) - now).total_seconds())


def _shown(content: bytes, key: str | None) -> str:
    text = printable(_without(content[: 4 * SHOWN].decode(errors="replace"), key)).strip()[:SHOWN]
    return f": {text}" if text else ""


def _without(text: str, key: str | None) -> str:
    return text.replace(key, "(the key)") if key else text

"""A reward model behind a URL, in the JSON of OpenRLHF's remote reward models (`openrlhf/cli/serve_rm.py`).

    {"query": [prompt + completion], "prompts": [...], "labels": [...]}  ->  {"rewards": [...], "extra_logs": {...}}

`scores`, which OpenRLHF filters groups by, and the numbers of `extra_logs` are metrics here. An answer with as many
numbers as there were queries is one; anything else is the failure of its samples, never a number.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from rewards.remote.client import Address, Client, NotAnswered, OddAnswer, Patience, checked_url, together

ADVICE = "Start it again, correct reward.terms.NAME.args.url, or raise args.patience_seconds"


async def remote_reward_model(
    prompts: list[str],
    completions: list[str],
    url: str | None = None,
    label: str | None = None,
    batch_size: int = 16,
    request_seconds: float = 60.0,
    patience_seconds: float = 120.0,
    concurrency: int = 4,
    key_variable: str | None = None,
    log_failed: Callable[[int, str, str], None] = lambda place, status, why: None,
    log_metric: Callable[[str, float], None] = lambda name, value: None,
    **columns: Any,
) -> list[float | None]:
    """N rewards.

    Args:
        url: of the service, with its path, such as http://127.0.0.1:5000/get_reward.
        label: column that is sent as `labels`; None sends nulls.
        batch_size: queries of one request.
        request_seconds, patience_seconds, concurrency: see `Patience`.
        key_variable: environment variable with a bearer token.

    Raises:
        ValueError: an argument is missing or wrong. Unavailable: the service is down.
    """
    if url is None:
        raise ValueError("the reward `remote_reward_model` needs args.url: where the service answers")
    if label is not None and label not in columns:
        raise ValueError(f"args.label={label} is no column; there are {', '.join(sorted(columns)) or 'none'}")
    if batch_size < 1:
        raise ValueError(f"args.batch_size={batch_size}; at least 1 is expected")
    key = None if key_variable is None else os.environ.get(key_variable)
    address = Address(checked_url(url, key), key)
    labels = [None] * len(prompts) if label is None else list(columns[label])
    values: list[float | None] = [None] * len(prompts)
    logs: dict[str, list[float]] = {}

    async def asked(client: Client, start: int) -> None:
        part = slice(start, start + batch_size)
        texts = list(zip(prompts[part], completions[part], strict=True))
        body = {"query": [p + c for p, c in texts], "prompts": [p for p, _ in texts], "labels": labels[part]}
        places = range(start, start + len(texts))
        try:
            rewards, found = await client.post("", body, lambda answer: read(answer, len(texts)))
        except NotAnswered as error:
            for place in places:
                log_failed(place, error.status, str(error))
            return
        for place, reward in zip(places, rewards, strict=True):
            if is_number(reward):
                values[place] = float(reward)
            else:
                log_failed(place, "invalid", f"{url} answered {reward!r} for a sample; a finite number is expected")
        for name, numbers in found.items():
            logs.setdefault(name, []).extend(numbers)

    patience = Patience(request_seconds, patience_seconds, concurrency)
    async with Client(lambda: address, patience, ADVICE, not address.is_here) as client:
        await together(asked(client, start) for start in range(0, len(prompts), batch_size))
    log_metric("remote/retries", client.counts.retries)
    for name, numbers in logs.items():
        log_metric(f"remote/{name}", sum(numbers) / len(numbers))
    return values


def read(answer: Any, samples: int) -> tuple[list[Any], dict[str, list[float]]]:
    """The list of rewards, of what it may hold, and the numbers that the answer carries for logs.

    Raises:
        OddAnswer: there is no list of so many.
    """
    rewards = answer.get("rewards") if isinstance(answer, dict) else None
    if not isinstance(rewards, list):
        raise OddAnswer("an answer without a list `rewards`")
    if len(rewards) != samples:
        raise OddAnswer(f"{len(rewards)} rewards for {samples} queries")
    extra = answer.get("extra_logs")
    logs = {"scores": answer.get("scores"), **(extra if isinstance(extra, dict) else {})}
    found = {str(name): numbers(value) for name, value in logs.items()}
    return rewards, {name: of for name, of in found.items() if of}


def numbers(value: Any) -> list[float]:
    """The finite numbers in it; a log may be anything."""
    return [float(each) for each in (value if isinstance(value, list) else [value]) if is_number(each)]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

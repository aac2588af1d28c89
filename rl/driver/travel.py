"""What a notebook or a script defines, on its way to the actors.

A configuration names parts by dotted paths. Those of `__main__` exist in one process only: they travel by value with
the configuration that an actor is made of, and are entered there before it is used, also in an actor that Ray starts
again. They are never written into a run folder.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from configs.schema import Config
from models import parts
from rewards import registry


def travelling(config: Config) -> Any:
    """The configuration itself, or where it names parts of this process something that unpickles to it, having entered
    them in the process where it arrives.

    Raises:
        PartError, RewardError: a part is not there, or holds something that cannot be sent.
    """
    rewards = registry.local_functions(term.function for term in config.reward.terms.values())
    others = {path: parts.find(path, option) for option, path in named_parts(config) if is_local(path)}
    if not rewards and not others:
        return config
    return _Travelling(config, registry.by_value(rewards), registry.by_value(others))


def named_parts(config: Config) -> Iterator[tuple[str, str]]:
    """(option, dotted path) of all parts of users but the rewards."""
    custom = config.algorithm.custom
    named = {
        "algorithm.custom.advantage": custom.advantage,
        "algorithm.custom.objective": custom.objective,
        "algorithm.custom.denominator": custom.denominator,
        "rollout.denoising.custom_kernel": config.rollout.denoising.custom_kernel,
        "model.family": config.model.family,
    }
    for option, path in named.items():
        if path is not None:
            yield option, path


def is_local(path: str) -> bool:
    return path in parts.GIVEN or path.startswith(parts.LOCAL)


class _Travelling:
    def __init__(self, config: Config, rewards: bytes, others: bytes) -> None:
        self.arguments = config, rewards, others

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, self.arguments


def _arrived(config: Config, rewards: bytes, others: bytes) -> Config:
    registry.GIVEN.update(pickle.loads(rewards))
    parts.GIVEN.update(pickle.loads(others))
    return config

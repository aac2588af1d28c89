"""A first call of every reward term, before anything is trained: a mistake in one shows while nothing else is lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.schema import Config
from rewards.conversation import Prompt
from rl.data.prompts import PromptSource
from rl.data.tickets import TicketKind
from rl.modality.protocol import Modality
from rollout.worker import Completions

SAMPLES = 2
"""Of one row: a function that returns one number for all of them shows, and one behind a URL is paid for once."""


@dataclass(frozen=True)
class Trial:
    completions: Completions
    """Made up: nothing has been generated yet."""
    prompts: list[Prompt]
    columns: dict[str, list[Any]]
    """Of a real row."""


def trial_of(config: Config, modality: Modality, sources: Mapping[TicketKind, PromptSource]) -> Trial | None:
    """None if no reward is to be tried."""
    offline = config.algorithm.advantage.offline  # demonstrations are not scored
    scored = [kind for kind in sources if not (offline and kind is TicketKind.train)]
    if not (config.reward.try_first and config.reward.terms and scored):
        return None
    return Trial(modality.made_up(SAMPLES), *sources[scored[0]].columns([0], SAMPLES))

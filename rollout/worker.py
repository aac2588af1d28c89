"""The text rollout worker: a ticket's prompts in, one trajectory a prompt and the completions' text out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from models.text import TextPolicy
from rollout.groups import Origin, to_trajectories
from rollout.options import SamplerOptions
from rollout.sampler import Sampler
from rollout.trajectory import TextTrajectory


@dataclass(frozen=True)
class RolloutRequest:
    """Everything that a ticket's samples depend on, beside the weights."""

    origin: Origin
    prompt_ids: tuple[str, ...]
    prompts: tuple[np.ndarray, ...]
    """Token ids, (P,) int32 each."""
    uids: tuple[int, ...]
    """Noise key of each sample, groups one behind the other."""
    sampler: SamplerOptions

    @property
    def group_size(self) -> int:
        return len(self.uids) // len(self.prompts)


@dataclass(frozen=True)
class Completions:
    """What rewards see and what the driver logs; no tensors."""

    texts: list[str]
    """One a sample, groups one behind the other."""
    ids: list[list[int]]
    stopped: list[bool]
    """The completion ended with a stop token rather than at the length limit."""
    statistics: dict[str, float]
    """seconds, forwards, token_forwards, rounds, tokens of the ticket."""


class TextRolloutWorker:
    def __init__(self, policy: TextPolicy, tokenizer: PreTrainedTokenizerBase) -> None:
        self.policy = policy
        self.tokenizer = tokenizer

    def run(self, request: RolloutRequest) -> tuple[list[TextTrajectory], Completions]:
        started = time.perf_counter()
        rows = [prompt for prompt in request.prompts for _ in range(request.group_size)]
        prompt_index = [index for index in range(len(request.prompts)) for _ in range(request.group_size)]
        samples = Sampler(self.policy, request.sampler).sample(rows, list(request.uids), prompt_index)
        trajectories = to_trajectories(
            samples,
            request.origin,
            list(request.prompt_ids),
            list(request.prompts),
            list(request.uids),
            request.group_size,
            request.sampler,
        )
        kept = [sample for t in trajectories for sample in (t.completion_ids(i) for i in range(t.group_size))]
        statistics = {name: float(value) for name, value in samples.counters.items()}
        statistics["rounds"] = float(samples.rounds.sum())
        statistics["tokens"] = float(samples.stop_length.sum())
        statistics["seconds"] = time.perf_counter() - started
        return trajectories, self._completions(kept, statistics)

    def _completions(self, kept: list[np.ndarray], statistics: dict[str, Any]) -> Completions:
        stop = set(self.policy.spec.stop_ids)
        ids = [sample.tolist() for sample in kept]
        return Completions(
            texts=self.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
            ids=ids,
            stopped=[sample[-1] in stop for sample in ids],
            statistics=statistics,
        )

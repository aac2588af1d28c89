"""What every rollout worker is asked for and gives back, whatever it generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from models.policy import Policy
from rollout.branching import Tree
from rollout.options import DenoisingOptions, SamplerOptions, StepCandidateOptions
from rollout.trajectory import Trajectory


@dataclass(frozen=True)
class Origin:
    """Where a ticket comes from; copied into each of its trajectories."""

    ticket: int
    update: int
    version: int
    seed: int


@dataclass(frozen=True)
class RolloutRequest:
    """Everything that a ticket's samples depend on, beside the weights."""

    origin: Origin
    prompt_ids: tuple[str, ...]
    prompts: tuple[Any, ...]
    """What the policy is conditioned on: token ids, (P,) int32, for text; the caption for images."""
    uids: tuple[int, ...]
    """Noise key of each sample, groups one behind the other."""
    sampler: SamplerOptions | DenoisingOptions
    tree: Tree | None = None
    """How the samples of a prompt branch; None if they share nothing."""
    candidates: StepCandidateOptions | None = None
    """Images: each step of a prompt's chain is a group, of candidates for the next latent; None for whole chains."""

    @property
    def group_size(self) -> int:
        return len(self.uids) // len(self.prompts)

    def key(self, row: int, step: int) -> int:
        """Of the noise that a sample draws at a denoising step."""
        return self.uids[row if self.tree is None else self.tree.first_leaf(row, step)]


@dataclass(frozen=True)
class Completions:
    """What rewards see."""

    outputs: list[Any]
    """One a sample, groups one behind the other: text, or an image as (H, W, 3) uint8."""
    ids: list[list[int]] | None = None
    """Tokens of a text."""
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """What else is known of each sample; a keyword argument of every reward function, like a column of the data."""


class RolloutWorker(Protocol):
    @property
    def policy(self) -> Policy: ...

    def run(self, request: RolloutRequest) -> tuple[Sequence[Trajectory], Completions, dict[str, float]]:
        """One trajectory a group, the completions, and sums over the ticket's samples of what they cost."""
        ...

"""What every rollout worker is asked for and gives back, whatever it generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from rollout.branching import Tree
from rollout.options import DenoisingOptions, SamplerOptions, StepCandidateOptions

if TYPE_CHECKING:  # reward workers know completions, and neither networks nor files of trajectories
    from models.policy import Policy
    from rollout.trajectory import Trajectory


@dataclass(frozen=True)
class Origin:
    """Where a ticket comes from; copied into each of its trajectories."""

    ticket: int
    update: int
    version: int
    seed: int


@dataclass(frozen=True)
class Recording:
    """What is needed of a rollout beside its completions."""

    estimates: bool = False
    """What each denoising step took the finished sample to be, for rewards to see."""
    proposals: bool = False
    """Text: the token that each round put at every masked position, and its log-probability."""
    trajectories: bool = True
    """How each sample came about."""


@dataclass(frozen=True)
class RolloutRequest:
    """Everything that a ticket's samples depend on, beside the weights."""

    origin: Origin
    prompt_ids: tuple[str, ...]
    prompts: tuple[Any, ...]
    """What the policy is conditioned on: token ids, (P,) int32, for text; an `ImagePrompt` for images."""
    uids: tuple[int, ...]
    """Noise key of each sample, groups one behind the other."""
    sampler: SamplerOptions | DenoisingOptions
    recording: Recording = Recording()
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
class Estimates:
    """What rewards see of the steps before the last one, whose estimate is the finished sample itself."""

    outputs: list[Any]
    """Of the first sample, step by step, then of the next one."""
    counts: list[int]
    """How many are of each sample."""
    ids: list[list[int]] | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """As in `Completions`: an estimate is the sample that would be had if denoising ended there."""


@dataclass(frozen=True)
class Completions:
    """What rewards see."""

    outputs: list[Any]
    """One a sample, groups one behind the other: text, or an image as (H, W, 3) uint8."""
    ids: list[list[int]] | None = None
    """Tokens of a text."""
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """What else is known of each sample; a keyword argument of every reward function, like a column of the data."""
    estimates: Estimates | None = None
    """Present where the request asked for them."""


class RolloutWorker(Protocol):
    @property
    def policy(self) -> Policy: ...

    def run(self, request: RolloutRequest) -> tuple[Sequence[Trajectory], Completions, dict[str, float]]:
        """One trajectory a group if the request records them, the completions, and sums over the ticket's samples of
        what they cost."""
        ...

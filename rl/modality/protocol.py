"""Everything that differs between text and images, as one object that is chosen once, by `model.modality`.

The loop, the generation, the learner and the actors ask it; none of them knows what is generated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from rich.console import Console

from cluster.weights import PackedWeights
from configs.algorithm_options import AdvantageKind, AlgorithmOptions, LikelihoodKind
from rl.data.problems import Problem
from rl.data.prompts import Encoder
from rl.data.rows import DataError
from rl.data.tickets import TicketKind, sample_uid
from rollout.branching import Tree
from rollout.options import DenoisingOptions, SamplerOptions
from rollout.worker import Completions, Recording, RolloutWorker

if TYPE_CHECKING:  # the driver asks about prompts and samplers, and needs no torch for that
    import torch
    from torch import nn

    from models.policy import Policy
    from rl.likelihood.protocol import Likelihood


@dataclass(frozen=True)
class Verdicts:
    """What is said of some completions of one problem."""

    reference: str | None
    """Its right answer, where the data have one."""
    scores: list[str]
    """A line for each completion: what it is worth, or why that is not known. Empty: there is no reward."""


Judge = Callable[[Problem, Sequence[Any], "Sequence[list[int]] | None"], Verdicts]
"""(problem, completions, their tokens) -> what is said of them."""


@dataclass(frozen=True)
class ShowOptions:
    """Arguments of `denoiserl sample`."""

    count: int = 1
    """Completions of each problem."""
    greedy: bool = False
    steps: bool = False
    """Also the states on the way."""
    output: Path | None = None
    short: bool = False
    """Texts: the completions alone."""
    judge: Judge | None = None

    def verdicts(self, problem: Problem, outputs: Sequence[Any], ids: Sequence[list[int]] | None) -> Verdicts:
        return Verdicts(None, [""] * len(outputs)) if self.judge is None else self.judge(problem, outputs, ids)


@dataclass(frozen=True)
class Judged:
    """A folder of kept completions, and what each was worth."""

    folder: Path
    values: np.ndarray
    """(problems,) rewards, or verdicts: 1 solved, 0 not. NaN is not scored."""
    verdicts: bool


def answer_uids(seed: int, answers: Sequence[np.ndarray], problem_id: str) -> np.ndarray:
    """(G,) int64 noise keys of a problem's answers, tokens or pixels.

    Raises:
        DataError: the chosen and the rejected one are equal.
    """
    if len(answers) == 2 and np.array_equal(answers[0], answers[1]):
        raise DataError(
            f"{problem_id}: the chosen and the rejected answer are the same, so there is nothing to prefer: remove the "
            f"row"
        )
    return np.array([sample_uid(seed, 0, sample) for sample in range(len(answers))], np.int64)


class Modality(Encoder, Protocol):
    """Made from a configuration; reads small files of the checkpoint only when it must."""

    def check(self) -> None:
        """Refuses options that cannot work with this checkpoint, and a checkpoint whose weights are not all there."""
        ...

    def sampler(self, kind: TicketKind) -> SamplerOptions | DenoisingOptions:
        """How samples of a ticket are made; a greedy evaluation has no randomness beyond the first noise."""
        ...

    def tree(self, update: int) -> Tree | None:
        """How the samples of a training prompt branch in an update; None if they share nothing."""
        ...

    def groups_per_prompt(self, kind: TicketKind) -> int:
        """One, unless every step of a prompt's chain is a group."""
        ...

    def rollout_worker(self, device: torch.device) -> RolloutWorker: ...

    def policy(self, device: torch.device) -> Policy:
        """The trained network, with adapters if the options ask for them."""
        ...

    def likelihood(self, policy: Policy, device: torch.device) -> Likelihood:
        """The one that `algorithm.likelihood` asks for."""
        ...

    def value_network(self, device: torch.device) -> nn.Module:
        """What `Replay.values` of this modality evaluates; it says 0 of every state."""
        ...

    def exact_replay(self, policy: Policy, device: torch.device) -> Likelihood | None:
        """Reproduces what a rollout recorded; None if there is no rollout, or none that draws anything."""
        ...

    def finished(self, completions: Completions) -> np.ndarray:
        """(samples,) bool: ended by itself, not cut off at a length limit."""
        ...

    def made_up(self, samples: int) -> Completions:
        """What a rollout might give back, for a first call of the rewards."""
        ...

    def cell(self, completion: Any, file: Path) -> str:
        """What a row of a data file holds for a completion: the text itself, or the path of the image.

        Args:
            file: without its extension, where an image is written, in a folder beside the data file.
        """
        ...

    def rollout_metrics(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        """What the samples of an update, or of an evaluation, were like, from the workers' sums."""
        ...

    def keep_pictures(self, prompts: list[str], completions: Completions, folder: Path) -> None:
        """Writes some completions into `folder`, if they are something to look at."""
        ...

    def compare_pictures(self, before: Judged, after: Judged, target: Path) -> None:
        """Draws the completions kept of an earlier and of a later policy side by side, if there are any."""
        ...

    def show(
        self, weights: PackedWeights | None, problems: list[Problem], options: ShowOptions, console: Console
    ) -> None:
        """Generates and shows completions of the problems."""
        ...

    def export(self, weights: PackedWeights, target: Path, adapter_only: bool, half: bool) -> str:
        """Writes the policy for other tools; returns what it wrote."""
        ...


def recording_of(algorithm: AlgorithmOptions, kind: TicketKind) -> Recording:
    """What the rollout of a ticket must record for the algorithm, whatever the modality; the samples of
    evaluations and preference pairs are known by their completions."""
    if kind is not TicketKind.train:
        return Recording(trajectories=False)
    return Recording(
        estimates=algorithm.advantage is AdvantageKind.per_step,
        proposals=algorithm.likelihood.kind is LikelihoodKind.proposals,
    )

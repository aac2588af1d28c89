"""Problems as the policy and the reward see them: its prompt for one, text and columns for the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from rewards.conversation import Prompt
from rewards.options import RewardTerm
from rewards.registry import check_columns
from rl.data.problems import Problem, ProblemSource
from rollout.trajectory import Trajectory


class Encoder(Protocol):
    """What a modality makes of problems."""

    def prompt(self, problem: Problem) -> Any:
        """What the policy is conditioned on. Raises DataError for a prompt beyond the model's limits."""
        ...

    def offline_group(self, problem: Problem, seed: int, update: int) -> Trajectory:
        """What the data hold for `problem`: a group of one demonstration, or of the chosen and the rejected answer.

        Args:
            seed: of the group; the corruption noise of each answer has a key of its own that follows from it.

        Raises:
            DataError: an answer is beyond the model's limits, or the two are the same.
        """
        ...


class PromptSource:
    def __init__(self, problems: ProblemSource, encoder: Encoder) -> None:
        self.problems = problems
        self.encoder = encoder

    def check(self, scored: bool = True) -> None:
        """Encode at most 256 problems, so that limits that do not suit the data are an error before anything starts.

        Args:
            scored: rewards will see the problems, so that no row may lack a column.

        Raises:
            DataError: a prompt is too long, or cannot be rendered, or a column is missing; names it.
        """
        for index in self.problems.spread():
            self.encoded(index)
        if scored:
            self.problems.check_columns()

    def check_rewards(self, terms: Mapping[str, RewardTerm]) -> None:
        """Raises RewardError where a term cannot be called on the problems, for want of a column."""
        for name, term in terms.items():
            check_columns(name, term, self.problems[0].columns)

    def check_offline_groups(self) -> None:
        """The same for what offline training shows; raises DataError."""
        for index in self.problems.spread():
            self.encoder.offline_group(self.problems[index], seed=0, update=0)

    def encoded(self, index: int) -> Any:
        """What the policy is conditioned on."""
        return self.encoder.prompt(self.problems[index])

    def columns(self, indices: Sequence[int], samples: int) -> tuple[list[Prompt], dict[str, list[Any]]]:
        """Prompts and dataset columns of each sample, problems one behind the other, for reward functions."""
        problems = [problem for index in indices for problem in [self.problems[index]] * samples]
        names = problems[0].columns.keys()
        return [p.shown for p in problems], {name: [p.columns.get(name) for p in problems] for name in names}


class PerturbedSource(PromptSource):
    """The policy sees each problem's perturbed prompt, rewards see the problem itself."""

    def encoded(self, index: int) -> Any:
        problem = self.problems[index]
        assert problem.perturbed is not None  # who asks for this source has the template
        return self.encoder.prompt(replace(problem, prompt=problem.perturbed, conversation=None))

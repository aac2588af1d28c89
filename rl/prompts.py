"""Problems as the policy and the reward see them: its prompt for one, text and columns for the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rl.data import ProblemSource
from rl.modality import Modality


class PromptSource:
    def __init__(self, problems: ProblemSource, modality: Modality) -> None:
        self.problems = problems
        self.modality = modality

    def check(self) -> None:
        """Encode at most 256 problems, so that limits that do not suit the data are an error before anything starts.

        Raises:
            DataError: a prompt is too long, or cannot be rendered; names it.
        """
        for index in self.problems.spread():
            self.encoded(index)

    def check_offline_groups(self) -> None:
        """The same for what offline training shows; raises DataError."""
        for index in self.problems.spread():
            self.modality.offline_group(self.problems[index], seed=0, update=0)

    def encoded(self, index: int) -> Any:
        """What the policy is conditioned on."""
        return self.modality.prompt(self.problems[index])

    def columns(self, indices: Sequence[int], samples: int) -> tuple[list[str], dict[str, list[Any]]]:
        """Prompts and dataset columns of each sample, problems one behind the other, for reward functions."""
        problems = [problem for index in indices for problem in [self.problems[index]] * samples]
        names = problems[0].columns.keys()
        return [p.prompt for p in problems], {name: [p.columns.get(name) for p in problems] for name in names}


class PerturbedSource(PromptSource):
    """The policy sees each problem's perturbed prompt, rewards see the problem itself."""

    def encoded(self, index: int) -> Any:
        problem = self.problems[index]
        assert problem.perturbed is not None  # who asks for this source has the template
        return self.modality.prompt(replace(problem, prompt=problem.perturbed))

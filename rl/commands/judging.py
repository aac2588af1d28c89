"""What `denoiserl sample` says of a completion beside itself: the reference of its problem, and its reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.environment import check_environment
from configs.errors import ConfigError
from configs.schema import Config
from rewards.registry import RewardError, check_columns
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import ScoreRequest
from rl.data.problems import Problem
from rl.modality.protocol import Verdicts
from rl.run.solved import solved_of

REFERENCE_COLUMNS = ("answer", "solution")
"""Where a row without a demonstration may have its right answer, the first of them that holds a text or a number."""


class Judge:
    """Scores as a run does, in a child process that starts with the first completions. Where that is not possible the
    verdict says why: samples can be looked at without it."""

    def __init__(self, config: Config) -> None:
        self._options = config.reward
        self._scorer: Scorer | None = None

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        if self._scorer is not None:
            self._scorer.stop()

    def __call__(self, problem: Problem, outputs: Sequence[Any], ids: Sequence[list[int]] | None) -> Verdicts:
        return Verdicts(reference(problem), self._scored(problem, outputs, ids))

    def _scored(self, problem: Problem, outputs: Sequence[Any], ids: Sequence[list[int]] | None) -> list[str]:
        count = len(outputs)
        if not self._options.terms:
            return [""] * count
        try:
            check_environment(self._options)
            for name, term in self._options.terms.items():
                check_columns(name, term, problem.columns)
            if self._scorer is None:
                self._scorer = Scorer(self._options)
                self._scorer.start()
        except (RewardError, ConfigError) as error:
            return [f"not scored: {error}"] * count
        columns = {name: [value] * count for name, value in problem.columns.items()}
        known = None if ids is None else [list(map(int, each)) for each in ids]
        scores = self._scorer.score(ScoreRequest([problem.shown] * count, list(outputs), known, columns))
        grouped = {name: values[None] for name, values in scores.terms.items()}
        solved = solved_of(scores.total[None], grouped, self._options)
        why = {failure.index: f"{failure.term}: {failure.message}" for failure in reversed(scores.failures)}
        lines = []
        for sample in range(count):
            if np.isnan(scores.total[sample]):
                lines.append(f"not scored: {why.get(sample, 'no term applies')}")
                continue
            terms = [f"{name} {values[sample]:.4g}" for name, values in scores.terms.items()]
            parts = f" ({', '.join(terms)})" if len(terms) > 1 else ""
            verdict = "" if solved is None else ", solved" if solved[0, sample] == 1 else ", not solved"
            lines.append(f"reward {scores.total[sample]:.4g}{parts}{verdict}")
        return lines


def reference(problem: Problem) -> str | None:
    """The right answer that the data have: a demonstration, or the first column that is known for it."""
    if problem.responses:
        return problem.responses[0]
    found = (problem.columns.get(name) for name in REFERENCE_COLUMNS)
    return next((str(value) for value in found if isinstance(value, str | int | float)), None)

"""Problems as the policy and the reward see them: token ids for one, text and columns for the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from configs.schema import DataOptions
from rl.data import Problems
from rl.encode import encode_prompt


class PromptSource:
    def __init__(self, problems: Problems, tokenizer: PreTrainedTokenizerBase, options: DataOptions) -> None:
        self.problems = problems
        self.tokenizer = tokenizer
        self.options = options

    def check(self) -> None:
        """Encode at most 256 problems, so that limits that do not suit the data are an error before anything starts.

        Raises:
            DataError: a prompt is longer than data.max_prompt_tokens, or cannot be rendered; names it.
        """
        for index in self.problems.spread():
            self.encoded(index)

    def encoded(self, index: int) -> np.ndarray:
        """(P,) int32"""
        problem = self.problems[index]
        return encode_prompt(
            self.tokenizer, problem.prompt, self.options.system_prompt, self.options.max_prompt_tokens, problem.id
        )

    def columns(self, indices: Sequence[int], samples: int) -> tuple[list[str], dict[str, list[Any]]]:
        """Prompts and dataset columns of each sample, problems one behind the other, for reward functions."""
        problems = [self.problems[index] for index in indices for _ in range(samples)]
        names = problems[0].columns.keys()
        return [p.prompt for p in problems], {name: [p.columns.get(name) for p in problems] for name in names}

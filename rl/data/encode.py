"""Text to tokens: prompts through the tokenizer's chat template, demonstrations up to their stop token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import jinja2
import numpy as np

from rl.data.problems import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    system_prompt: str | None,
    max_tokens: int,
    problem_id: str = "prompt",
) -> np.ndarray:
    """The tokens that a completion follows: system and user message, then the header of the assistant's turn.

    Returns:
        (P,) int32.

    Raises:
        DataError: longer than `max_tokens`, or the tokenizer's chat template refuses the messages.
    """
    messages = [{"role": "user", "content": prompt}]
    if system_prompt is not None:
        messages.insert(0, {"role": "system", "content": system_prompt})
    try:
        # transformers 5 returns a BatchEncoding unless told otherwise.
        encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    except (jinja2.TemplateError, ValueError) as error:
        raise DataError(f"{problem_id}: the tokenizer's chat template cannot be applied: {error}") from error
    ids = cast("list[int]", encoded)
    return _checked(ids, max_tokens, f"the prompt of {problem_id}", "data.max_prompt_tokens")


def encode_response(
    tokenizer: PreTrainedTokenizerBase,
    response: str,
    stop_ids: Sequence[int],
    max_tokens: int,
    problem_id: str = "response",
) -> np.ndarray:
    """A demonstration's tokens and the first of the model's stop tokens, which teaches where to end.

    Returns:
        (R,) int32, R >= 1.

    Raises:
        DataError: longer than `max_tokens`, the stop token included.
    """
    ids = [*tokenizer.encode(response, add_special_tokens=False), stop_ids[0]]
    return _checked(ids, max_tokens, f"the response of {problem_id}", "rollout.sampler.max_new_tokens")


def _checked(ids: Sequence[int], max_tokens: int, what: str, option: str) -> np.ndarray:
    if len(ids) > max_tokens:
        raise DataError(
            f"{what} has {len(ids)} tokens, more than {option}={max_tokens}: raise the limit or remove the problem"
        )
    return np.asarray(ids, dtype=np.int32)

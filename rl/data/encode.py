"""Text to tokens: prompts through the tokenizer's chat template, demonstrations up to their stop token.

Data are text. What a row spells like a control token, such as `<|mask|>`, is encoded as the characters it has; control
tokens come from the chat template alone (`rl.data.control_tokens`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, cast

import jinja2
import numpy as np

from rl.data.control_tokens import ControlTokens
from rl.data.conversation import Conversation, Value
from rl.data.rows import DataError, TooLongError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Value,
    system_prompt: str | None,
    max_tokens: int,
    problem_id: str = "prompt",
    control_ids: Collection[int] = (),
) -> np.ndarray:
    """The tokens that a completion follows: the messages, or system and user message, then the header of the
    assistant's turn. A conversation whose last message is the assistant's ends inside that message.

    Args:
        control_ids: of the model (mask, padding, stop), beside the special tokens of the tokenizer.

    Returns:
        (P,) int32.

    Raises:
        DataError: longer than `max_tokens`; the chat template refuses the messages; a text begins or ends with a
            control token; the data have a system message and `system_prompt` is another.
    """
    conversation = prompt if isinstance(prompt, Conversation) else Conversation(({"role": "user", "content": prompt},))
    what = f"the prompt of {problem_id}"
    messages: list[dict[str, Any]] = [*conversation.messages]
    if system_prompt is not None:
        if messages[0]["role"] in ("system", "developer"):
            raise DataError(f"{what} has a system message, and data.system_prompt is another one: set that to null")
        messages.insert(0, {"role": "system", "content": system_prompt})
    control = ControlTokens(tokenizer, control_ids)
    marked = control.marked([message["content"] for message in messages], what)
    continued = messages[-1]["role"] == "assistant"
    try:
        # transformers 5 returns a BatchEncoding unless told otherwise.
        encoded = tokenizer.apply_chat_template(
            [{**message, "content": text} for message, text in zip(messages, marked.texts, strict=True)],
            add_generation_prompt=not continued,
            continue_final_message=continued,
            tokenize=not marked.any,
            return_dict=False,
            **conversation.options,
        )
    except (jinja2.TemplateError, ValueError, TypeError) as error:
        raise DataError(f"{problem_id}: the tokenizer's chat template cannot be applied: {error}") from error
    ids = control.encoded(cast("str", encoded), marked, what) if marked.any else cast("list[int]", encoded)
    return _checked(ids, max_tokens, what, "data.max_prompt_tokens")


def encode_response(
    tokenizer: PreTrainedTokenizerBase,
    response: str,
    stop_ids: Sequence[int],
    max_tokens: int,
    problem_id: str = "response",
    control_ids: Collection[int] = (),
    name: str = "response",
) -> np.ndarray:
    """A demonstration's tokens and the first of the model's stop tokens, which teaches where to end.

    Args:
        control_ids: of the model (mask, padding), beside `stop_ids` and the special tokens of the tokenizer.
        name: which answer of the problem it is, for messages.

    Returns:
        (R,) int32, R >= 1; the last is the only control token.

    Raises:
        DataError: longer than `max_tokens`, the stop token included; it begins or ends with a control token.
    """
    what = f"the {name} of {problem_id}"
    ids = [*ControlTokens(tokenizer, {*control_ids, *stop_ids}).plain(response, what), stop_ids[0]]
    return _checked(ids, max_tokens, what, "rollout.sampler.max_new_tokens")


def _checked(ids: Sequence[int], max_tokens: int, what: str, option: str) -> np.ndarray:
    if len(ids) > max_tokens:
        raise TooLongError(
            f"{what} has {len(ids)} tokens, more than {option}={max_tokens}: raise the limit, remove the problem, or "
            f"leave out all that are too long, with data.too_long=leave_out"
        )
    return np.asarray(ids, dtype=np.int32)

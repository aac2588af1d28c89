"""Chat messages in the columns of a data set, in TRL's formats: prompts, answers, and answers that hold their prompt.

TRL's own helpers (`trl.data_utils`) are the model, and the tests hold this against them. They are not called: importing
them loads torch into the driver, and `extract_prompt` looks at the last character of two texts that differ in their
first, and at no row's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewards.conversation import Message, text_of
from rl.data.rows import DataError, Row

ROLES = ("system", "developer", "user", "assistant", "tool")
ANSWER_KEYS = {"role", "content"}


@dataclass(frozen=True)
class Conversation:
    """What a chat template is applied to."""

    messages: tuple[Message, ...]
    """At least one. A last one of the assistant is continued."""
    options: dict[str, Any] = field(default_factory=dict)
    """The template's `tools`, and what the column `chat_template_kwargs` gives it."""

    @property
    def text(self) -> str:
        return text_of(list(self.messages))

    @property
    def mark(self) -> str:
        """Equal for conversations that a model sees alike."""
        return json.dumps([self.messages, self.options], sort_keys=True, default=repr)


Value = str | Conversation
"""What a template makes of a row."""


def looks_like_messages(value: Any) -> bool:
    """A list of mappings with a role, right or wrong in detail; ShareGPT's `from` and `value`, too."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(message, Mapping) and {"role", "from"} & message.keys() for message in value)
    )


def conversation(value: Sequence[Any], row: Row, where: str) -> Conversation:
    """The messages as plain data, without the empty keys that tables of messages have; tools of the row beside them.

    Args:
        where: names row and column.

    Raises:
        DataError: a message is none that a chat template of texts can take.
    """
    messages = tuple(_message(message, f"{where}, message {index},") for index, message in enumerate(value))
    return Conversation(messages, _options(row, where))


def check_prompt(prompt: Conversation, where: str) -> None:
    """Raises DataError where there is nothing to answer, or to continue."""
    if (last := prompt.messages[-1]["role"]) not in ("user", "tool", "assistant"):
        raise DataError(f"{where} ends with a message of the {last}, which nobody answers: end it with one of the user")


def _message(message: Mapping[str, Any], where: str) -> Message:
    if "role" not in message:
        raise DataError(
            f"{where} has the keys {', '.join(map(str, message))}: name them `role` and `content`, as "
            f"trl.maybe_convert_to_chatml does"
        )
    plain = {str(key): _plain(value) for key, value in message.items() if value is not None}
    role = plain.get("role")
    if role not in ROLES:
        shown = repr(role) if isinstance(role, str | None) else f"of type {type(role).__name__}"
        raise DataError(f"{where} has the role {shown}; chat templates know {', '.join(ROLES)}")
    content = plain.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        plain["content"] = content = "".join(_text(part.get("text"), where) for part in content)
    if content is None and role == "assistant" and plain.get("tool_calls"):
        return {**plain, "content": ""}
    plain["content"] = _text(content, where)
    return plain


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    raise DataError(f"{where} has a content of type {type(content).__name__}; a text, or parts of type text, is needed")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items() if part is not None}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _options(row: Row, where: str) -> dict[str, Any]:
    """TRL's columns beside messages."""
    options = _plain(row.get("chat_template_kwargs") or {})
    if not isinstance(options, dict):
        raise DataError(f"{where} has chat_template_kwargs of type {type(options).__name__} beside it, not a mapping")
    if tools := row.get("tools"):
        try:
            options["tools"] = json.loads(tools) if isinstance(tools, str) else _plain(tools)
        except ValueError as error:
            raise DataError(f"{where} has tools beside it that are not JSON: {error}") from error
    return options


def answer_text(value: Value, where: str) -> str:
    """An answer's text: itself, or the content of one message of the assistant.

    What a model writes after the header of its turn is that content and a stop token, so an answer in messages has the
    tokens of the same answer as text.

    Raises:
        DataError: it is another message, or more than that, which would be lost.
    """
    if isinstance(value, str):
        return value
    roles = [message["role"] for message in value.messages]
    if roles != ["assistant"]:
        raise DataError(
            f"{where} has messages of {', '.join(roles)}, and an answer is one of the assistant: if the prompt is "
            f"among them, set the option `prompt` of the source to null, which takes it out of the answers"
        )
    (message,) = value.messages
    if further := sorted(message.keys() - ANSWER_KEYS):
        raise DataError(
            f"{where} has {', '.join(further)} beside its content, which would not be trained: write it into the "
            f"content, in the model's own form"
        )
    return message["content"]


def without_prompt(answers: Sequence[Value], where: str) -> tuple[Value, list[Value]]:
    """The prompt that answers have in common, and what is left of each: TRL's formats with an implicit prompt.

    Of a demonstration the prompt is all but the last message. Of a pair of conversations it is the messages that both
    begin with; of a pair of texts the text that both begin with, without a space at its end (`trl.extract_prompt`).

    Raises:
        DataError: there is no prompt among them.
    """
    texts = [answer for answer in answers if isinstance(answer, str)]
    several = [answer.messages for answer in answers if isinstance(answer, Conversation)]
    if texts and several:
        raise DataError(f"{where}: a text and messages have no prompt in common; make them the same kind")
    if len(texts) == 1:
        raise DataError(f"{where}: nothing in a text tells its prompt: set the option `prompt` of the source")
    if texts:
        length = _common(*texts)
        length -= 0 < length < min(map(len, texts)) and texts[0][length - 1] == " "
        return texts[0][:length], [text[length:] for text in texts]
    shared = _common(*several) if len(several) > 1 else len(several[0])
    length = min(shared, *(len(messages) - 1 for messages in several))  # something is left to answer
    if length == 0:
        raise DataError(f"{where}: they begin with no message in common: set the option `prompt` of the source")
    assert isinstance(answers[0], Conversation)
    prompt = Conversation(several[0][:length], answers[0].options)
    return prompt, [Conversation(messages[length:]) for messages in several]


def _common(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many elements both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(first), len(second)))

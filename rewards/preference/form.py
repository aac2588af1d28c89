"""A prompt and an answer as the tokens that a preference model reads: the same for training and for scoring.

With a chat template: the prompt as the template shows it, with the header of the assistant's turn, then the answer and
the stop token, as a rollout has it. Without one: both as the tokenizer joins two texts. Control tokens that an answer
spells are encoded as the characters that they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any

from rewards.conversation import Prompt, messages_of, text_of
from rewards.segments import sentences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Segments(Enum):
    """What of a sample is scored by itself; its score is the mean (LongAlign, arXiv 2410.11817)."""

    none = "none"
    """Prompt and answer together."""
    answer = "answer"
    """Each sentence of the answer, behind the prompt; a sentence that is too long in parts."""
    prompt = "prompt"
    """The whole answer behind each sentence of the prompt's last message."""


class TextError(ValueError):
    """A sample that the model cannot read; the message says why."""


class Form:
    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int, segments: Segments) -> None:
        """
        Args:
            max_tokens: the model's, of prompt and answer together.
        """
        self.tokenizer, self.max_tokens, self.segments = tokenizer, max_tokens, segments
        self._plain: Any = copy.deepcopy(tokenizer)  # `split_special_tokens` is a state of a tokenizer
        added = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
        self._special = (added | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}

    def ids(self, prompt: Prompt, answer: str) -> list[list[int]]:
        """Tokens of each segment of a sample, one at least.

        Raises:
            TextError: it is too long, or the prompt spells a control token.
        """
        if self._special & set(self.tokenizer.encode(text_of(prompt), add_special_tokens=False)):
            raise TextError("its prompt spells a control token of the tokenizer: remove it from the text")
        if self.segments is Segments.none:
            return [self._checked(self._joined(prompt, answer))]
        if self.segments is Segments.answer:
            parts = self._parts(answer, lambda part: self._joined(prompt, part))
            return [self._checked(self._joined(prompt, part)) for part in parts]
        *before, last = messages_of(prompt)

        def shown(part: str) -> Prompt:
            return [*before, {**last, "content": part}]

        parts = self._parts(last["content"], lambda part: self._joined(shown(part), answer))
        return [self._checked(self._joined(shown(part), answer)) for part in parts]

    def _parts(self, text: str, joined: Callable[[str], list[int]]) -> list[str]:
        try:
            return sentences(text, lambda part: len(joined(part)) <= self.max_tokens) or [text]
        except ValueError as error:
            raise TextError(f"it cannot be cut into parts of {self.max_tokens} tokens: {error}") from error

    def _joined(self, prompt: Prompt, answer: str) -> list[int]:
        tokenizer, stop = self.tokenizer, self.tokenizer.eos_token_id
        if tokenizer.chat_template is None:
            ids = self._plain(text_of(prompt), answer, split_special_tokens=True)["input_ids"]
            return ids if stop is None or ids[-1] == stop or tokenizer.sep_token_id is not None else [*ids, stop]
        shown = tokenizer.apply_chat_template(messages_of(prompt), tokenize=False, add_generation_prompt=True)
        ids = [*tokenizer.encode(shown, add_special_tokens=False), *self._spelled(answer)]
        return ids if stop is None else [*ids, stop]

    def _spelled(self, text: str) -> list[int]:
        return self._plain.encode(text, add_special_tokens=False, split_special_tokens=True)

    def _checked(self, ids: list[int]) -> list[int]:
        if len(ids) > self.max_tokens:
            raise TextError(
                f"prompt and answer have {len(ids)} tokens, more than the {self.max_tokens} that the model reads"
            )
        return ids

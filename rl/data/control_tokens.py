"""Control tokens that a text of the data spells: mask, stop, padding, and what else a tokenizer calls special.

A tokenizer reads `<|mask|>` in a text as MASK. In an answer that is a position which can never be right, a stop token
in the middle trains what can never be generated, and in a prompt either would end or forge a turn. So the characters
are encoded as characters. Text that begins or ends with such a token is refused, for it has been through a chat
template, or was closed by hand, and would be so twice.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rl.data.rows import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NEVER_TEXT = [chr(code) for code in range(0xFDD0, 0xFDF0)]
"""Characters that Unicode keeps out of texts that are exchanged."""


@dataclass(frozen=True)
class Marked:
    """Texts in which whatever spells a control token stands between two characters that are in none of them."""

    texts: list[str]
    opening: str = ""
    closing: str = ""

    @property
    def any(self) -> bool:
        return bool(self.opening)


class ControlTokens:
    def __init__(self, tokenizer: PreTrainedTokenizerBase, ids: Collection[int] = ()) -> None:
        """
        Args:
            ids: of the model's own, whether or not the tokenizer calls them special.
        """
        self._tokenizer = tokenizer
        self._ids = _special_ids(tokenizer) | frozenset(ids)

    def plain(self, text: str, what: str) -> list[int]:
        """Tokens of a text, none of which is a control token.

        Raises:
            DataError: it begins or ends with one, or the tokenizer has no other tokens for its characters.
        """
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        if self._ids.isdisjoint(ids):
            return ids
        self._spans(text, what)
        return self._spelled(text, what)

    def marked(self, texts: Sequence[str], what: str) -> Marked:
        """Texts for a chat template, whose own control tokens are to be told from those that they spell."""
        spans = {index: found for index, text in enumerate(texts) if (found := self._spans(text, what))}
        if not spans:
            return Marked(list(texts))
        opening, closing = _unused("".join(texts), what)
        marked = list(texts)
        for index, found in spans.items():
            for start, end in reversed(found):
                text = marked[index]
                marked[index] = f"{text[:start]}{opening}{text[start:end]}{closing}{text[end:]}"
        return Marked(marked, opening, closing)

    def encoded(self, rendered: str, marked: Marked, what: str) -> list[int]:
        """Tokens of what a chat template made of marked texts: control tokens are those outside the marks."""
        first, *others = rendered.split(marked.opening)
        ids = self._tokenizer.encode(first, add_special_tokens=False)
        for part in others:
            spelled, behind = part.split(marked.closing)
            ids += self._spelled(spelled, what) + self._tokenizer.encode(behind, add_special_tokens=False)
        return ids

    def _spans(self, text: str, what: str) -> list[tuple[int, int]]:
        """Where a text spells control tokens, in order."""
        if self._ids.isdisjoint(self._tokenizer.encode(text, add_special_tokens=False)):
            return []
        encoding = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
        spans = [tuple(span) for token, span in offsets if token in self._ids]
        if not text[: spans[0][0]].strip() or not text[spans[-1][1] :].strip():
            place, (start, end) = ("begins", spans[0]) if not text[: spans[0][0]].strip() else ("ends", spans[-1])
            raise DataError(
                f"{what} {place} with the control token {text[start:end].strip()!r}: it seems to have been through a "
                f"chat template already, and goes through one here, where answers also get their stop token: remove "
                f"the token from the row, or in the source's template with `| replace`"
            )
        return spans

    def _spelled(self, text: str, what: str) -> list[int]:
        ids = _without_special(self._tokenizer).encode(text, add_special_tokens=False, split_special_tokens=True)
        if held := self._ids.intersection(ids):
            token = self._tokenizer.convert_ids_to_tokens(min(held))
            raise DataError(
                f"{what} has {text[:80]!r} in it, which the tokenizer can write as the control token {token!r} only: "
                f"remove it from the row, or in the source's template with `| replace`"
            )
        return ids


@lru_cache(maxsize=4)
def _special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Without the token for unknown characters, which are text."""
    added = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.special}
    return frozenset(added | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}


@lru_cache(maxsize=4)
def _without_special(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy: `split_special_tokens` is a state of the tokenizer, and another thread may be encoding with it."""
    return copy.deepcopy(tokenizer)


def _unused(text: str, what: str) -> tuple[str, str]:
    free = [character for character in NEVER_TEXT if character not in text]
    if len(free) < 2:
        raise DataError(f"{what} has nearly all of the characters U+FDD0 to U+FDEF in it, which are no text")
    return free[0], free[1]

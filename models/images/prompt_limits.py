"""The tokenizers of an image pipeline, and how long a prompt each of its text encoders reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import transformers
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from models.files import CheckpointError
from models.images.prompt_segments import split


class PromptTooLongError(ValueError):
    """A prompt that a text encoder would cut off."""


class ControlTokenError(ValueError):
    """A prompt that spells a control token, at which a text encoder would take it for ended."""


class PromptLimits:
    """How many tokens of a prompt each text encoder reads, and in how many segments."""

    def __init__(
        self, tokenizers: Mapping[str, PreTrainedTokenizerBase], t5: str | None, t5_tokens: int, segments: int = 1
    ) -> None:
        """
        Args:
            tokenizers: by their names in the pipeline; `model_max_length` is what their encoders read.
            t5: the name of a T5's tokenizer, which reads `t5_tokens` instead.
            segments: of a prompt, at most; with 1 a prompt is read whole or refused.
        """
        self.segments = segments
        self._tokenizers = tokenizers
        self._limits = {
            name: ("model.max_sequence_length", t5_tokens)
            if name == t5
            else (f"its {name}", tokenizer.model_max_length)
            for name, tokenizer in tokenizers.items()
        }

    def check(self, prompt: str) -> None:
        """What the stock pipelines do without a word.

        Raises:
            PromptTooLongError: an encoder would cut the prompt off.
            ControlTokenError: an encoder would read a part of it as a control token: CLIP sums a text up at the first
                `<|endoftext|>`.
        """
        for name, tokenizer in self._tokenizers.items():
            for token in tokenizer.all_special_tokens:
                if token.casefold() in prompt.casefold():  # CLIP writes everything small first
                    raise ControlTokenError(
                        f"prompt {prompt!r} has {token!r} in it, a control token of its {name}: remove it"
                    )
        self.split(prompt)

    def split(self, prompt: str) -> list[str]:
        """The prompt as texts that every encoder reads whole.

        Raises:
            PromptTooLongError: they would be more than `segments`, or an encoder would cut one word off.
        """
        if self.segments == 1:
            if excess := self._excess(prompt):
                raise PromptTooLongError(
                    f"prompt {prompt!r} {excess}, and the rest would not be seen; shorten it, or let Stable Diffusion "
                    "1, 2 or XL read it in segments (model.prompt_segments)"
                )
            return [prompt]
        parts = split(prompt, lambda text: self._excess(text) is None, self.segments)
        for part in parts:
            if excess := self._excess(part):
                raise PromptTooLongError(
                    f"prompt {prompt!r} is split between words, and the word {part!r} alone {excess}; shorten it"
                )
        if len(parts) > self.segments:
            raise PromptTooLongError(
                f"prompt {prompt!r} has {self.tokens(prompt)} tokens with the special ones, which takes {len(parts)} "
                f"segments, but model.prompt_segments allows {self.segments}, and the rest would not be seen; set it "
                f"to {len(parts)}, or shorten the prompt"
            )
        return parts

    def tokens(self, text: str) -> int:
        """Of a text, the special ones included, by the tokenizer that makes most of it."""
        return max(self._lengths(text).values())

    def _lengths(self, text: str) -> dict[str, int]:
        # verbose=False: no warning about texts that are then split or refused.
        return {name: len(tokenizer(text, verbose=False).input_ids) for name, tokenizer in self._tokenizers.items()}

    def _excess(self, text: str) -> str | None:
        """What is too much for the first encoder that would cut the text off."""
        for name, length in self._lengths(text).items():
            authority, limit = self._limits[name]
            if length > limit:
                return f"has {length} tokens with the special ones, but {authority} allows {limit}"
        return None


def load_prompt_tokenizer(folder: Path, class_name: str, encoder: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, checked against the configuration of the text encoder behind it.

    Raises:
        CheckpointError: no tokenizer files (transformers would make an empty one), unreadable ones, or another
            encoder's.
    """
    tokenizer_class = getattr(transformers, class_name)
    own_files = [file for kind, file in tokenizer_class.vocab_files_names.items() if kind != "tokenizer_file"]
    if not (folder / "tokenizer.json").is_file() and not (
        own_files and all((folder / file).is_file() for file in own_files)
    ):
        raise CheckpointError(f"{folder}: no tokenizer: {' with '.join(own_files)} or tokenizer.json is needed")
    try:
        tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise CheckpointError(f"{folder}: unreadable tokenizer: {error}") from error
    ids, rows = max(tokenizer.get_vocab().values()) + 1, encoder.vocab_size
    if ids > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has ids up to {ids - 1}, but its text encoder's embedding has {rows} rows; this "
            "is the tokenizer of another checkpoint"
        )
    # T5 has no positions to run out of; its limit is an option.
    positions = getattr(encoder, "max_position_embeddings", None)
    if positions is not None and tokenizer.model_max_length > positions:
        raise CheckpointError(
            f"{folder / 'tokenizer_config.json'} says model_max_length={tokenizer.model_max_length}, but the text "
            f"encoder has positions for {positions} tokens; set it to that"
        )
    return tokenizer

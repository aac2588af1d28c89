"""Prompts to conditions, by the stock pipeline's own `encode_prompt`; a long prompt segment by segment."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.images.families import ImageFamily
from models.images.prompt_limits import PromptLimits
from models.images.prompt_segments import joined
from models.images.spec import Condition


class PromptEncoder:
    """The text encoders of one pipeline."""

    def __init__(
        self,
        family: ImageFamily,
        pipeline: Any,
        limits: PromptLimits,
        t5_tokens: int,
        original: PromptEncoder | None = None,
        share: float = 1.0,
    ) -> None:
        """
        Args:
            pipeline: of the family's class; only its tokenizers and text encoders are used.
            t5_tokens: to which T5 pads every prompt, in families that have one.
            original, share: encode as share e + (1 - share) e_original, e being this pipeline's encoding and
                e_original that of `original` (TextCraftor, arXiv 2403.18978).
        """
        self._family = family
        self._pipeline = pipeline
        self._limits = limits
        self._t5_tokens = t5_tokens
        self._original = original
        self._share = share

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        """By their names in the pipeline."""
        found = {name: getattr(self._pipeline, name) for name in self._family.encoders.values()}
        return {name: encoder for name, encoder in found.items() if encoder is not None}

    def encode(self, prompts: list[str]) -> Condition:
        """The condition of each prompt; it does not depend on the other prompts. Trained encoders get a gradient.

        The empty prompt stands for no prompt, the unconditional half of classifier-free guidance, as the stock pipeline
        makes it: zeros for an SDXL whose model_index.json says force_zeros_for_empty_prompt.

        Returns:
            fp32 tensors on the encoders' device: T tokens a prompt, or `limits.segments` times as many.

        Raises:
            PromptTooLongError: an encoder would cut a prompt off.
        """
        if not prompts:
            raise ValueError("no prompts to encode")
        segments = {prompt: self._limits.split(prompt) for prompt in dict.fromkeys(prompts)}
        # One at a time: in a batch, the last bits of a row depend on how many others there are.
        empty = self._whole("").embeds if self._limits.segments > 1 else None
        encoded = {prompt: self._encoded(parts, empty) for prompt, parts in segments.items()}
        rows = [encoded[prompt] for prompt in prompts]
        pooled = [row.pooled for row in rows if row.pooled is not None]
        embeds = torch.cat([row.embeds for row in rows]).float()
        condition = Condition(embeds, torch.cat(pooled).float() if pooled else None)
        return condition if self._original is None else self._mixed(condition, self._original.encode(prompts))

    def _encoded(self, segments: list[str], empty: Tensor | None) -> Condition:
        """(1, ...) of one prompt; `empty` is the (1, T, W) of an empty text, None if prompts are read whole."""
        found = [self._whole(segment) for segment in segments]
        if empty is None:
            condition = found[0]
        else:
            lengths = [self._limits.tokens(segment) for segment in segments]
            condition = joined(found, lengths, empty, self._limits.segments)
        if segments == [""] and self._pipeline.config.get("force_zeros_for_empty_prompt"):
            return Condition(condition.embeds * 0, None if condition.pooled is None else condition.pooled * 0)
        return condition

    def _whole(self, text: str) -> Condition:
        """(1, ...) of a text that every encoder reads whole."""
        return self._family.encode(self._pipeline, [text], self._t5_tokens)

    def _mixed(self, tuned: Condition, original: Condition) -> Condition:
        """Exactly the one at share 1, and the other at 0."""
        embeds = self._share * tuned.embeds + (1 - self._share) * original.embeds
        if tuned.pooled is None or original.pooled is None:
            return Condition(embeds, None)
        return Condition(embeds, self._share * tuned.pooled + (1 - self._share) * original.pooled)


def encoding_pipeline(family: ImageFamily, index: Mapping[str, Any], components: Mapping[str, Any]) -> Any:
    """The stock pipeline with these components and nothing else, which is enough for its `encode_prompt`.

    Args:
        index: model_index.json, whose settings the pipeline gets.
    """
    parameters = inspect.signature(family.pipeline_class.__init__).parameters
    absent = {name: None for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty}
    settings = {name: value for name, value in index.items() if name in parameters and not isinstance(value, list)}
    # They would ask for components that have no part in encoding.
    settings |= {name: False for name in ("requires_safety_checker", "add_watermarker") if name in parameters}
    del absent["self"]
    return family.pipeline_class(**(absent | settings | dict(components)))

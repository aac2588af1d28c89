"""Prompts to conditions, by the stock pipeline's own `encode_prompt`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from models.image_families import ImageFamily
from models.image_spec import Condition


class PromptTooLongError(ValueError):
    """A prompt that a text encoder would cut off."""


class PromptEncoder:
    """Frozen text encoders of one pipeline."""

    def __init__(
        self, family: ImageFamily, index: Mapping[str, Any], components: Mapping[str, Any], max_sequence_length: int
    ) -> None:
        """
        Args:
            index: model_index.json, whose settings the pipeline gets.
            components: the pipeline's tokenizers and text encoders by name; the pipeline has nothing else.
            max_sequence_length: tokens that a T5 reads; the other encoders' limits are in their tokenizers.
        """
        self._family = family
        self._tokens = max_sequence_length
        self._limits = {
            tokenizer: max_sequence_length if encoder == family.t5 else components[tokenizer].model_max_length
            for tokenizer, encoder in family.encoders.items()
            if tokenizer in components
        }
        self._pipeline = _pipeline(family, index, components)

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Condition:
        """The condition of each prompt; it does not depend on the other prompts.

        The empty prompt stands for no prompt, the unconditional half of classifier-free guidance, as the stock pipeline
        makes it: zeros for an SDXL whose model_index.json says force_zeros_for_empty_prompt.

        Returns:
            fp32 tensors on the encoders' device.

        Raises:
            PromptTooLongError: an encoder would cut a prompt off.
        """
        if not prompts:
            raise ValueError("no prompts to encode")
        for prompt in prompts:
            self._check_length(prompt)
        # One at a time: in a batch, the last bits of a row depend on how many others there are.
        encoded = {
            prompt: self._family.encode(self._pipeline, [prompt], self._tokens) for prompt in dict.fromkeys(prompts)
        }
        rows = [encoded[prompt] for prompt in prompts]
        pooled = [row.pooled for row in rows if row.pooled is not None]
        return Condition(torch.cat([row.embeds for row in rows]).float(), torch.cat(pooled).float() if pooled else None)

    def _check_length(self, prompt: str) -> None:
        for name, limit in self._limits.items():
            length = len(getattr(self._pipeline, name)(prompt).input_ids)
            if length > limit:
                setting = "model.max_sequence_length" if self._family.encoders[name] == self._family.t5 else name
                raise PromptTooLongError(
                    f"prompt {prompt!r} has {length} tokens with the special ones, but {setting} allows {limit}; "
                    "shorten it: the rest would not be seen"
                )


def _pipeline(family: ImageFamily, index: Mapping[str, Any], components: Mapping[str, Any]) -> Any:
    nothing: dict[str, Any] = dict.fromkeys(
        ["scheduler", "vae", family.denoiser, *family.encoders, *family.encoders.values()]
    )
    if family.name == "sd":
        nothing |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if family.name == "sdxl":
        nothing |= {
            "add_watermarker": False,
            "force_zeros_for_empty_prompt": index.get("force_zeros_for_empty_prompt", True),
        }
    return family.pipeline_class(**(nothing | dict(components)))

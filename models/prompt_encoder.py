"""Prompts to conditions, by the stock pipeline's own `encode_prompt`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from models.image_families import ImageFamily
from models.image_spec import Condition
from models.prompt_limits import PromptLimits


class PromptEncoder:
    """Frozen text encoders of one pipeline."""

    def __init__(self, family: ImageFamily, pipeline: Any, limits: PromptLimits, t5_tokens: int) -> None:
        """
        Args:
            pipeline: of the family's class; only its tokenizers and text encoders are used.
            t5_tokens: to which T5 pads every prompt, in families that have one.
        """
        self._family = family
        self._pipeline = pipeline
        self._limits = limits
        self._t5_tokens = t5_tokens

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
            self._limits.check(prompt)
        # One at a time: in a batch, the last bits of a row depend on how many others there are.
        encoded = {
            prompt: self._family.encode(self._pipeline, [prompt], self._t5_tokens) for prompt in dict.fromkeys(prompts)
        }
        rows = [encoded[prompt] for prompt in prompts]
        pooled = [row.pooled for row in rows if row.pooled is not None]
        return Condition(torch.cat([row.embeds for row in rows]).float(), torch.cat(pooled).float() if pooled else None)


def encoding_pipeline(family: ImageFamily, index: Mapping[str, Any], components: Mapping[str, Any]) -> Any:
    """The stock pipeline with these components and nothing else, which is enough for its `encode_prompt`.

    Args:
        index: model_index.json, whose settings the pipeline gets.
    """
    absent: dict[str, Any] = dict.fromkeys(
        ["scheduler", "vae", family.denoiser, *family.encoders, *family.encoders.values()]
    )
    if family.name == "sd":
        absent |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if family.name == "sdxl":
        absent |= {
            "add_watermarker": False,
            "force_zeros_for_empty_prompt": index.get("force_zeros_for_empty_prompt", True),
        }
    return family.pipeline_class(**(absent | dict(components)))

"""The image model families: which diffusers pipeline a checkpoint is, and how that pipeline calls its network.

One declaration per family. The encoders run inside the stock pipeline's own `encode_prompt`; the calls below repeat
what its `__call__` does around the network, without guidance, and are tested against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    ModelMixin,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from transformers import PreTrainedConfig

from models.families import entered, loaded, plugged
from models.files import CheckpointError
from models.images.spec import Condition, ImageSpec, Prediction


@dataclass(frozen=True)
class NetworkInput:
    """What `ImagePolicy.forward` is given; latents and condition in the network's own precision."""

    latents: Tensor
    time: Tensor
    condition: Condition
    guidance: Tensor | None


NetworkCall = Callable[[ModelMixin, ImageSpec, NetworkInput], Tensor]
PromptCall = Callable[[DiffusionPipeline, "list[str]", int], Condition]
"""(pipeline with its text encoders, prompts, T5 tokens) -> their condition; the empty prompt is a text like others."""
Widths = Callable[[Mapping[str, Any], Sequence[PreTrainedConfig]], Mapping[str, int]]
"""(the network's config.json, the CLIP encoders' configurations) -> what its fields for their outputs must say."""


@dataclass(frozen=True)
class ImageFamily:
    name: str
    pipeline_class: type[DiffusionPipeline]
    denoiser: str
    """The trained network's folder, and its name in the pipeline."""
    network_class: type[ModelMixin]
    predictions: frozenset[Prediction]
    encoders: Mapping[str, str]
    """Tokenizer -> text encoder, by their folders."""
    t5: str | None
    """The text encoder that is a T5: it reads `max_sequence_length` tokens, the others what their tokenizers say."""
    fixed_fields: Mapping[str, Any]
    """Fields of the network's config.json that ask for more inputs, with the only value that the call serves."""
    patch: int | None
    """Cells along a patch's edge; None: the network's config.json says so."""
    widths: Widths
    """A T5's is always `joint_attention_dim`."""
    call: NetworkCall
    encode: PromptCall
    even_sigmas: bool = False
    """The pipeline hands its scheduler the sigmas 1, ..., 1 / steps instead of leaving it its own."""
    scheduler_options: Mapping[str, Any] = field(default_factory=dict)
    """What the pipeline's constructor writes over its scheduler's options, whatever its file says."""


def _call_sd(network: ModelMixin, spec: ImageSpec, given: NetworkInput) -> Tensor:
    condition = given.condition
    return network(
        given.latents,
        given.time,
        encoder_hidden_states=condition.embeds,
        added_cond_kwargs=_user_input(condition),
        return_dict=False,
    )[0]


def _call_sdxl(network: ModelMixin, spec: ImageSpec, given: NetworkInput) -> Tensor:
    latents, condition = given.latents, given.condition
    height, width = (cells * spec.pixels_per_cell for cells in latents.shape[-2:])
    # Original size, offset of the crop, target size: an image that was neither scaled nor cropped.
    size = torch.tensor([height, width, 0, 0, height, width], dtype=torch.float32, device=latents.device)
    added = {"text_embeds": condition.pooled, "time_ids": size.expand(len(latents), -1), **_user_input(condition)}
    return network(
        latents, given.time, encoder_hidden_states=condition.embeds, added_cond_kwargs=added, return_dict=False
    )[0]


def _user_input(condition: Condition) -> dict[str, Any]:
    """An IP-Adapter takes a list of one tensor (B, images, U) an adapter; a user is its one image."""
    return {} if condition.user is None else {"image_embeds": [condition.user[:, None]]}


def _call_sd3(network: ModelMixin, spec: ImageSpec, given: NetworkInput) -> Tensor:
    return network(given.latents, given.condition.embeds, given.condition.pooled, given.time, return_dict=False)[0]


def _call_flux(network: ModelMixin, spec: ImageSpec, given: NetworkInput) -> Tensor:
    batch, channels, height, width = given.latents.shape
    device = given.latents.device
    packed = network(
        FluxPipeline._pack_latents(given.latents, batch, channels, height, width),
        given.condition.embeds,
        given.condition.pooled,
        given.time / 1000,  # the network multiplies by 1000 again, after rounding to its precision
        FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, device, torch.float32),
        torch.zeros(given.condition.embeds.shape[1], 3, device=device),
        given.guidance,
        return_dict=False,
    )[0]
    return FluxPipeline._unpack_latents(packed, height, width, vae_scale_factor=1)


def _encode_sd(pipeline: Any, prompts: list[str], t5_tokens: int) -> Condition:
    embeds, _ = pipeline.encode_prompt(prompts, pipeline.text_encoder.device, 1, do_classifier_free_guidance=False)
    return Condition(embeds, None)


def _encode_sdxl(pipeline: Any, prompts: list[str], t5_tokens: int) -> Condition:
    embeds, _, pooled, _ = pipeline.encode_prompt(
        prompts, device=pipeline.text_encoder.device, do_classifier_free_guidance=False
    )
    return Condition(embeds, pooled)


def _encode_sd3(pipeline: Any, prompts: list[str], t5_tokens: int) -> Condition:
    embeds, _, pooled, _ = pipeline.encode_prompt(
        prompts,
        None,
        None,
        device=pipeline.text_encoder.device,
        do_classifier_free_guidance=False,
        max_sequence_length=t5_tokens,
    )
    return Condition(embeds, pooled)


def _encode_flux(pipeline: Any, prompts: list[str], t5_tokens: int) -> Condition:
    embeds, pooled, _ = pipeline.encode_prompt(
        prompts, device=pipeline.text_encoder.device, max_sequence_length=t5_tokens
    )
    return Condition(embeds, pooled)


def _widths_sd(network: Mapping[str, Any], clips: Sequence[PreTrainedConfig]) -> Mapping[str, int]:
    return {"cross_attention_dim": sum(clip.hidden_size for clip in clips)}


def _widths_sdxl(network: Mapping[str, Any], clips: Sequence[PreTrainedConfig]) -> Mapping[str, int]:
    pooled = 6 * network["addition_time_embed_dim"] + clips[-1].projection_dim
    return {**_widths_sd(network, clips), "projection_class_embeddings_input_dim": pooled}


def _widths_sd3(network: Mapping[str, Any], clips: Sequence[PreTrainedConfig]) -> Mapping[str, int]:
    return {"pooled_projection_dim": sum(clip.projection_dim for clip in clips)}


def _widths_flux(network: Mapping[str, Any], clips: Sequence[PreTrainedConfig]) -> Mapping[str, int]:
    return {"pooled_projection_dim": sum(clip.hidden_size for clip in clips)}


_PLAIN_UNET = {
    "time_cond_proj_dim": None,  # latent consistency models
    "class_embed_type": None,
    "num_class_embeds": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
}

_FAMILIES: dict[str, ImageFamily] = {
    family.name: family
    for family in (
        ImageFamily(
            name="sd",
            pipeline_class=StableDiffusionPipeline,
            denoiser="unet",
            network_class=UNet2DConditionModel,
            predictions=frozenset({Prediction.epsilon, Prediction.v}),
            encoders=MappingProxyType({"tokenizer": "text_encoder"}),
            t5=None,
            fixed_fields=MappingProxyType({**_PLAIN_UNET, "addition_embed_type": None}),
            patch=1,
            widths=_widths_sd,
            call=_call_sd,
            encode=_encode_sd,
            scheduler_options=MappingProxyType({"steps_offset": 1, "clip_sample": False}),
        ),
        ImageFamily(
            name="sdxl",
            pipeline_class=StableDiffusionXLPipeline,
            denoiser="unet",
            network_class=UNet2DConditionModel,
            predictions=frozenset({Prediction.epsilon, Prediction.v}),
            encoders=MappingProxyType({"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"}),
            t5=None,
            fixed_fields=MappingProxyType({**_PLAIN_UNET, "addition_embed_type": "text_time"}),
            patch=1,
            widths=_widths_sdxl,
            call=_call_sdxl,
            encode=_encode_sdxl,
        ),
        ImageFamily(
            name="sd3",
            pipeline_class=StableDiffusion3Pipeline,
            denoiser="transformer",
            network_class=SD3Transformer2DModel,
            predictions=frozenset({Prediction.flow}),
            encoders=MappingProxyType(
                {"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2", "tokenizer_3": "text_encoder_3"}
            ),
            t5="text_encoder_3",
            fixed_fields=MappingProxyType({}),
            patch=None,
            widths=_widths_sd3,
            call=_call_sd3,
            encode=_encode_sd3,
        ),
        ImageFamily(
            name="flux",
            pipeline_class=FluxPipeline,
            denoiser="transformer",
            network_class=FluxTransformer2DModel,
            predictions=frozenset({Prediction.flow}),
            encoders=MappingProxyType({"tokenizer": "text_encoder", "tokenizer_2": "text_encoder_2"}),
            t5="text_encoder_2",
            fixed_fields=MappingProxyType({"patch_size": 1}),
            patch=2,  # packed by the pipeline, so its config.json says 1
            widths=_widths_flux,
            call=_call_flux,
            encode=_encode_flux,
            even_sigmas=True,
        ),
    )
}
FAMILIES: Mapping[str, ImageFamily] = MappingProxyType(_FAMILIES)
"""By name; `enter` adds to them."""
_OURS = frozenset(_FAMILIES)


def enter(family: ImageFamily) -> ImageFamily:
    """Make a family known in this process, as if it were declared above; in place of an earlier one that was entered.

    Raises:
        CheckpointError: it is no family, or one that is declared above has its name.
    """
    return entered(family, ImageFamily, _FAMILIES, _OURS)


def named_family(name: str) -> ImageFamily | None:
    """The declared or installed family of this name."""
    installed = plugged("denoiserl.image_families", _OURS)
    if name in installed and name not in FAMILIES:
        return loaded(installed[name], ImageFamily, _FAMILIES, _OURS)
    return FAMILIES.get(name)


def family_of_pipeline(class_name: object) -> ImageFamily | None:
    """The declared or installed family whose pipeline model_index.json names."""
    names = plugged("denoiserl.image_families", _OURS)
    for name, family in FAMILIES.items():
        if family.pipeline_class.__name__ == class_name and name not in names:
            return family
    installed = [named_family(name) for name in names]
    found = [family for family in installed if family and family.pipeline_class.__name__ == class_name]
    if len(found) > 1:
        raise CheckpointError(
            f"model_index.json says _class_name={class_name!r}, which is of the families "
            f"{' and '.join(family.name for family in found)}: name one with model.family"
        )
    return found[0] if found else None

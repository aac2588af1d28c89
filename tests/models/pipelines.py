"""Tiny random pipelines of the four stock classes, and inputs for their networks."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from models.images.policy import Guidance, ImagePolicy
from models.options import ModelOptions

CLIP_TOKENS, T5_TOKENS = 16, 18
CLIP_WIDTH, T5_WIDTH = 32, 64
NAMES = ("sd", "sdxl", "sd3", "flux")


def tiny_pipeline(name: str, seed: int = 0, **changes: Any) -> DiffusionPipeline:
    """A pipeline with random weights, by the family's name; `changes` go to the denoiser's config."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = {"sd": _sd, "sdxl": _sdxl, "sd3": _sd3, "flux": _flux}[name](changes)
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _sd(changes: dict[str, Any]) -> DiffusionPipeline:
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_clip()),
        tokenizer=clip_tokenizer(),
        unet=_unet(cross_attention_dim=CLIP_WIDTH, **changes),
        scheduler=ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(changes: dict[str, Any]) -> DiffusionPipeline:
    conditioning = {
        "cross_attention_dim": 2 * CLIP_WIDTH,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 24,
        "transformer_layers_per_block": (1, 2),
        "use_linear_projection": True,
    }
    return StableDiffusionXLPipeline(
        vae=_vae(force_upcast=True),
        text_encoder=CLIPTextModel(_clip()),
        text_encoder_2=CLIPTextModelWithProjection(_clip(projection_dim=24)),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=_unet(**(conditioning | changes)),
        scheduler=ddim(),
        add_watermarker=False,
    )


def _sd3(changes: dict[str, Any]) -> DiffusionPipeline:
    size = {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "joint_attention_dim": T5_WIDTH,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 24 + 20,
        "out_channels": 4,
        "pos_embed_max_size": 16,
        "qk_norm": "rms_norm",
        "dual_attention_layers": (0,),
    }
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(**(size | changes)),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(shift_factor=0.06),
        text_encoder=CLIPTextModelWithProjection(_clip(projection_dim=24)),
        text_encoder_2=CLIPTextModelWithProjection(_clip(projection_dim=20)),
        text_encoder_3=T5EncoderModel(_t5()),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=t5_tokenizer(),
    )


def _flux(changes: dict[str, Any]) -> DiffusionPipeline:
    size = {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": T5_WIDTH,
        "pooled_projection_dim": CLIP_WIDTH,
        "axes_dims_rope": (4, 4, 8),
        "guidance_embeds": True,
    }
    return FluxPipeline(
        transformer=FluxTransformer2DModel(**(size | changes)),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=_vae(shift_factor=0.06),
        text_encoder=CLIPTextModel(_clip()),
        text_encoder_2=T5EncoderModel(_t5()),
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
    )


def ddim(**changes: Any) -> DDIMScheduler:
    """Stable Diffusion's schedule."""
    settings = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    return DDIMScheduler(**(settings | changes))


def _unet(**changes: Any) -> UNet2DConditionModel:
    size = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": (2, 4),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return UNet2DConditionModel(**(size | changes))


def _vae(**changes: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4,
        sample_size=32,
        **changes,
    )


def _clip(**changes: Any) -> CLIPTextConfig:
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return CLIPTextConfig(
        vocab_size=len(clip_tokenizer()),
        hidden_size=CLIP_WIDTH,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=CLIP_TOKENS,
        **(tokens | changes),
    )


def _t5() -> T5Config:
    return T5Config(
        vocab_size=len(t5_tokenizer()), d_model=T5_WIDTH, d_kv=8, d_ff=37, num_layers=2, num_heads=4, dropout_rate=0.0
    )


def clip_tokenizer() -> CLIPTokenizer:
    """One token a letter."""
    words = ["<|startoftext|>", "<|endoftext|>", *string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase)]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=CLIP_TOKENS)


def t5_tokenizer() -> T5Tokenizer:
    """One token a letter, and one a word's beginning."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(vocab=[*pieces, *((letter, -3.0) for letter in string.ascii_lowercase)], extra_ids=0)


def image_options(folder: Path, **changes: Any) -> ModelOptions:
    return ModelOptions(path=str(folder), **({"max_sequence_length": T5_TOKENS} | changes))


def random_inputs(policy: ImagePolicy, rows: int = 3, seed: int = 1) -> dict[str, torch.Tensor | None]:
    """Arguments of `policy`, of its condition's shapes; the images are 32 x 48 pixels."""
    generator = torch.Generator().manual_seed(seed)
    family = policy.spec.family
    tokens, width, pooled = {
        "sd": (CLIP_TOKENS, CLIP_WIDTH, None),
        "sdxl": (CLIP_TOKENS, 2 * CLIP_WIDTH, 24),
        "sd3": (CLIP_TOKENS + T5_TOKENS, T5_WIDTH, 24 + 20),
        "flux": (T5_TOKENS, T5_WIDTH, CLIP_WIDTH),
    }[family]
    return {
        "latents": torch.randn(rows, *policy.spec.latent_shape(32, 48), generator=generator),
        "time": torch.rand(rows, generator=generator) * 1000,
        "embeds": torch.randn(rows, tokens, width, generator=generator),
        "pooled": None if pooled is None else torch.randn(rows, pooled, generator=generator),
        "guidance": torch.full((rows,), 3.5) if policy.spec.guidance is Guidance.embedded else None,
    }

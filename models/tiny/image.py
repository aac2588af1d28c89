"""Tiny image bases, complete but for the denoiser's training: `scenes` and `digits`. `make bases` trains them.

`scenes` is a Stable Diffusion 3 (a flow-matching transformer on 16 latent patches), `digits` a Stable Diffusion 1.5 (a
noise-predicting UNet): diffusers' own classes, so that what is written here loads as any published checkpoint does.
"""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from models.tiny.prompts import WIDTH, prompt_tokenizer, scramble, silent_t5, text_encoder_config

TRANSFORMER = {"num_layers": 4, "num_attention_heads": 4, "attention_head_dim": 32}
UNET_CHANNELS = (32, 64)


def untrained_pipeline(kind: str, autoencoder: AutoencoderKL, *, seed: int) -> DiffusionPipeline:
    """The pipeline `scenes` or `digits` around a fitted autoencoder.

    Args:
        seed: of all random weights; torch's global generator is neither read nor changed.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in BUILDERS:
        raise ValueError(f"there is no tiny image base {kind!r}: choose {' or '.join(BUILDERS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BUILDERS[kind](autoencoder, seed)


def _scenes(autoencoder: AutoencoderKL, seed: int) -> StableDiffusion3Pipeline:
    tokenizer = prompt_tokenizer()
    encoders = [CLIPTextModelWithProjection(text_encoder_config(tokenizer)) for _ in range(2)]
    for number, encoder in enumerate(encoders):
        scramble(encoder, seed + number)
    transformer = SD3Transformer2DModel(
        sample_size=_latent_size(autoencoder),
        patch_size=2,
        in_channels=autoencoder.config.latent_channels,
        out_channels=autoencoder.config.latent_channels,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=TRANSFORMER["num_attention_heads"] * TRANSFORMER["attention_head_dim"],
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=_latent_size(autoencoder),
        **TRANSFORMER,
    )
    begin_as_identity(transformer)
    tokenizer_3, encoder_3 = silent_t5(2 * WIDTH)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=autoencoder,
        text_encoder=encoders[0].eval(),
        tokenizer=tokenizer,
        text_encoder_2=encoders[1].eval(),
        tokenizer_2=tokenizer,
        text_encoder_3=encoder_3,
        tokenizer_3=tokenizer_3,
    )


def begin_as_identity(transformer: SD3Transformer2DModel) -> None:
    """DiT's "adaLN-zero": every block begins as the identity and the network's output as zero (Peebles & Xie, 2023)."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear) and ("norm" in name or name == "proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


def _digits(autoencoder: AutoencoderKL, seed: int) -> StableDiffusionPipeline:
    tokenizer = prompt_tokenizer()
    encoder = CLIPTextModel(text_encoder_config(tokenizer))
    scramble(encoder, seed)
    unet = UNet2DConditionModel(
        sample_size=_latent_size(autoencoder),
        in_channels=autoencoder.config.latent_channels,
        out_channels=autoencoder.config.latent_channels,
        block_out_channels=UNET_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,  # the number of heads: diffusers kept the wrong name of SD 1.5's field
        norm_num_groups=8,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=encoder.eval(),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _latent_size(autoencoder: AutoencoderKL) -> int:
    return autoencoder.config.sample_size // 2 ** (len(autoencoder.config.block_out_channels) - 1)


BUILDERS = {"scenes": _scenes, "digits": _digits}

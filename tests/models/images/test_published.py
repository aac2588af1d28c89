"""The pipelines that configs/model names: their published descriptions are accepted, and adapters find their layers.

The JSON files repeat the fields of the published ones that matter here; no weights are needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from configs.compose import compose
from models.images.checkpoint import read_image_spec
from models.images.families import FAMILIES
from models.images.policy import Guidance, Prediction
from models.options import Modality, ModelOptions

VAE = {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "latent_channels": 16}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "projection_dim": 768}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "projection_dim": 1280}
T5_XXL = {"d_model": 4096, "vocab_size": 32128}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD3 = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "qk_norm": "rms_norm",
}
FLUX = {
    "patch_size": 1,
    "in_channels": 64,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
}
ENCODERS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "sd": {"text_encoder": ("CLIPTextModel", CLIP_L)},
    "sdxl": {"text_encoder": ("CLIPTextModel", CLIP_L), "text_encoder_2": ("CLIPTextModelWithProjection", CLIP_G)},
    "sd3": {
        "text_encoder": ("CLIPTextModelWithProjection", CLIP_L),
        "text_encoder_2": ("CLIPTextModelWithProjection", CLIP_G),
        "text_encoder_3": ("T5EncoderModel", T5_XXL),
    },
    "flux": {"text_encoder": ("CLIPTextModel", CLIP_L), "text_encoder_2": ("T5EncoderModel", T5_XXL)},
}
# Name in configs/model: family, network, VAE, scheduler.
PUBLISHED: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "sd15": (
        "sd",
        {"sample_size": 64, "attention_head_dim": 8, "cross_attention_dim": 768},
        VAE | {"latent_channels": 4},
        {"_class_name": "PNDMScheduler", **BETAS},
    ),
    "sdxl": (
        "sdxl",
        {
            "sample_size": 128,
            "attention_head_dim": [5, 10, 20],
            "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10],
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        VAE | {"latent_channels": 4},
        {"_class_name": "EulerDiscreteScheduler", "prediction_type": "epsilon", **BETAS},
    ),
    "sd35_medium": (
        "sd3",
        SD3
        | {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 384}
        | {"dual_attention_layers": list(range(13))},
        VAE,
        FLOW,
    ),
    "sd35_large": (
        "sd3",
        SD3 | {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "pos_embed_max_size": 192},
        VAE,
        FLOW,
    ),
    "flux_dev": ("flux", FLUX | {"guidance_embeds": True}, VAE, FLOW | {"use_dynamic_shifting": True}),
    "flux_schnell": ("flux", FLUX | {"guidance_embeds": False}, VAE, FLOW | {"shift": 1.0}),
}
EXPECTED = {
    "sd15": (Prediction.epsilon, Guidance.classifier_free, False, (4, 64, 64)),
    "sdxl": (Prediction.epsilon, Guidance.classifier_free, False, (4, 128, 128)),
    "sd35_medium": (Prediction.flow, Guidance.classifier_free, False, (16, 128, 128)),
    "sd35_large": (Prediction.flow, Guidance.classifier_free, False, (16, 128, 128)),
    "flux_dev": (Prediction.flow, Guidance.embedded, False, (16, 128, 128)),
    "flux_schnell": (Prediction.flow, Guidance.none, True, (16, 128, 128)),
}


def write_description(folder: Path, name: str) -> None:
    family_name, network, vae, scheduler = PUBLISHED[name]
    family = FAMILIES[family_name]
    encoders = ENCODERS[family_name]
    tokenizers = {
        tokenizer: ["transformers", "T5TokenizerFast" if encoder == family.t5 else "CLIPTokenizer"]
        for tokenizer, encoder in family.encoders.items()
    }
    index = {
        "_class_name": family.pipeline_class.__name__,
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        family.denoiser: ["diffusers", family.network_class.__name__],
        **{encoder: ["transformers", class_name] for encoder, (class_name, _) in encoders.items()},
        **tokenizers,
    }
    for tokenizer in tokenizers:
        (folder / tokenizer).mkdir()
    files = {
        "model_index.json": index,
        "vae/config.json": vae,
        "scheduler/scheduler_config.json": scheduler,
        f"{family.denoiser}/config.json": network,
        **{f"{encoder}/config.json": config for encoder, (_, config) in encoders.items()},
    }
    for file, content in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(json.dumps(content))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_descriptions_are_accepted(tmp_path: Path, name: str) -> None:
    write_description(tmp_path, name)
    spec = read_image_spec(ModelOptions(path=str(tmp_path)))
    latent_shape = spec.latent_shape(spec.image_size, spec.image_size)
    assert (spec.prediction, spec.guidance, spec.distilled, latent_shape) == EXPECTED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_configured_adapters_find_their_layers(name: str) -> None:
    options = compose(["recipe=quickstart", f"model={name}"]).config.model
    assert options.modality is Modality.image
    assert options.lora is not None
    family_name, config, _, _ = PUBLISHED[name]
    with torch.device("meta"):
        network = FAMILIES[family_name].network_class.from_config(config)
    linear = [layer for layer, module in network.named_modules() if isinstance(module, nn.Linear)]
    for target in options.lora.target_modules:
        assert any(layer.endswith(f".{target}") for layer in linear), target

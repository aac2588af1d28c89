"""A random CLIP of a few thousand weights that sees what published ones see: 224 x 224 pixels, in four patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from tests.rewards.images.test_dual_encoder import LIMIT, tokenizer

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
SHAPES = ((300, 224), (150, 301), (64, 64), (224, 224))
"""Heights and widths: an even and an odd crop, enlarged, and as it is."""


def model(activation: str = "gelu") -> CLIPModel:
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"vocab_size": len(tokenizer()), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = {**shared, **tokens, "max_position_embeddings": LIMIT, "hidden_act": activation}
    vision = {**shared, "image_size": 224, "patch_size": 112, "hidden_act": activation}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
        for name, weight in network.named_parameters():  # as drawn, all embeddings would nearly be equal
            if name != "logit_scale":
                weight.data.add_(0.2 * torch.randn_like(weight))
    return network.eval()


def save(root: Path, network: CLIPModel | None = None) -> Path:
    (network or model()).save_pretrained(root)
    tokenizer().save_pretrained(root)
    CLIPImageProcessor().save_pretrained(root)  # its defaults are the published numbers
    return root


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8, of coarse and of fine detail."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8)).resize(
        shape[::-1], Image.Resampling.BILINEAR
    )
    return (0.7 * np.asarray(coarse) + 0.3 * random.integers(0, 256, (*shape, 3))).astype(np.uint8)


def middle(image: np.ndarray, nearest: bool = False) -> Tensor:
    """(1, 3, 224, 224): Pillow's bicubic resize of the shorter edge, the middle, normalised; written out."""
    height, width = image.shape[:2]
    tall, wide = (int(224 * side / min(height, width)) for side in (height, width))
    resized = np.asarray(Image.fromarray(image).resize((wide, tall), Image.Resampling.BICUBIC))
    half = [round((side - 224) / 2.0) if nearest else (side - 224) // 2 for side in (tall, wide)]
    cut = resized[half[0] : half[0] + 224, half[1] : half[1] + 224].astype(np.float32) / 255
    return torch.from_numpy(((cut - MEAN) / STD).transpose(2, 0, 1)[None].copy())


def whole(image: np.ndarray) -> Tensor:
    """(1, 3, 224, 224): the longer edge, in floating point by Pillow's own filter, on black, normalised."""
    height, width = image.shape[:2]
    tall, wide = (round(side * 224 / max(height, width)) for side in (height, width))
    channels = [
        Image.fromarray(image[:, :, index].astype(np.float32) / 255).resize((wide, tall), Image.Resampling.BICUBIC)
        for index in range(3)
    ]
    black = np.zeros((224, 224, 3), np.float32)
    top, left = (224 - tall) // 2, (224 - wide) // 2
    black[top : top + tall, left : left + wide] = np.stack([np.asarray(channel) for channel in channels], -1)
    return torch.from_numpy(((black - MEAN) / STD).transpose(2, 0, 1)[None].copy())


def logits(network: CLIPModel, pixels: Tensor, prompt: str) -> float:
    """The library's own forward on one pair: cosine times the exponential of its `logit_scale`."""
    tokens = tokenizer()([prompt], return_tensors="pt", truncation=True, max_length=LIMIT)
    with torch.no_grad():
        return float(network(**tokens, pixel_values=pixels).logits_per_image)

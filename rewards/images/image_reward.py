"""ImageReward (arXiv 2304.05977): which of two pictures of a prompt people prefer, as one number around 0.

BLIP's text encoder reads the prompt while it looks at the picture; a linear head scores its first token. The result is
shifted and scaled to mean 0 and deviation 1 over the authors' pictures.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewards.checkpoints import Checkpoint
from rewards.differentiable import differentiable
from rewards.images.blip import SIZE, networks, to_transformers
from rewards.images.linear_head import linear_layers, through
from rewards.images.preprocessing import Preprocessing
from rewards.picture import batches

if TYPE_CHECKING:  # torch is imported where it is needed, which is not in most reward processes
    from torch import Tensor

IMAGE_REWARD = Checkpoint(
    "zai-org/ImageReward",
    "5736be03b2652728fb87788c9797b0570450ab72",
    ("ImageReward.pt", "med_config.json"),
    1.79,
    "Apache-2.0",
)
BERT = Checkpoint(
    "google-bert/bert-base-uncased",
    "86b5e0934494bd15c9632b12f734a8a67f723594",
    ("tokenizer.json", "tokenizer_config.json"),
    0.0005,
    "Apache-2.0",
)
PUBLISHED = Preprocessing(size=SIZE, nearest=True)
TOKENS = 35
"""What is read of a prompt, with the tokens that begin and end it."""
MEAN, STD = 0.16717362830052426, 1.0333394966054072


@differentiable
def image_reward(
    images: Tensor,
    prompts: list[str],
    path: str | None = None,
    tokenizer: str | None = None,
    device: str | None = None,
    batch: int = 16,
    **_: Any,
) -> Tensor:
    """(B,) scores of images (B, 3, H, W) in [0, 1]; most are between -2.3 and 2.

    Args:
        path: folder with the files of `IMAGE_REWARD`; None looks into the hub's cache.
        tokenizer: folder with the files of `BERT`, likewise.
        device: where the network is; None is where the pictures are.
        batch: pictures at a time.

    Raises:
        ValueError: weights are missing or do not fit; batch is none.
    """
    import torch

    parts = batches("image_reward", len(images), batch)
    folder = IMAGE_REWARD.folder("image_reward", path)
    words = BERT.folder("image_reward", tokenizer, argument="tokenizer")
    place = device or str(images.device)
    network = _network(str(folder), str(words), place)
    return torch.cat([network(images[part].to(place), prompts[part]) for part in parts]).to(images.device)


@functools.cache
def _network(folder: str, tokenizer: str, device: str) -> ImageReward:
    return ImageReward(Path(folder), Path(tokenizer), device)


class ImageReward:
    """Frozen, in fp32."""

    def __init__(self, folder: Path, tokenizer: Path, device: str) -> None:
        """
        Raises:
            ValueError: the weights do not fit, or the tokenizer has more words than they.
        """
        import torch
        from transformers import BertTokenizer

        file = folder / "ImageReward.pt"
        parts = to_transformers(torch.load(file, map_location="cpu", weights_only=True))
        vision, text = networks(parts, folder / "med_config.json")
        self.vision, self.text = vision.to(device), text.to(device)
        self.head = linear_layers(parts["head"], text.config.hidden_size, device, str(file))
        self.tokenizer = BertTokenizer.from_pretrained(tokenizer)  # its files do not say of which class they are
        if len(self.tokenizer) > text.config.vocab_size:
            raise ValueError(f"{tokenizer} has {len(self.tokenizer)} words, and {file} {text.config.vocab_size}")

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """(B,)"""
        tokens = self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(images.device)
        seen = self.vision(PUBLISHED(images)).last_hidden_state
        read = self.text(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, encoder_hidden_states=seen
        ).last_hidden_state
        return (through(self.head, read[:, 0]) - MEAN) / STD

"""BLIP's text encoder that looks at a picture, with the weights of ImageReward in the classes of transformers.

ImageReward is published as a file with the names of the BLIP repository and of timm. The classes of transformers
compute the same, with other numbers by default: their vision transformer has a larger epsilon, and their text encoder 8
heads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 224
"""Height and width of what the vision transformer sees, in pixels."""
HEAD_WIDTH = 64
"""Of the vision transformer, in both sizes that BLIP has; its file does not say so."""
UNUSED = ("vision_proj.", "text_proj.", "text_encoder.embeddings.position_ids")
"""Of BLIP's own pre-training, and a buffer that counts from zero."""

_VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.": "embeddings.patch_embedding.",
    "norm.": "post_layernorm.",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)")
_OF_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
}


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The weights of `blip.` and `mlp.`, for `vision` (`BlipVisionModel`), `text` (`BlipTextModel`) and `head`.

    Raises:
        ValueError: a name is none of ImageReward's.
    """
    parts: dict[str, dict[str, Tensor]] = {"vision": {}, "text": {}, "head": {}}
    for name, weight in state.items():
        inner = name.removeprefix("blip.")
        if name.startswith("mlp."):
            parts["head"][name.removeprefix("mlp.")] = weight
        elif inner.startswith("visual_encoder."):
            parts["vision"][_of_vision(inner.removeprefix("visual_encoder."))] = weight
        elif inner.startswith(UNUSED):
            continue
        elif inner.startswith("text_encoder."):
            parts["text"][inner.removeprefix("text_encoder.")] = weight
        else:
            raise ValueError(f"{name!r} is no weight of ImageReward")
    return parts


def _of_vision(name: str) -> str:
    if match := _BLOCK.fullmatch(name):
        block, part, kind = match.groups()
        return f"encoder.layers.{block}.{_OF_BLOCK.get(part, part)}.{kind}"
    for beginning, replacement in _VISION.items():
        if name.startswith(beginning):
            return replacement + name.removeprefix(beginning)
    raise ValueError(f"'blip.visual_encoder.{name}' is no weight of ImageReward")


def networks(parts: Mapping[str, Mapping[str, Tensor]], med_config: Path) -> tuple[Any, Any]:
    """Frozen fp32 `BlipVisionModel` and `BlipTextModel` with these weights.

    Args:
        med_config: ImageReward's file with the sizes of the text encoder.

    Raises:
        ValueError: weights are lacking, left over, or of other shapes than the sizes say.
    """
    from transformers import BlipTextConfig, BlipVisionConfig
    from transformers.models.blip.modeling_blip import BlipVisionModel
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    vision, said = parts["vision"], json.loads(med_config.read_text(encoding="utf-8"))
    width, _, patch, _ = vision["embeddings.patch_embedding.weight"].shape
    blocks = [int(match[1]) for name in vision if (match := re.match(r"encoder\.layers\.(\d+)\.", name))]
    seeing = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=max(blocks) + 1,
        num_attention_heads=width // HEAD_WIDTH,
        image_size=SIZE,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    reading = BlipTextConfig(
        **{name: said[name] for name in (*sizes, "max_position_embeddings", "layer_norm_eps", "hidden_act")},
        encoder_hidden_size=width,
        pad_token_id=said.get("pad_token_id", 0),
        bos_token_id=None,
        sep_token_id=None,
    )
    return (
        _filled(BlipVisionModel(seeing), vision, "blip.visual_encoder"),
        _filled(BlipTextModel(reading, add_pooling_layer=False), parts["text"], "blip.text_encoder"),
    )


def _filled(network: Any, state: Mapping[str, Tensor], where: str) -> Any:
    wanted, found = ({name: weight.shape for name, weight in part.items()} for part in (network.state_dict(), state))
    if wrong := sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name)):
        shapes = [f"{name} ({found.get(name, 'lacking')}, wanted {wanted.get(name, 'nothing')})" for name in wrong]
        raise ValueError(f"the weights of {where} do not fit: {'; '.join(shapes[:3])}")
    network.load_state_dict(state)
    return network.float().eval().requires_grad_(False)

"""Weights with the names of open_clip, as files that transformers loads: for HPSv2.1, which is published so.

    python -m rewards.images.open_clip HPS_v2.1_compressed.pt CLIP-ViT-H-14-laion2B-s32B-b79K hps_v2.1

The second folder is the same architecture in the form of transformers: its configuration, tokenizer and image processor
are taken over, and every weight of it must be found in the file, with its shape, and nothing may be left over.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

COPIED = ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")

_TOWERS = {"": "text_model", "visual.": "vision_model"}
_SINGLE = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
}
_TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
_LAYER = re.compile(r"(|visual\.)transformer\.resblocks\.(\d+)\.(.+)")
_OF_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_UNUSED = ("attn_mask",)
"""Buffers that hold nothing learned."""


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the names, and the layout, of transformers' `CLIPModel`, in fp32.

    Raises:
        ValueError: a name is none of open_clip's CLIP with a vision transformer.
    """
    return {
        name: part.float().contiguous()
        for known, weight in state.items()
        if known not in _UNUSED
        for name, part in _renamed(known, weight)
    }


def _renamed(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name in _TRANSPOSED:
        yield _TRANSPOSED[name], weight.T
        return
    stem, _, kind = name.rpartition(".")
    if name in _SINGLE:
        yield _SINGLE[name], weight
        return
    if stem in _SINGLE:
        yield f"{_SINGLE[stem]}.{kind}", weight
        return
    if (match := _LAYER.fullmatch(name)) is None:
        raise ValueError(f"{name!r} is no weight of an open_clip model with a vision transformer")
    tower, layer, rest = match.groups()
    place = f"{_TOWERS[tower]}.encoder.layers.{layer}"
    if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = rest.removeprefix("attn.in_proj_")
        for part, third in zip("qkv", weight.chunk(3), strict=True):
            yield f"{place}.self_attn.{part}_proj.{kind}", third
        return
    stem, _, kind = rest.rpartition(".")
    if stem not in _OF_LAYER:
        raise ValueError(f"{name!r} is no weight of an open_clip model with a vision transformer")
    yield f"{place}.{_OF_LAYER[stem]}.{kind}", weight


def convert(weights: Path, like: Path, target: Path) -> None:
    """Write a folder that `CLIPModel` loads.

    Args:
        weights: file of open_clip's names, as they are or below `state_dict`.
        like: folder with `config.json` and the files of `COPIED` of a model of the same architecture.
        target: folder to write; it must not exist.

    Raises:
        ValueError: the weights are not those of the architecture.
        FileExistsError: the target is there already.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel

    loaded: dict[str, Any] = torch.load(weights, map_location="cpu", weights_only=True)
    state = to_transformers(loaded.get("state_dict", loaded))
    config = CLIPConfig.from_pretrained(like)
    with torch.device("meta"):
        expected = {name: weight.shape for name, weight in CLIPModel(config).state_dict().items()}
    found = {name: weight.shape for name, weight in state.items()}
    if wrong := sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name)):
        shapes = [f"{name} ({found.get(name, 'lacking')}, wanted {expected.get(name, 'nothing')})" for name in wrong]
        raise ValueError(f"{weights} does not fit the architecture of {like}: {'; '.join(shapes[:3])}")
    target.mkdir(parents=True)
    CLIPModel.from_pretrained(None, config=config, state_dict=state).save_pretrained(target)
    for name in COPIED:
        shutil.copyfile(like / name, target / name)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m rewards.images.open_clip WEIGHTS FOLDER_OF_THE_SAME_ARCHITECTURE TARGET")
    convert(*map(Path, sys.argv[1:]))

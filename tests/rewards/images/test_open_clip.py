"""Weights with open_clip's names, against open_clip's network written out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel

from rewards.images.open_clip import convert, to_transformers
from rewards.images.preferences import hps_v2
from tests.rewards.images import tiny_clip
from tests.rewards.images.test_dual_encoder import LIMIT, tokenizer

WIDTH, HEADS, LAYERS, JOINT, PATCH = 32, 4, 2, 16, 112


def random_state() -> dict[str, Tensor]:
    """As open_clip's `CLIP.state_dict()` names and lays out the weights of two vision and text transformers."""
    draw = torch.Generator().manual_seed(0)
    shapes = {
        "logit_scale": (),
        "positional_embedding": (LIMIT, WIDTH),
        "text_projection": (WIDTH, JOINT),
        "token_embedding.weight": (len(tokenizer()), WIDTH),
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": (5, WIDTH),
        "visual.proj": (WIDTH, JOINT),
        "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
    }
    for norm in ("ln_final", "visual.ln_pre", "visual.ln_post"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for tower in ("", "visual."):
        for layer in range(LAYERS):
            at = f"{tower}transformer.resblocks.{layer}"
            shapes |= {f"{at}.{norm}.{kind}": (WIDTH,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
            shapes |= {f"{at}.attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{at}.attn.in_proj_bias": (3 * WIDTH,)}
            shapes |= {f"{at}.attn.out_proj.weight": (WIDTH, WIDTH), f"{at}.attn.out_proj.bias": (WIDTH,)}
            shapes |= {f"{at}.mlp.c_fc.weight": (64, WIDTH), f"{at}.mlp.c_fc.bias": (64,)}
            shapes |= {f"{at}.mlp.c_proj.weight": (WIDTH, 64), f"{at}.mlp.c_proj.bias": (WIDTH,)}
    scales = {"visual.conv1.weight": 0.01}
    return {name: scales.get(name, 0.3) * torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def normed(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return functional.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)


def blocks(x: Tensor, state: dict[str, Tensor], tower: str, mask: Tensor | None) -> Tensor:
    """(1, N, W) through pre-norm blocks with exact GELU."""
    for layer in range(LAYERS):
        at = f"{tower}transformer.resblocks.{layer}"
        qkv = normed(x, state, f"{at}.ln_1") @ state[f"{at}.attn.in_proj_weight"].T + state[f"{at}.attn.in_proj_bias"]
        q, k, v = (part.view(1, -1, HEADS, WIDTH // HEADS).transpose(1, 2) for part in qkv.chunk(3, -1))
        scores = q @ k.transpose(2, 3) / (WIDTH // HEADS) ** 0.5
        if mask is not None:
            scores = scores + mask
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(1, -1, WIDTH)
        x = x + mixed @ state[f"{at}.attn.out_proj.weight"].T + state[f"{at}.attn.out_proj.bias"]
        hidden = normed(x, state, f"{at}.ln_2") @ state[f"{at}.mlp.c_fc.weight"].T + state[f"{at}.mlp.c_fc.bias"]
        x = x + functional.gelu(hidden) @ state[f"{at}.mlp.c_proj.weight"].T + state[f"{at}.mlp.c_proj.bias"]
    return x


def written_out(state: dict[str, Tensor], pixels: Tensor, ids: Tensor) -> float:
    """The cosine of one picture and one text, padded with zeros to the context as open_clip's tokenizer does."""
    patches = functional.conv2d(pixels, state["visual.conv1.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat([state["visual.class_embedding"].view(1, 1, -1), patches], 1) + state["visual.positional_embedding"]
    x = blocks(normed(x, state, "visual.ln_pre"), state, "visual.", None)
    picture = normed(x[:, 0], state, "visual.ln_post") @ state["visual.proj"]
    padded = functional.pad(ids, [0, LIMIT - len(ids)])
    y = state["token_embedding.weight"][padded][None] + state["positional_embedding"]
    y = blocks(y, state, "", torch.full((LIMIT, LIMIT), -torch.inf).triu(1))
    text = normed(y, state, "ln_final")[:, len(ids) - 1] @ state["text_projection"]  # at the end of the text
    return float(functional.cosine_similarity(picture, text))


@pytest.fixture
def like(tmp_path: Path) -> Path:
    return tiny_clip.save(tmp_path / "like")


def test_the_converted_network_is_open_clips(like, tmp_path):
    state = random_state()
    torch.save({"epoch": 1, "state_dict": {name: weight.half() for name, weight in state.items()}}, tmp_path / "hps.pt")
    convert(tmp_path / "hps.pt", like, tmp_path / "made")
    halves = {name: weight.half().float() for name, weight in state.items()}
    image, prompt = tiny_clip.noise((100, 224)), "a red cat"
    ids = tokenizer()([prompt], return_tensors="pt").input_ids[0]
    expected = written_out(halves, tiny_clip.whole(image), ids)
    assert hps_v2(completions=[image], prompts=[prompt], path=str(tmp_path / "made")) == pytest.approx(
        [expected], abs=1e-5
    )
    with pytest.raises(FileExistsError):
        convert(tmp_path / "hps.pt", like, tmp_path / "made")


def test_every_weight_is_used_and_none_is_made_up(like, tmp_path):
    for change, message in (
        ({"visual.proj": None}, r"visual_projection.weight \(lacking, wanted"),
        ({"visual.proj": torch.zeros(8, JOINT)}, r"visual_projection.weight \(torch.Size\(\[16, 8\]\), wanted"),
        ({"score_head.weight": torch.zeros(1)}, "'score_head.weight' is no weight of an open_clip model"),
        ({"visual.transformer.resblocks.0.ls_1.gamma": torch.zeros(1)}, "ls_1.gamma' is no weight of an open_clip"),
    ):
        state = {name: weight for name, weight in (random_state() | change).items() if weight is not None}
        torch.save(state, tmp_path / "weights.pt")
        with pytest.raises(ValueError, match=message):
            convert(tmp_path / "weights.pt", like, tmp_path / "made")
        assert not (tmp_path / "made").exists()


def test_names_are_those_of_the_library():
    assert to_transformers(random_state()).keys() == CLIPModel(tiny_clip.model().config).state_dict().keys()

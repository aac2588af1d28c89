"""The aesthetic predictor is its published pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from rewards.images.aesthetic import aesthetic
from tests.rewards.images import tiny_clip

WIDTHS = (16, 8, 6, 4, 3, 1)
PLACES = (0, 2, 4, 6, 7)
"""Where the published head has its layers, between dropouts."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.save(tmp_path_factory.mktemp("clip"), tiny_clip.model("quick_gelu"))


def head(file: Path, widths: tuple[int, ...] = WIDTHS) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    state = {}
    for place, into, out in zip(PLACES, widths, widths[1:], strict=False):
        state[f"layers.{place}.weight"] = torch.randn(out, into, generator=draw)
        state[f"layers.{place}.bias"] = torch.randn(out, generator=draw)
    torch.save(state, file)
    return state


@pytest.mark.parametrize("shape", [(150, 301), (224, 224)])
def test_it_is_the_published_pipeline(shape, folder, tmp_path):
    state = head(tmp_path / "head.pth")
    images = [tiny_clip.noise(shape, seed) for seed in range(3)]
    found = aesthetic(completions=images, prompts=["a"] * 3, head=str(tmp_path / "head.pth"), path=str(folder), batch=2)
    network = CLIPModel.from_pretrained(folder)
    for image, score in zip(images, found, strict=True):
        with torch.no_grad():
            embedding = network.get_image_features(tiny_clip.middle(image, nearest=True)).pooler_output.numpy()
        values = embedding / np.linalg.norm(embedding, axis=-1, keepdims=True)
        for place in PLACES:
            values = values @ state[f"layers.{place}.weight"].numpy().T + state[f"layers.{place}.bias"].numpy()
        assert score == pytest.approx(values.item(), abs=1e-3)
    assert max(found) - min(found) > 0.02


def test_it_has_a_gradient(folder, tmp_path):
    head(tmp_path / "head.pth")
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    aesthetic.of_images(images, head=str(tmp_path / "head.pth"), path=str(folder)).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0


def test_what_is_missing_or_wrong_is_named(folder, tmp_path):
    def score(**args: object) -> list[float]:
        return aesthetic(completions=[tiny_clip.noise((64, 64))], **{"path": str(folder), **args})

    with pytest.raises(ValueError, match=r"needs args.head, the file sac\+logos\+ava1-l14-linearMSE.pth \(3.7 MB"):
        score()
    head(tmp_path / "wide.pth", (17, 8, 1))
    with pytest.raises(ValueError, match=r"layers of shapes \[\(8, 17\), \(1, 8\)\], which do not lead from 16"):
        score(head=str(tmp_path / "wide.pth"))
    torch.save({"weight": torch.zeros(1, 16)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"has weights weight, and layers.N.\* are expected"):
        score(head=str(tmp_path / "other.pth"))
    with pytest.raises(ValueError, match="openai/clip-vit-large-patch14"):
        score(head=str(tmp_path / "wide.pth"), path=str(tmp_path))

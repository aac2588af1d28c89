"""CLIP score, PickScore and HPSv2.1 are their published pipelines, and refuse to be anything else unasked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from rewards.images.dual_encoder import dual_encoder
from rewards.images.preferences import clip_score, hps_v2, pick_score
from rewards.images.preprocessing import Preprocessing
from tests.rewards.images import tiny_clip

REWARDS = {"clip_score": clip_score, "pick_score": pick_score, "hps_v2": hps_v2}
PROMPTS = ["a red cat", "the blue dog"]
CLOSE = 1e-4
"""What sums of fp32 in another order come to; scores of different pictures are further apart by a hundred times."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.save(tmp_path_factory.mktemp("clip"))


def published(name: str, folder: Path, image: np.ndarray, prompt: str) -> float:
    """The pipeline as its authors have it, one pair at a time."""
    network = CLIPModel.from_pretrained(folder)
    pixels = tiny_clip.whole(image) if name == "hps_v2" else tiny_clip.middle(image)
    score = tiny_clip.logits(network, pixels, prompt)
    return score if name == "pick_score" else score / network.logit_scale.exp().item()


@pytest.mark.parametrize("shape", [*tiny_clip.SHAPES, (225, 448), (448, 227)])
def test_the_pixels_are_the_published_ones(shape):
    image = tiny_clip.noise(shape)
    images = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    for preprocessing, expected, close in (
        (Preprocessing(), tiny_clip.middle(image), 1e-6),
        (Preprocessing(nearest=True), tiny_clip.middle(image, nearest=True), 1e-6),
        (Preprocessing(whole=True), tiny_clip.whole(image), 1e-4),  # a byte is 0.015
    ):
        torch.testing.assert_close(preprocessing(images), expected, rtol=0, atol=close)


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize("shape", [(150, 301), (224, 224)])
def test_it_is_the_published_pipeline(name, shape, folder):
    images = [tiny_clip.noise(shape, seed) for seed in range(2)]
    found = REWARDS[name](completions=images, prompts=PROMPTS, path=str(folder))
    expected = [published(name, folder, image, prompt) for image, prompt in zip(images, PROMPTS, strict=True)]
    assert found == pytest.approx(expected, abs=CLOSE)
    other = REWARDS[name](completions=images, prompts=PROMPTS[::-1], path=str(folder))
    assert np.abs(np.subtract(found, other)).min() > 1e-3  # each picture has its own prompt


@pytest.mark.parametrize("name", REWARDS)
def test_a_prompt_that_is_too_long_is_cut(name, folder):
    image, prompt = tiny_clip.noise((64, 64)), "a red cat sits on the big blue house and looks at a dog"
    found = REWARDS[name](completions=[image], prompts=[prompt], path=str(folder))
    assert found == pytest.approx([published(name, folder, image, prompt)], abs=CLOSE)


@pytest.mark.parametrize("name", REWARDS)
def test_what_is_differentiated_is_what_is_scored(name, folder):
    """The same number to the bit, with a gradient that is near the one of the same steps without rounding."""
    image = torch.from_numpy(tiny_clip.noise((150, 301))).permute(2, 0, 1)[None].float() / 255
    images = image.repeat(2, 1, 1, 1).requires_grad_()
    values = REWARDS[name].of_images(images, prompts=PROMPTS, path=str(folder))
    with torch.no_grad():
        assert torch.equal(values, REWARDS[name].of_images(images, prompts=PROMPTS, path=str(folder)))
    (gradient,) = torch.autograd.grad(values.sum(), images)
    with torch.no_grad():
        step = 6 * gradient.sign() / 255
        up, down = (
            REWARDS[name].of_images((images + sign * step).clamp(0, 1), prompts=PROMPTS, path=str(folder)).sum()
            for sign in (1, -1)
        )
    assert up > values.sum().detach() > down


def test_batches_and_devices_change_nothing(folder):
    images = [tiny_clip.noise((64, 64), seed) for seed in range(5)]
    args = {"prompts": ["a red cat", "a dog"] * 2 + ["a red cat"], "path": str(folder)}
    whole = pick_score(completions=images, **args)
    assert pick_score(completions=images, **args, batch=2, device="cpu") == pytest.approx(whole, abs=1e-5)
    assert pick_score(completions=[], prompts=[], path=str(folder)) == []
    with pytest.raises(ValueError, match="batch=0; it needs at least 1"):
        pick_score(completions=images, **args, batch=0)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("clip_score", "hf download openai/clip-vit-large-patch14 .* --revision 32bd64288804.*1.71 GB"),
        ("pick_score", "hf download yuvalkirstain/PickScore_v1 .* --revision a4e4367c6dfa.*3.95 GB"),
        ("hps_v2", r"HPS_v2.1_compressed.pt \(xswu/HPSv2 at 697403c78157.*1.97 GB"),
    ],
)
def test_missing_weights_say_what_to_download(name, wanted, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    image = tiny_clip.noise((8, 8))
    with pytest.raises(ValueError, match=wanted):
        REWARDS[name](completions=[image], prompts=["a cat"])
    with pytest.raises(ValueError, match=r"args.path=.*, which is no folder with config.json, model.safetensors"):
        REWARDS[name](completions=[image], prompts=["a cat"], path=str(tmp_path))


def test_weights_in_the_cache_of_the_hub_are_found(folder, monkeypatch, tmp_path):
    revision = "a4e4367c6dfa7288a00c550414478f865b875800"
    shutil.copytree(folder, tmp_path / "models--yuvalkirstain--PickScore_v1" / "snapshots" / revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    image = tiny_clip.noise((64, 64))
    assert pick_score(completions=[image], prompts=["a cat"]) == pick_score(
        completions=[image], prompts=["a cat"], path=str(folder)
    )


def test_weights_in_their_older_form_are_taken(folder, tmp_path):
    older = shutil.copytree(folder, tmp_path / "older")
    (older / "model.safetensors").unlink()
    torch.save(CLIPModel.from_pretrained(folder).state_dict(), older / "pytorch_model.bin")
    args = {"completions": [tiny_clip.noise((64, 64))], "prompts": ["a cat"]}
    assert clip_score(**args, path=str(older)) == clip_score(**args, path=str(folder))


def changed(folder: Path, target: Path, **values: object) -> str:
    shutil.copytree(folder, target, dirs_exist_ok=True)
    file = target / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return str(target)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_mean": [0.5, 0.5, 0.5]}, r"has mean=\(0.5, 0.5, 0.5\) and not \(0.48145466"),
        ({"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}, "has size=336 and not 224"),
        ({"resample": 2}, "has resample=2, and that is no preprocessing of a CLIP model"),
        ({"do_normalize": False}, "has do_normalize=False"),
        ({"size": {"height": 224, "width": 224}}, "has size=.* and crop_size="),
        ({"rescale_factor": 1 / 127.5}, "has rescale_factor=0.0078"),
    ],
)
def test_other_preprocessing_is_refused(values, message, folder, tmp_path):
    path = changed(folder, tmp_path / "other", **values)
    for reward in REWARDS.values():
        with pytest.raises(ValueError, match=message):
            reward(completions=[tiny_clip.noise((64, 64))], prompts=["a cat"], path=path)


def test_other_preprocessing_is_used_where_it_is_asked_for(folder, tmp_path):
    path = changed(folder, tmp_path / "other", image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])
    image = tiny_clip.noise((64, 64))
    found = clip_score(completions=[image], prompts=["a cat"], path=path, preprocessing="folder")
    resized = tiny_clip.middle(image) * torch.from_numpy(tiny_clip.STD).view(1, 3, 1, 1)
    pixels = (resized + torch.from_numpy(tiny_clip.MEAN).view(1, 3, 1, 1) - 0.5) / 0.5
    network = CLIPModel.from_pretrained(path)
    expected = tiny_clip.logits(network, pixels, "a cat") / network.logit_scale.exp().item()
    assert found == pytest.approx([expected], abs=CLOSE)
    with pytest.raises(ValueError, match="preprocessing='none': choose published, or folder"):
        clip_score(completions=[image], prompts=["a cat"], path=path, preprocessing="none")


def test_weights_and_preprocessing_belong_together(folder):
    with pytest.raises(ValueError, match="sees pictures of 224 x 224 pixels, and its preprocessing makes 336 x 336"):
        dual_encoder(str(folder), "cpu", Preprocessing(size=336))

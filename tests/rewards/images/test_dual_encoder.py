"""Similarity of pictures and prompts: the formula, the common direction, long prompts, and what its gradient does."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from rewards.differentiable import DifferentiableTotal
from rewards.images.dual_encoder import DualEncoder, common_direction, dual_encoder, segments, text_image_similarity
from rewards.options import RewardTerm

COLOURS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.9, 0.1), "blue": (0.1, 0.1, 0.9)}
LIMIT = 24


def tokenizer() -> CLIPTokenizer:
    """One token a letter."""
    letters = string.ascii_lowercase + ".;!?"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=LIMIT)


def untrained() -> CLIPModel:
    text = {
        "vocab_size": len(tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": LIMIT,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 16,
        "patch_size": 8,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def painted(names: list[str], seed: int) -> Tensor:
    """(B, 3, 16, 16) noisy pictures of the colours."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.tensor([COLOURS[name] for name in names])[:, :, None, None]
    return (clean + 0.2 * torch.randn(len(names), 3, 16, 16, generator=generator)).clamp(0, 1)


def train(model: CLIPModel) -> None:
    """CLIP's own loss on captioned colours, for a second or two."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    tokens = tokenizer()(list(COLOURS), padding=True, return_tensors="pt")
    for step in range(40):
        pixels = (painted(list(COLOURS), step) - 0.5) / 0.25
        loss = model(**tokens, pixel_values=pixels, return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clip")
    model = untrained()
    train(model)
    model.save_pretrained(root)
    tokenizer().save_pretrained(root)
    size = {"shortest_edge": 16}
    CLIPImageProcessor(
        size=size, crop_size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.25] * 3
    ).save_pretrained(root)
    return root


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("captions") / "captions.txt"
    file.write_text("a cat\n\nthe dog\na red house\nblue sky\n")
    return str(file)


def features(folder: Path, images: Tensor, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings of pictures and texts by transformers' own forward, which normalises them."""
    model = CLIPModel.from_pretrained(folder)
    tokens = tokenizer()(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**tokens, pixel_values=(images - 0.5) / 0.25)
    return output.image_embeds.double().numpy(), output.text_embeds.double().numpy()


def test_it_is_the_cosine_of_each_picture_with_its_own_prompt(folder):
    images, prompts = painted(["red", "green", "blue"], 99), ["a red cat", "green", "the blue dog"]
    pictures, texts = features(folder, images, prompts)
    found = text_image_similarity.of_images(images, prompts=prompts, path=str(folder))
    np.testing.assert_allclose(found.numpy(), (pictures * texts).sum(1), atol=1e-5)
    swapped = text_image_similarity.of_images(images, prompts=prompts[::-1], path=str(folder))
    assert (swapped - found)[[0, 2]].abs().min() > 0.05


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_common_direction_counts(folder, captions, share):
    images, prompts = painted(["red", "green"], 99), ["a red cat", "green"]
    pictures, texts = features(folder, images, prompts)
    mean = features(folder, images, ["a cat", "the dog", "a red house", "blue sky"])[1].mean(0)
    direction = mean / np.linalg.norm(mean)
    along = (texts @ direction) * (pictures @ direction)
    across = (pictures * texts).sum(1) - along
    args = {"path": str(folder), "common_captions": captions, "common_share": share}
    found = text_image_similarity.of_images(images, prompts=prompts, **args).numpy()
    np.testing.assert_allclose(found, across + share * along, atol=1e-5)
    assert np.abs(along).max() > 0.01  # else the share would not matter
    direct = common_direction(str(folder), "cpu", captions).numpy()
    np.testing.assert_allclose(direct, direction, atol=1e-5)


def test_a_long_prompt_is_the_mean_over_its_segments(folder):
    image, prompt = painted(["red"], 99), "a red cat sits. the dog is big; so is a blue house"
    parts = ["a red cat sits.", "the dog is big;", "so is a blue house"]
    scores = [text_image_similarity.of_images(image, prompts=[part], path=str(folder)).item() for part in parts]
    whole = text_image_similarity.of_images(image, prompts=[prompt], path=str(folder)).item()
    assert whole == pytest.approx(np.mean(scores), abs=1e-6)
    assert whole != pytest.approx(scores[0], abs=1e-3)


def test_segments_are_sentences_and_parts_of_long_ones():
    def fits(text: str) -> bool:
        return len(text) <= 12

    assert segments("a. b. c. d.", fits) == ["a. b. c. d."]  # whole
    assert segments("one two. three! four\nfive", fits) == ["one two.", "three!", "four", "five"]
    assert segments("one two three four five", fits) == ["one two", "three four", "five"]
    with pytest.raises(ValueError, match="cannot read the word 'incomprehensible'"):
        segments("it is incomprehensible", fits)


def test_pictures_are_seen_as_the_image_processor_makes_them(folder):
    rows = np.linspace(0, 1, 48)[:, None] * np.linspace(0.2, 1, 32)[None]  # (48, 32), smooth
    image = np.rint(np.stack([rows, rows[::-1], 1 - rows], -1) * 255).astype(np.uint8)
    expected = CLIPImageProcessor.from_pretrained(folder)(image, return_tensors="pt")["pixel_values"]
    found = DualEncoder(str(folder), "cpu").pixels(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
    assert found.shape == expected.shape == (1, 3, 16, 16)
    torch.testing.assert_close(found, expected, rtol=0, atol=1.5 / 255 / 0.25)  # it rounds to bytes on the way


def test_the_gradient_is_that_of_finite_differences(folder, captions):
    total = DifferentiableTotal(
        {"fit": RewardTerm(function="text_image_similarity", args={"path": str(folder), "common_captions": captions})}
    )
    images = (0.5 + 0.2 * painted(["red", "blue"], 99)).requires_grad_()  # no value is clamped
    total(images, ["green", "red"], {}).sum().backward()
    assert images.grad is not None
    slope = images.grad.norm()
    with torch.no_grad():
        step = 1e-2 * images.grad / slope
        up, down = (total(images + sign * step, ["green", "red"], {}).sum() for sign in (1, -1))
    assert float((up - down) / 2e-2) == pytest.approx(float(slope), rel=2e-2)
    assert all(parameter.grad is None for parameter in dual_encoder(str(folder), "cpu").model.parameters())


def test_following_the_gradient_paints_what_the_prompt_says(folder):
    prompts = list(COLOURS)
    images = torch.full((3, 3, 16, 16), 0.5, requires_grad=True)
    for _ in range(20):
        reward = text_image_similarity.of_images(images, prompts=prompts, path=str(folder)).sum()
        (gradient,) = torch.autograd.grad(reward, images)
        images = (images + 0.5 * gradient / gradient.norm()).clamp(0, 1).detach().requires_grad_()
    brightest = images.mean(dim=(2, 3)).argmax(1)
    assert brightest.tolist() == [0, 1, 2]
    fit = functional.softmax(torch.stack([_against(folder, images, name) for name in prompts], 1) * 10, 1)
    assert fit.diagonal().min() > 0.5


def _against(folder: Path, images: Tensor, prompt: str) -> Tensor:
    with torch.no_grad():
        return text_image_similarity.of_images(images, prompts=[prompt] * len(images), path=str(folder))


def test_wrong_arguments_say_what_to_give(folder, tmp_path):
    image, args = painted(["red"], 0), {"prompts": ["red"], "path": str(folder)}
    with pytest.raises(ValueError, match=r"needs args.path"):
        text_image_similarity.of_images(image, prompts=["red"])
    with pytest.raises(ValueError, match=r"common_share=1.5; it must lie in"):
        text_image_similarity.of_images(image, **args, common_share=1.5)
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="has no caption"):
        text_image_similarity.of_images(image, **args, common_captions=str(tmp_path / "empty.txt"))


def test_missing_weights_are_not_drawn_at_random(folder, tmp_path):
    model = CLIPModel.from_pretrained(folder)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "visual_projection.weight"}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r"no weights for visual_projection.weight"):
        DualEncoder(str(tmp_path), "cpu")

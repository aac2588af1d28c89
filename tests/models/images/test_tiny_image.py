from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from transformers import CLIPTextModelWithProjection

import models.tiny
from models.tiny.autoencoder import empty_autoencoder, fit_autoencoder, standardise
from models.tiny.image import untrained_pipeline
from models.tiny.prompts import MAX_TOKENS, prompt_tokenizer, scramble, text_encoder_config
from rewards.images.digits import WORDS as DIGITS
from rewards.images.digits import digit_images
from rewards.scenes.verifier import verify
from rewards.scenes.world import choose, compositions, demonstration

FOLDER = Path(models.tiny.__file__).parent
PROMPTS = [composition.text for composition in compositions()] + [f"the digit {word}" for word in DIGITS]


def load(folder: Path) -> DiffusionPipeline:
    """As anyone would."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(kind: str, pipeline: DiffusionPipeline, prompt: str, **arguments: int) -> np.ndarray:
    """Four pictures, uint8 (4, 32, 32, 3)."""
    few_t5 = {"max_sequence_length": MAX_TOKENS} if kind == "scenes" else {}
    generator = torch.Generator().manual_seed(0)
    images = pipeline(
        [prompt] * 4, guidance_scale=1.0, generator=generator, output_type="np", **few_t5, **arguments
    ).images
    return (images * 255).round().astype(np.uint8)


def test_every_word_of_every_prompt_is_one_token_and_every_prompt_fits() -> None:
    tokenizer = prompt_tokenizer()
    for prompt, ids in zip(PROMPTS, tokenizer(PROMPTS).input_ids, strict=True):
        assert len(ids) == len(prompt.split()) + 2 <= MAX_TOKENS
        assert tokenizer.decode(ids, skip_special_tokens=True) == prompt


def test_any_text_is_encoded_without_unknown_tokens() -> None:
    tokenizer = prompt_tokenizer()
    ids = tokenizer("~Zebra #7 é☃!", add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids).replace(" ", "") == "~zebra#7é☃!"


def test_the_text_encoder_tells_all_prompts_apart() -> None:
    tokenizer = prompt_tokenizer()
    encoder = CLIPTextModelWithProjection(text_encoder_config(tokenizer)).eval()
    scramble(encoder, 0)
    ids = tokenizer(PROMPTS, padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids
    with torch.no_grad():
        states = encoder(ids, output_hidden_states=True).hidden_states[-2]
    distances = torch.pdist(states.flatten(1))
    assert distances.min() > 8  # one changed word: about sqrt(2 * 64) = 11


@pytest.mark.parametrize("kind", ["scenes", "digits"])
def test_an_untrained_base_is_a_function_of_its_seed_and_leaves_the_global_generator_alone(kind: str) -> None:
    autoencoder = empty_autoencoder(32)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, same, other = (untrained_pipeline(kind, autoencoder, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    weights = [pipeline.text_encoder.get_input_embeddings().weight for pipeline in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_an_unknown_base_is_an_error() -> None:
    with pytest.raises(ValueError, match="choose scenes or digits"):
        untrained_pipeline("faces", empty_autoencoder(32), seed=0)


def test_fitting_an_autoencoder_lowers_its_error() -> None:
    images = scenes(64)
    short, longer = (fit_autoencoder(images, seed=0, updates=updates) for updates in (2, 40))
    assert reconstruction_error(longer, images) < 0.7 * reconstruction_error(short, images)


@pytest.mark.parametrize("shift", [True, False])
def test_standardised_latents_have_deviation_one_and_mean_zero_where_there_is_a_shift(shift: bool) -> None:
    images = scenes(16)
    fresh = empty_autoencoder(32)
    config = standardise(fresh, images, shift=shift).config
    latents = (encode(fresh, images) - (config.shift_factor or 0.0)) * config.scaling_factor
    assert abs(latents.std() - 1) < 0.01
    assert (config.shift_factor is not None) == shift
    assert (abs(latents.mean()) < 0.01) == shift


def scenes(count: int) -> np.ndarray:
    return np.stack([demonstration(choose("train", 0, index), 0, index) for index in range(count)])


def encode(autoencoder: AutoencoderKL, images: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        return autoencoder.encode(pixels).latent_dist.mean


def reconstruct(autoencoder: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        pixels = autoencoder.decode(encode(autoencoder, images)).sample
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def reconstruction_error(autoencoder: AutoencoderKL, images: np.ndarray) -> float:
    return float(np.abs(reconstruct(autoencoder, images) - images.astype(float)).mean())


def test_the_embedded_autoencoder_keeps_scenes_exact() -> None:
    autoencoder = AutoencoderKL.from_pretrained(FOLDER / "scenes", subfolder="vae")
    asked = [choose("train", 1, index) for index in range(400)]
    images = np.stack([demonstration(composition, 1, index) for index, composition in enumerate(asked)])
    decoded = reconstruct(autoencoder, images)
    assert np.mean([verify(*pair).strict for pair in zip(decoded, asked, strict=True)]) >= 0.99


def test_the_embedded_autoencoder_keeps_digits_close() -> None:
    autoencoder = AutoencoderKL.from_pretrained(FOLDER / "digits", subfolder="vae")
    assert reconstruction_error(autoencoder, digit_images("held_out")[0]) < 4  # of 255


@pytest.mark.parametrize(("kind", "prompt"), [("scenes", "a red circle"), ("digits", "the digit three")])
def test_an_embedded_base_loads_in_the_stock_class_and_follows_its_prompt(kind: str, prompt: str) -> None:
    pipeline = load(FOLDER / kind)
    images = draw(kind, pipeline, prompt, num_inference_steps=4)
    assert images.shape == (4, 32, 32, 3)
    assert len({image.tobytes() for image in images}) == 4
    other = draw(kind, pipeline, "two blue squares" if kind == "scenes" else "the digit eight", num_inference_steps=4)
    assert np.abs(images.astype(float) - other).mean() > 2


def test_the_embedded_image_bases_are_small() -> None:
    files = [file for kind in ("scenes", "digits") for file in (FOLDER / kind).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 10_000_000

"""Prompts in, pixels out: limits, the empty prompt, and independence of the batch mates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.image_processor import VaeImageProcessor

from models.files import CheckpointError
from models.images.checkpoint import load_image_codec, load_prompt_encoder, read_prompt_limits
from models.images.prompt_limits import ControlTokenError, PromptLimits, PromptTooLongError
from models.options import Precision
from tests.models.pipelines import (
    CLIP_TOKENS,
    NAMES,
    T5_TOKENS,
    T5_WIDTH,
    clip_tokenizer,
    image_options,
    t5_tokenizer,
    tiny_pipeline,
)


@pytest.mark.parametrize("name", NAMES)
def test_a_condition_does_not_depend_on_the_other_prompts(pipelines: dict[str, Path], name: str) -> None:
    encoder = load_prompt_encoder(image_options(pipelines[name]))
    prompts = ["red cat", "a", "blue dog", "a", ""]
    together = encoder.encode(prompts)
    assert together.embeds.shape[0] == len(prompts)
    assert (together.pooled is None) == (name == "sd")
    for row, prompt in enumerate(prompts):
        alone = encoder.encode([prompt])
        assert torch.equal(together.embeds[row], alone.embeds[0])
        assert together.pooled is None or torch.equal(together.pooled[row], alone.pooled[0])
    assert not torch.equal(together.embeds[0], together.embeds[2])


@pytest.mark.parametrize("name", NAMES)
def test_bf16_encoders_give_fp32_conditions(pipelines: dict[str, Path], name: str) -> None:
    condition = load_prompt_encoder(image_options(pipelines[name], precision=Precision.bf16)).encode(["cat"])
    assert condition.embeds.dtype == torch.float32
    assert torch.equal(condition.embeds, condition.embeds.bfloat16().float())
    assert condition.pooled is None or condition.pooled.dtype == torch.float32


@pytest.mark.parametrize("zeros", [True, False])
def test_sdxl_without_a_prompt_is_what_its_model_index_says(tmp_path: Path, zeros: bool) -> None:
    pipeline = tiny_pipeline("sdxl")
    pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    pipeline.save_pretrained(tmp_path)
    _, embeds, _, pooled = pipeline.encode_prompt(["cat"], device=torch.device("cpu"))
    condition = load_prompt_encoder(image_options(tmp_path)).encode(["cat", ""])
    assert condition.pooled is not None
    assert (condition.embeds[1].abs().max() == 0) == zeros
    torch.testing.assert_close(condition.embeds[1:], embeds, rtol=0, atol=1e-6)
    torch.testing.assert_close(condition.pooled[1:], pooled, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "limit", "authority"),
    [
        ("sd", CLIP_TOKENS, "its tokenizer"),
        ("sdxl", CLIP_TOKENS, "its tokenizer"),
        ("flux", 6, "model.max_sequence_length"),
    ],
)
def test_a_prompt_that_would_be_cut_off_is_refused(
    pipelines: dict[str, Path], name: str, limit: int, authority: str
) -> None:
    options = image_options(pipelines[name], max_sequence_length=limit)
    fits = "x" * (limit - 2)
    for check in (lambda prompt: load_prompt_encoder(options).encode(["a", prompt]), read_prompt_limits(options).check):
        check(fits)
        with pytest.raises(
            PromptTooLongError, match=rf"'{fits}x' has {limit + 1} tokens .* {authority} allows {limit}"
        ):
            check(f"{fits}x")


def test_sd3_runs_without_t5(pipelines: dict[str, Path], tmp_path: Path) -> None:
    """Left out by the options its tokens are gone; missing in the pipeline they are zeros, as in the stock pipeline."""
    whole = load_prompt_encoder(image_options(pipelines["sd3"])).encode(["cat"])
    clip = load_prompt_encoder(image_options(pipelines["sd3"], max_sequence_length=0)).encode(["cat"])
    assert clip.embeds.shape == (1, CLIP_TOKENS, T5_WIDTH)
    assert torch.equal(clip.embeds, whole.embeds[:, :CLIP_TOKENS])

    pipeline = tiny_pipeline("sd3")
    pipeline.register_modules(text_encoder_3=None, tokenizer_3=None)
    pipeline.save_pretrained(tmp_path)
    zeros = load_prompt_encoder(image_options(tmp_path)).encode(["cat"])
    stock = pipeline.encode_prompt("cat", None, None, max_sequence_length=T5_TOKENS)[0]
    torch.testing.assert_close(zeros.embeds, stock, rtol=0, atol=1e-6)
    assert zeros.embeds.shape[1] == CLIP_TOKENS + T5_TOKENS


@pytest.mark.parametrize(("name", "tokens"), [("flux", 0), ("sd3", -1), ("sd3", 513)])
def test_impossible_numbers_of_t5_tokens_are_refused(pipelines: dict[str, Path], name: str, tokens: int) -> None:
    with pytest.raises(CheckpointError, match=f"model.max_sequence_length={tokens}"):
        read_prompt_limits(image_options(pipelines[name], max_sequence_length=tokens))


def test_no_prompts_are_refused(pipelines: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="no prompts"):
        load_prompt_encoder(image_options(pipelines["sd"])).encode([])


@pytest.mark.parametrize("name", NAMES)
def test_images_are_independent_of_their_mates_and_rounded_like_the_stock_ones(
    pipelines: dict[str, Path], name: str
) -> None:
    codec = load_image_codec(image_options(pipelines[name], precision=Precision.bf16))
    assert codec.vae.dtype == torch.float32
    latents = torch.randn(5, 4, 16, 24, generator=torch.Generator().manual_seed(3))
    images = codec.decode(latents)
    assert images.shape == (5, 32, 48, 3)
    for row in range(5):
        assert torch.equal(codec.decode(latents[row : row + 1])[0], images[row])

    config = codec.vae.config
    with torch.no_grad():
        pixels = codec.vae.decode(latents / config.scaling_factor + (config.shift_factor or 0.0)).sample
    stock = VaeImageProcessor().numpy_to_pil(VaeImageProcessor().postprocess(pixels, output_type="np"))
    assert len(set(images.flatten().tolist())) > 50
    for image, expected in zip(images, stock, strict=True):
        assert (image.int() - torch.tensor(list(expected.getdata())).view(32, 48, 3)).abs().max() <= 1


def test_encoding_is_the_inverse_scaling_of_decoding(pipelines: dict[str, Path]) -> None:
    codec = load_image_codec(image_options(pipelines["sd3"]))
    images = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    latents = codec.encode(images)
    with torch.no_grad():
        mean = codec.vae.encode(images.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean
    torch.testing.assert_close(latents, (mean - 0.06) * codec.vae.config.scaling_factor, rtol=0, atol=1e-5)
    assert latents.shape == (2, 4, 16, 24)


def test_statistics_per_channel_are_used(tmp_path: Path) -> None:
    mean, std = [0.1, -0.2, 0.3, 0.0], [1.0, 2.0, 0.5, 1.5]
    pipeline = tiny_pipeline("sdxl")
    pipeline.vae.register_to_config(latents_mean=mean, latents_std=std)
    pipeline.save_pretrained(tmp_path)
    codec = load_image_codec(image_options(tmp_path))
    plain = tiny_pipeline("sdxl").vae
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    shaped = [torch.tensor(values).view(1, 4, 1, 1) for values in (mean, std)]
    with torch.no_grad():
        pixels = plain.decode(latents * shaped[1] / plain.config.scaling_factor + shaped[0]).sample
    expected = (pixels.clamp(-1, 1) + 1) * 127.5
    assert (codec.decode(latents) - expected.permute(0, 2, 3, 1)).abs().max() < 0.51


@pytest.mark.parametrize("prompt", ["a <|endoftext|> b", "a <|ENDOFTEXT|> b", "<|startoftext|>cat", "cat </s> dog"])
def test_a_prompt_that_spells_a_control_token_is_refused(prompt: str) -> None:
    """CLIP would sum the text up where it is."""
    limits = PromptLimits({"tokenizer": clip_tokenizer(), "tokenizer_3": t5_tokenizer()}, "tokenizer_3", T5_TOKENS)
    with pytest.raises(ControlTokenError, match=r"a control token of its tokenizer"):
        limits.check(prompt)
    limits.check("a cat < b | c >")

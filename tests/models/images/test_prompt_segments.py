"""Long prompts in segments: where they are split, and that their encoding is what the stock pipeline makes of each,
put together as LongAlign does it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from models.files import CheckpointError
from models.images.checkpoint import load_image_policy, load_prompt_encoder, read_prompt_limits
from models.images.prompt_limits import PromptTooLongError
from models.images.prompt_segments import split
from models.images.spec import Condition
from models.lora import trainable_parameters
from models.options import TrainedPart
from tests.models.pipelines import CLIP_TOKENS, CLIP_WIDTH, image_options, tiny_pipeline

UNETS = ["sd", "sdxl"]
LONG = "red cats sit down by a lake"
"""21 letters: two segments of at most 14, a token a letter."""
HALVES = ["red cats sit down", "by a lake"]


@pytest.mark.parametrize(
    ("prompt", "most", "expected"),
    [
        ("", 2, [""]),
        ("a b. c", 2, ["a b. c"]),
        ("aaa bbb ccc d", 2, ["aaa bbb ccc d"]),  # ten letters, exactly what fits
        ("aaa bbb ccc dd", 2, ["aaa bbb ccc", "dd"]),
        ("aaaa. bbb. cccc.", 2, ["aaaa. bbb.", "cccc."]),
        ("aaaa bbb! cccc ddd? eee", 2, ["aaaa bbb!", "cccc ddd? eee"]),
        ("aa aa aa aa aa aa. bb", 3, ["aa aa aa aa aa", "aa. bb"]),  # a sentence that is too long
        ("aaaaaa\nbbbbbb\ncccccc", 3, ["aaaaaa", "bbbbbb", "cccccc"]),
        ("aaa aaa. bbb bbb. ccc ccc.", 3, ["aaa aaa.", "bbb bbb.", "ccc ccc."]),
        ("aaa aaa. bbb bbb. ccc ccc.", 2, ["aaa aaa. bbb", "bbb. ccc ccc."]),  # only words make it two
        ("aaaaaaaaaaa b", 2, ["aaaaaaaaaaa", "b"]),
        ("aaa bbb ccc ddd eee fff ggg", 2, ["aaa bbb ccc", "ddd eee fff", "ggg"]),  # more than there may be
    ],
)
def test_prompts_are_split_at_sentences_and_otherwise_between_words(
    prompt: str, most: int, expected: list[str]
) -> None:
    assert split(prompt, lambda text: sum(map(str.isalpha, text)) <= 10, most) == expected


@pytest.mark.parametrize("name", UNETS)
def test_a_prompt_is_held_to_its_segments(pipelines: dict[str, Path], name: str) -> None:
    limits = read_prompt_limits(image_options(pipelines[name], prompt_segments=2))
    assert limits.split("x" * 14) == ["x" * 14]
    assert limits.split(LONG) == HALVES
    assert limits.split(f"{'x' * 14} {'y' * 14}") == ["x" * 14, "y" * 14]
    with pytest.raises(
        PromptTooLongError, match=r"has 31 tokens .* takes 3 segments, but model.prompt_segments allows 2.* set it to 3"
    ):
        limits.check(f"{'x' * 14} {'y' * 14} z")
    with pytest.raises(PromptTooLongError, match=r"the word 'x{15}' alone has 17 tokens .* its tokenizer allows 16"):
        limits.check(f"a {'x' * 15}")
    with pytest.raises(PromptTooLongError, match=r"has 23 tokens .* allows 16, .* \(model.prompt_segments\)"):
        read_prompt_limits(image_options(pipelines[name])).check(LONG)


@pytest.mark.parametrize("name", UNETS)
def test_a_single_segment_is_the_stock_encoding(pipelines: dict[str, Path], name: str) -> None:
    """To rounding: loaded weights lie where their file has them, at any multiple of four bytes, and the product of a
    matrix and one vector, SDXL's pooled embedding, may begin its sum at the next aligned address. With MKL's SSE
    kernels that is 2.4e-7, 32 terms of size 1 or less; another letter is the control."""
    condition = load_prompt_encoder(image_options(pipelines[name])).encode(["red cat"])
    pipeline = tiny_pipeline(name)
    stock, other = encoded_by(pipeline, "red cat"), encoded_by(pipeline, "red car")
    torch.testing.assert_close(condition.embeds, stock.embeds, rtol=0, atol=1e-6)
    assert (condition.embeds - other.embeds).abs().max() > 0.1
    if stock.pooled is not None:
        torch.testing.assert_close(condition.pooled, stock.pooled, rtol=0, atol=1e-6)
        assert (condition.pooled - other.pooled).abs().max() > 0.1


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize(("prompt", "parts"), [(LONG, HALVES), ("red cat", ["red cat"]), ("x" * 14, ["x" * 14])])
def test_segments_are_the_stock_encodings_behind_each_other(
    pipelines: dict[str, Path], name: str, prompt: str, parts: list[str]
) -> None:
    """Of each <sot> and the words; then the mean of an empty text's last tokens, twelve of 16 as 60 of 77."""
    condition = load_prompt_encoder(image_options(pipelines[name], prompt_segments=3)).encode([prompt])
    stock = tiny_pipeline(name)
    segments = [encoded_by(stock, part) for part in parts]
    told = [segment.embeds[0, : 1 + len(part.replace(" ", ""))] for segment, part in zip(segments, parts, strict=True)]
    padding = encoded_by(stock, "").embeds[0, 4:].mean(0)
    expected = torch.cat([*told, *[padding[None]] * (3 * CLIP_TOKENS - sum(map(len, told)))])
    torch.testing.assert_close(condition.embeds[0], expected, rtol=0, atol=1e-6)
    direct = torch.cat([segment.embeds[0] for segment in segments])
    assert (condition.embeds[0, : len(direct)] - direct).abs().max() > 0.1  # <eot> and its padding left in
    if segments[0].pooled is not None:
        pooled = torch.stack([segment.pooled for segment in segments]).mean(0)
        torch.testing.assert_close(condition.pooled, pooled, rtol=0, atol=1e-6)
        assert len(parts) == 1 or (condition.pooled - segments[0].pooled).abs().max() > 0.1


@pytest.mark.parametrize("name", UNETS)
def test_every_word_reaches_the_condition(pipelines: dict[str, Path], name: str) -> None:
    encoder = load_prompt_encoder(image_options(pipelines[name], prompt_segments=2))
    one, other = encoder.encode([LONG]), encoder.encode([LONG.replace("lake", "lane")])
    moved = (one.embeds - other.embeds).abs().amax((0, 2)) > 0
    assert moved.nonzero()[0].item() == 15 + 1 + 5  # the letter that differs, in the second segment
    assert one.pooled is None or not torch.equal(one.pooled, other.pooled)
    with pytest.raises(PromptTooLongError):
        load_prompt_encoder(image_options(pipelines[name])).encode([LONG])


@pytest.mark.parametrize("zeros", [True, False])
def test_no_prompt_has_the_shape_of_every_prompt(tmp_path: Path, zeros: bool) -> None:
    """SDXL's is what its model_index.json says; the padding of a prompt is an empty text's in either case."""
    pipeline = tiny_pipeline("sdxl")
    pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    pipeline.save_pretrained(tmp_path)
    encoder = load_prompt_encoder(image_options(tmp_path, prompt_segments=2))
    empty, short, long = (encoder.encode([prompt]) for prompt in ("", "red", LONG))
    assert empty.embeds.shape == short.embeds.shape == long.embeds.shape == (1, 2 * CLIP_TOKENS, 2 * CLIP_WIDTH)
    assert empty.pooled is not None
    assert (empty.embeds.abs().max() == 0) == (empty.pooled.abs().max() == 0) == zeros
    assert short.embeds[0, -1].abs().max() > 0
    assert torch.equal(short.embeds[0, -1], long.embeds[0, -1])
    together = encoder.encode([LONG, "", "red"])
    for row, alone in enumerate([long, empty, short]):
        assert torch.equal(together.embeds[row], alone.embeds[0])


@pytest.mark.parametrize("name", UNETS)
def test_trained_encoders_get_the_gradient_of_every_segment(pipelines: dict[str, Path], name: str) -> None:
    """Against finite differences, over words and padding; letters of the second segment alone have some too."""
    policy = load_image_policy(image_options(pipelines[name], prompt_segments=3, train=TrainedPart.text_encoder))
    assert policy.prompt_encoder is not None
    encoder, parameters = policy.prompt_encoder, trainable_parameters(policy)
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(3 * CLIP_TOKENS, encoder.encode([""]).embeds.shape[2], generator=generator)

    def value() -> Tensor:
        found = encoder.encode([LONG])
        return (found.embeds[0] * weights).sum() + (0 if found.pooled is None else found.pooled.sum())

    value().backward()
    found = {key: parameter.grad for key, parameter in parameters.items() if parameter.grad is not None}
    norm = torch.stack([gradient.square().sum() for gradient in found.values()]).sum().sqrt()
    values = []
    with torch.no_grad():
        for length in (1e-2, -2e-2):
            for key, gradient in found.items():
                parameters[key].add_(length * gradient / norm)
            values.append(float(value()))
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(float(norm), rel=2e-2)
    letters = policy.text_encoders["text_encoder"].get_input_embeddings().weight.grad
    tokenizer = tiny_pipeline(name).tokenizer
    for text, used in [("lake", True), ("pug", False)]:
        ids = tokenizer(text).input_ids[1:-1]
        assert (letters[ids].abs().amax(1) > 0).all() if used else (letters[ids] == 0).all()


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_families_that_read_through_t5_take_one_segment(pipelines: dict[str, Path], name: str) -> None:
    for load in (load_prompt_encoder, read_prompt_limits):
        with pytest.raises(CheckpointError, match=rf"prompt_segments=2, but family {name} reads a prompt whole"):
            load(image_options(pipelines[name], prompt_segments=2))


@torch.no_grad()
def encoded_by(pipeline: DiffusionPipeline, prompt: str) -> Condition:
    """By the stock pipeline."""
    settings = {"device": torch.device("cpu"), "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    found = pipeline.encode_prompt([prompt], **settings)
    return Condition(found[0], found[2] if len(found) == 4 else None)

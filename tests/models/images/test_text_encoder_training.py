"""Policies that train their text encoders: what is trained, adapters in it, what is exported, mixed encodings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from models.files import CheckpointError
from models.images.checkpoint import load_image_policy, load_prompt_encoder
from models.images.export import export_image_policy
from models.images.policy import ImagePolicy
from models.images.spec import Condition
from models.lora import trainable_parameters, without_adapters
from models.options import LoraOptions, TrainedPart
from tests.models.pipelines import NAMES, image_options

CLIP_LORA = LoraOptions(rank=4, alpha=10.0, target_modules=["q_proj", "v_proj", "out_proj"])
T5_LORA = LoraOptions(rank=4, alpha=10.0, target_modules=["q", "o"])


def tuned(folder: Path, lora: LoraOptions | None = None, share: float = 1.0) -> ImagePolicy:
    """A policy whose trained weights have moved, as after training."""
    options = image_options(folder, train=TrainedPart.text_encoder, lora=lora, text_encoder_share=share)
    policy = load_image_policy(options)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable_parameters(policy).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return policy


def encoded(policy: ImagePolicy, prompt: str = "red") -> Condition:
    assert policy.prompt_encoder is not None
    with torch.no_grad():
        return policy.prompt_encoder.encode([prompt])


def distance(one: Condition, other: Condition) -> float:
    found = (one.embeds - other.embeds).abs().max()
    if one.pooled is not None and other.pooled is not None:
        found = torch.maximum(found, (one.pooled - other.pooled).abs().max())
    return float(found)


@pytest.mark.parametrize("name", NAMES)
def test_the_encoders_are_trained_and_the_network_is_not(pipelines: dict[str, Path], name: str) -> None:
    policy = load_image_policy(image_options(pipelines[name], train=TrainedPart.text_encoder))
    names = trainable_parameters(policy)
    encoders = {key.split(".")[1] for key in names}
    assert encoders == {file.name for file in pipelines[name].glob("text_encoder*")}
    assert all(key.startswith("text_encoders.") for key in names)
    assert not any(parameter.requires_grad for parameter in policy.network.parameters())
    assert not any(module.training for module in policy.train().text_encoders.modules())
    assert policy.network.training
    assert policy.prompt_encoder is not None
    policy.prompt_encoder.encode(["red"]).embeds.square().sum().backward()
    with_gradient = {key.split(".")[1] for key, parameter in names.items() if parameter.grad is not None}
    assert with_gradient == (encoders - {"text_encoder"} if name == "flux" else encoders)  # its CLIP is pooled only


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("adapters", [False, True])
def test_gradient_checkpointing_recomputes_and_changes_no_gradient(
    pipelines: dict[str, Path], name: str, adapters: bool
) -> None:
    lora = (T5_LORA if name == "flux" else CLIP_LORA) if adapters else None

    def gradients(recompute: bool, training: bool = True) -> tuple[dict[str, Tensor], list[int], list[bool]]:
        """Of every trained weight; how often each layer of the encoders was computed, and whether it is on the way of
        the gradient."""
        policy = load_image_policy(
            image_options(pipelines[name], train=TrainedPart.text_encoder, lora=lora, gradient_checkpointing=recompute)
        ).train(training)
        assert policy.prompt_encoder is not None
        layers = [each for each in policy.text_encoders.modules() if isinstance(each, GradientCheckpointingLayer)]
        calls = [0] * len(layers)
        for place, layer in enumerate(layers):
            first = next(part for part in layer.modules() if not list(part.children()))
            # Seen when it starts: a recomputation ends with the last activation that is needed.
            first.register_forward_pre_hook(lambda *_, place=place: calls.__setitem__(place, calls[place] + 1))
        condition = policy.prompt_encoder.encode(["red"])
        loss = condition.embeds.square().sum()
        (loss if condition.pooled is None else loss + condition.pooled.square().sum()).backward()
        found = {key: p.grad for key, p in trainable_parameters(policy).items() if p.grad is not None}
        return found, calls, [any(p.grad is not None for p in layer.parameters()) for layer in layers]

    plain, once, on_the_way = gradients(False)
    recomputed, twice, _ = gradients(True)
    assert plain.keys() == recomputed.keys()
    assert all(torch.equal(recomputed[key], plain[key]) for key in plain)
    assert set(once) == {1}
    assert any(on_the_way)
    assert twice == [2 if each else 1 for each in on_the_way]
    assert gradients(True, training=False)[1] == once


@pytest.mark.parametrize("name", NAMES)
def test_untouched_they_encode_as_the_frozen_ones(pipelines: dict[str, Path], name: str) -> None:
    policy = load_image_policy(image_options(pipelines[name], train=TrainedPart.text_encoder))
    frozen = load_prompt_encoder(image_options(pipelines[name])).encode(["red"])
    assert distance(encoded(policy), frozen) == 0
    assert distance(encoded(tuned(pipelines[name])), frozen) > 1e-2


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux"])
def test_adapters_switch_off_to_the_untuned_encoders(pipelines: dict[str, Path], name: str) -> None:
    base = load_prompt_encoder(image_options(pipelines[name])).encode(["red"])
    policy = tuned(pipelines[name], T5_LORA if name == "flux" else CLIP_LORA)
    assert all(".lora_" in key for key in trainable_parameters(policy))
    assert distance(encoded(policy), base) > 1e-2
    with without_adapters(policy) as reference:
        assert distance(encoded(reference), base) == 0


@pytest.mark.parametrize("name", ["sd", "sdxl"])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_mixes_both_encodings(pipelines: dict[str, Path], name: str, share: float) -> None:
    base = load_prompt_encoder(image_options(pipelines[name])).encode(["red"])
    whole = encoded(tuned(pipelines[name]))
    mixed = encoded(tuned(pipelines[name], share=share))
    if share in (0, 1):
        assert distance(mixed, whole if share else base) == 0
    expected = share * whole.embeds + (1 - share) * base.embeds
    torch.testing.assert_close(mixed.embeds, expected, rtol=1e-6, atol=1e-6)
    if mixed.pooled is not None and whole.pooled is not None and base.pooled is not None:
        torch.testing.assert_close(mixed.pooled, share * whole.pooled + (1 - share) * base.pooled)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lora", [False, True])
def test_an_exported_pipeline_encodes_as_the_policy(
    pipelines: dict[str, Path], tmp_path: Path, name: str, lora: bool
) -> None:
    policy = tuned(pipelines[name], (T5_LORA if name == "flux" else CLIP_LORA) if lora else None)
    export_image_policy(policy, tmp_path, str(pipelines[name]))
    again = load_prompt_encoder(image_options(tmp_path)).encode(["red"])
    assert distance(again, encoded(policy)) <= (1e-5 if lora else 0)
    stock = DiffusionPipeline.from_pretrained(tmp_path)
    for key, encoder in policy.text_encoders.items():
        loaded = getattr(stock, key).state_dict()
        if not lora:
            assert_equal(loaded, encoder.state_dict())
    network = next(pipelines[name].glob("*/diffusion_pytorch_model.safetensors")).relative_to(pipelines[name])
    assert_equal(load_file(tmp_path / network), load_file(pipelines[name] / network))
    files = {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {file.relative_to(pipelines[name]) for file in pipelines[name].rglob("*") if file.is_file()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_exported_adapters_are_loaded_by_the_stock_pipeline(
    pipelines: dict[str, Path], tmp_path: Path, name: str
) -> None:
    policy = tuned(pipelines[name], CLIP_LORA)
    export_image_policy(policy, tmp_path, str(pipelines[name]), adapter_only=True)
    stock = DiffusionPipeline.from_pretrained(pipelines[name])
    before = _hidden(stock)
    stock.load_lora_weights(tmp_path)
    expected = [_output(encoder) for encoder in policy.text_encoders.values() if not hasattr(encoder, "shared")]
    assert len(expected) == len(before)
    for loaded, base, wanted in zip(_hidden(stock), before, expected, strict=True):
        assert (loaded - base).abs().max() > 1e-2
        torch.testing.assert_close(loaded, wanted, rtol=0, atol=1e-5)


def _hidden(pipeline: DiffusionPipeline) -> list[Tensor]:
    encoders = (getattr(pipeline, name, None) for name in ("text_encoder", "text_encoder_2"))
    return [_output(encoder) for encoder in encoders if encoder is not None]


def _output(encoder: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        return encoder(torch.tensor([[0, 5, 7, 9, 1]]), output_hidden_states=True).hidden_states[-1]


def test_adapters_that_no_pipeline_loads_are_refused(pipelines: dict[str, Path], tmp_path: Path) -> None:
    policy = tuned(pipelines["flux"], T5_LORA)
    with pytest.raises(CheckpointError, match="loads no adapters of text_encoder_2"):
        export_image_policy(policy, tmp_path, str(pipelines["flux"]), adapter_only=True)

"""Adapters of image policies: off is the reference; merged or exported alone they give the trained network's output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from models.files import CheckpointError
from models.images.checkpoint import load_image_policy
from models.images.export import export_image_policy
from models.images.families import FAMILIES
from models.images.policy import ImagePolicy
from models.lora import add_adapters, has_adapters, trainable_parameters, without_adapters
from models.options import LoraOptions
from tests.models.pipelines import NAMES, image_options, random_inputs, tiny_pipeline

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
LORA = LoraOptions(rank=4, alpha=10.0, target_modules=ATTENTION)


def adapted(folder: Path, disturbed: bool = True) -> ImagePolicy:
    """A policy with adapters whose B matrices have values, as after training."""
    policy = load_image_policy(image_options(folder, lora=LORA))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable_parameters(policy).values() if disturbed else ():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return policy


def output(policy: ImagePolicy) -> Tensor:
    with torch.no_grad():
        return policy(**random_inputs(policy))


@pytest.mark.parametrize("name", NAMES)
def test_adapters_start_as_nothing_and_switch_off_to_the_base_bitwise(pipelines: dict[str, Path], name: str) -> None:
    base = output(load_image_policy(image_options(pipelines[name])))
    assert torch.equal(output(adapted(pipelines[name], disturbed=False)), base)
    policy = adapted(pipelines[name])
    trained = output(policy)
    assert (trained - base).abs().max() > 1e-2
    with without_adapters(policy) as reference:
        assert torch.equal(output(reference), base)
    assert torch.equal(output(policy), trained)


@pytest.mark.parametrize("name", NAMES)
def test_adapters_sit_in_every_attention_and_alone_get_gradients(pipelines: dict[str, Path], name: str) -> None:
    policy = adapted(pipelines[name]).train()
    names = list(trainable_parameters(policy))
    plain = load_image_policy(image_options(pipelines[name]))
    layers = [
        layer
        for layer, module in plain.network.named_modules()
        if isinstance(module, torch.nn.Linear) and any(layer.endswith(f".{target}") for target in ATTENTION)
    ]
    assert len(names) == 2 * len(layers)
    policy(**random_inputs(policy)).square().sum().backward()
    assert [key for key, parameter in policy.named_parameters() if parameter.grad is not None] == names


def test_first_weights_depend_on_the_seed_alone(pipelines: dict[str, Path]) -> None:
    def first_weights(seed: int) -> dict[str, Tensor]:
        torch.rand(3)  # whatever the global generator did before
        before = torch.get_rng_state()
        policy = load_image_policy(image_options(pipelines["sd3"], lora=LORA), adapter_seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        return {key: value.detach() for key, value in trainable_parameters(policy).items()}

    one, again, other = first_weights(1), first_weights(1), first_weights(2)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("targets", [["q_proj"], ["to_q", "o_out.0"], []])
def test_unknown_target_lists_the_available(pipelines: dict[str, Path], targets: list[str]) -> None:
    policy = load_image_policy(image_options(pipelines["sd"]))
    with pytest.raises(ValueError, match=r"target_modules.*'to_k', 'to_out.0', 'to_q', 'to_v'"):
        add_adapters(policy, LoraOptions(target_modules=targets), seed=0)
    assert not has_adapters(policy)


@pytest.mark.parametrize("name", NAMES)
def test_exported_pipeline_loads_as_the_stock_class_with_merged_weights(
    pipelines: dict[str, Path], tmp_path: Path, name: str
) -> None:
    policy = adapted(pipelines[name])
    export_image_policy(policy, tmp_path, str(pipelines[name]))
    again = load_image_policy(image_options(tmp_path))
    assert again.spec == policy.spec
    torch.testing.assert_close(output(again), output(policy), rtol=0, atol=1e-5)

    stock = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(stock) is FAMILIES[name].pipeline_class
    assert stock.components.keys() == tiny_pipeline(name).components.keys()
    loaded, used = getattr(stock, FAMILIES[name].denoiser).state_dict(), again.network.state_dict()
    assert loaded.keys() == used.keys()
    assert all(torch.equal(loaded[key], used[key]) for key in used)


@pytest.mark.parametrize("name", NAMES)
def test_without_adapters_an_export_is_bitwise_the_source(
    pipelines: dict[str, Path], tmp_path: Path, name: str
) -> None:
    policy = load_image_policy(image_options(pipelines[name]))
    export_image_policy(policy, tmp_path, str(pipelines[name]), max_shard_size=20_000)
    network = tmp_path / FAMILIES[name].denoiser
    assert len(list(network.glob("*.safetensors"))) > 1
    assert torch.equal(output(load_image_policy(image_options(tmp_path))), output(policy))

    export_image_policy(policy, tmp_path, str(pipelines[name]))  # in one file, which replaces the shards
    assert [file.name for file in network.glob("*.safetensors*")] == ["diffusion_pytorch_model.safetensors"]
    files = {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {file.relative_to(pipelines[name]) for file in pipelines[name].rglob("*") if file.is_file()}
    weights = "diffusion_pytorch_model.safetensors"
    source, exported = (load_file(folder / FAMILIES[name].denoiser / weights) for folder in (pipelines[name], tmp_path))
    assert source.keys() == exported.keys()
    assert all(torch.equal(exported[key], source[key]) for key in source)


@pytest.mark.parametrize("name", NAMES)
def test_exported_adapters_are_loaded_by_the_stock_pipeline(
    pipelines: dict[str, Path], tmp_path: Path, name: str
) -> None:
    policy = adapted(pipelines[name])
    export_image_policy(policy, tmp_path, str(pipelines[name]), adapter_only=True)
    assert [file.name for file in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]

    stock = DiffusionPipeline.from_pretrained(pipelines[name])
    network = getattr(stock, FAMILIES[name].denoiser)
    base = output(ImagePolicy(network, policy.spec))
    stock.load_lora_weights(tmp_path)
    loaded = output(ImagePolicy(network, policy.spec))
    assert (loaded - base).abs().max() > 1e-2
    torch.testing.assert_close(loaded, output(policy), rtol=0, atol=1e-5)


def test_half_is_the_nearest_fp16(pipelines: dict[str, Path], tmp_path: Path) -> None:
    for name, half in (("whole", False), ("half", True)):
        export_image_policy(
            adapted(pipelines["sd"]), tmp_path / name, str(pipelines["sd"]), adapter_only=True, half=half
        )
    file = "pytorch_lora_weights.safetensors"
    whole, halved = load_file(tmp_path / "whole" / file), load_file(tmp_path / "half" / file)
    assert {tensor.dtype for tensor in whole.values()} == {torch.float32}
    assert whole.keys() == halved.keys()
    assert all(torch.equal(halved[key], whole[key].half()) for key in whole)


def test_refusals(pipelines: dict[str, Path], tmp_path: Path) -> None:
    policy = load_image_policy(image_options(pipelines["sd"]))
    with pytest.raises(CheckpointError, match="no adapters"):
        export_image_policy(policy, tmp_path, str(pipelines["sd"]), adapter_only=True)
    with pytest.raises(CheckpointError, match="would be overwritten"):
        export_image_policy(policy, pipelines["sd"], str(pipelines["sd"]))
    with pytest.raises(CheckpointError, match="no such folder"):
        export_image_policy(policy, tmp_path / "new", "nowhere/at/all")
    assert not (tmp_path / "new").exists()

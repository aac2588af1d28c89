"""Attention to a user: switched off or untrained it is the loaded network; stock diffusers loads what it learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention

from models.files import CheckpointError
from models.images.checkpoint import load_image_policy
from models.images.export import export_image_policy
from models.images.policy import ImagePolicy
from models.lora import has_adapters, trainable_parameters, without_adapters
from models.options import Precision, UserAdapterOptions
from models.user_adapter import TOKENS, add_user_adapter
from tests.models.pipelines import image_options, random_inputs

FAMILIES = ("sd", "sdxl")
WIDTH = 5
USERS = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(9))


def adapted(folder: Path, trained: bool = True, scale: float = 1.0, **changes: object) -> ImagePolicy:
    """A policy with a user adapter whose weights are those of its start, or moved as by training."""
    options = UserAdapterOptions(WIDTH, scale)
    policy = load_image_policy(image_options(folder, user_adapter=options, **changes))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable_parameters(policy).values() if trained else ():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return policy


def output(policy: ImagePolicy, users: Tensor | None = USERS) -> Tensor:
    with torch.no_grad():
        return policy(**random_inputs(policy), user=users)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_it_starts_as_nothing_and_switches_off_to_the_base_bitwise(
    pipelines: dict[str, Path], name: str, precision: Precision
) -> None:
    base = output(load_image_policy(image_options(pipelines[name], precision=precision)), None)
    assert torch.equal(output(adapted(pipelines[name], trained=False, precision=precision)), base)
    policy = adapted(pipelines[name], precision=precision)
    assert has_adapters(policy)
    trained = output(policy)
    assert (trained - base).abs().max() > 1e-2
    with without_adapters(policy) as reference:
        assert torch.equal(output(reference), base)
        assert torch.equal(output(reference, -USERS), base)  # it knows no user
    assert torch.equal(output(policy), trained)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_alone_gets_gradients(pipelines: dict[str, Path], name: str) -> None:
    """Also where activations are recomputed; the projections' gradients are zero only as long as V is."""
    plain = load_image_policy(image_options(pipelines[name])).state_dict()
    gradients = []
    for recompute in (False, True):
        policy = adapted(pipelines[name], gradient_checkpointing=recompute).train()
        new = policy.state_dict().keys() - plain.keys()
        assert set(trainable_parameters(policy)) == new
        assert len(new) == 4 + 2 * len([key for key in plain if key.endswith("attn2.to_k.weight")])
        policy(**random_inputs(policy), user=USERS).square().sum().backward()
        gradients.append({key: value.grad for key, value in policy.named_parameters() if value.grad is not None})
        assert gradients[-1].keys() == new
        assert all(gradient.any() for gradient in gradients[-1].values())
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-4, atol=1e-5)


def test_attention_to_the_user_is_added_to_that_to_the_prompt(pipelines: dict[str, Path]) -> None:
    """softmax(Q K_prompt) V_prompt + scale x softmax(Q K_user) V_user, written out; without the scale it is another."""
    policy = adapted(pipelines["sd"], scale=0.7)
    network = policy.network
    name = next(name for name in network.attn_processors if name.endswith("attn2.processor"))
    attention = network.get_submodule(name.removesuffix(".processor"))
    seen: dict[str, tuple] = {}
    attention.register_forward_hook(
        lambda _, given, named, result: seen.update(one=(given[0], named["encoder_hidden_states"][0], result)),
        with_kwargs=True,
    )
    policy(**random_inputs(policy), user=USERS)
    hidden, prompt, result = (tensor[: len(USERS)] for tensor in seen["one"])

    def heads(values: Tensor) -> Tensor:
        return values.unflatten(-1, (attention.heads, -1)).transpose(1, 2)

    projection, processor = network.encoder_hid_proj.image_projection_layers[0], attention.processor
    flat = linear(USERS, projection.image_embeds.weight, projection.image_embeds.bias)
    tokens = flat.view(len(USERS), TOKENS, -1)
    tokens = layer_norm(tokens, tokens.shape[-1:], projection.norm.weight, projection.norm.bias)
    query = heads(attention.to_q(hidden))
    to_prompt = scaled_dot_product_attention(query, heads(attention.to_k(prompt)), heads(attention.to_v(prompt)))
    to_user = scaled_dot_product_attention(
        query, heads(linear(tokens, processor.to_k_ip[0].weight)), heads(linear(tokens, processor.to_v_ip[0].weight))
    )

    def expected(scale: float) -> Tensor:
        return attention.to_out[0]((to_prompt + scale * to_user).transpose(1, 2).flatten(2))

    torch.testing.assert_close(result, expected(0.7), rtol=1e-4, atol=1e-5)
    assert (result - expected(1.0)).abs().max() > 1e-2


def test_first_weights_depend_on_the_seed_alone(pipelines: dict[str, Path]) -> None:
    def first_weights(seed: int) -> list[Tensor]:
        torch.rand(3)  # whatever the global generator did before
        policy = load_image_policy(image_options(pipelines["sd"]))
        state = torch.random.get_rng_state()
        add_user_adapter(policy, UserAdapterOptions(WIDTH), seed)
        assert torch.equal(torch.random.get_rng_state(), state)
        return list(trainable_parameters(policy).values())

    first, again, other = first_weights(1), first_weights(1), first_weights(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_exported_adapter_is_loaded_by_the_stock_pipeline(
    pipelines: dict[str, Path], tmp_path: Path, name: str, scale: float
) -> None:
    policy = adapted(pipelines[name], scale=scale)
    export_image_policy(policy, tmp_path / "new", str(pipelines[name]), adapter_only=True)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["ip_adapter.safetensors"]

    export_image_policy(policy, tmp_path / "half", str(pipelines[name]), adapter_only=True, half=True)
    whole, halved = (load_file(tmp_path / folder / "ip_adapter.safetensors") for folder in ("new", "half"))
    assert whole.keys() == halved.keys()
    assert all(torch.equal(halved[key], whole[key].half()) for key in whole)

    stock = DiffusionPipeline.from_pretrained(pipelines[name])
    base = output(ImagePolicy(stock.unet, policy.spec), None)
    stock.load_ip_adapter(tmp_path / "new", "", "ip_adapter.safetensors", image_encoder_folder=None)
    loaded = output(ImagePolicy(stock.unet, policy.spec))
    assert (loaded - base).abs().max() > 1e-2
    torch.testing.assert_close(loaded, output(policy), rtol=0, atol=1e-5)


def test_refusals(pipelines: dict[str, Path], tmp_path: Path) -> None:
    policy = adapted(pipelines["sd"])
    with pytest.raises(CheckpointError, match="export that alone, with --adapter-only"):
        export_image_policy(policy, tmp_path / "new", str(pipelines["sd"]))
    assert not (tmp_path / "new").exists()
    for name in ("sd3", "flux"):
        with pytest.raises(ValueError, match=r"U-Nets of Stable Diffusion 1, 2 and XL, and this network is a \w+2DM"):
            adapted(pipelines[name])
    with pytest.raises(ValueError, match="an input of the network exactly where it has a user adapter"):
        output(policy, None)
    with pytest.raises(ValueError, match="an input of the network exactly where it has a user adapter"):
        output(load_image_policy(image_options(pipelines["sd"])))

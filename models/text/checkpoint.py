"""Reads a published checkpoint into a `TextPolicy`, or builds one with fresh weights; never runs its code."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from models.exact_attention import EXACT
from models.files import CheckpointError, find_checkpoint, listed, named, opened, weight_files
from models.lean_transformers import PreTrainedModel
from models.lora import add_adapters
from models.options import ModelOptions
from models.policy import DTYPES
from models.text.description import INDEX, SMALL_FILES, WEIGHTS, read_description
from models.text.families import TextFamily, recognise
from models.text.policy import TextPolicy
from models.text.spec import text_spec

WEIGHT_FILES = ["*.safetensors"]


def load_text_policy(
    options: ModelOptions, *, device: torch.device | str = "cpu", adapter_seed: int = 0
) -> tuple[TextPolicy, PreTrainedTokenizerBase]:
    """The policy that the options describe and its tokenizer, which always has a chat template.

    Every tensor goes straight from the file to `device` in `options.precision`. The policy is in evaluation mode;
    training mode computes the same numbers (there is no dropout), and recomputes activations if the options say so.

    Args:
        adapter_seed: seed of the adapters' first weights, if the options ask for adapters.

    Raises:
        CheckpointError: the checkpoint cannot be found, or one of its files, fields or tensors is wrong.
    """
    folder = find_checkpoint(options.path, SMALL_FILES + WEIGHT_FILES)
    with named(folder):
        family, config, tokenizer, spec = read_description(folder, options)
        network = _empty_network(family, config, torch.device(device))
        _fill(network, _read_weights(folder, network, family, DTYPES[options.precision], torch.device(device)))
        if options.gradient_checkpointing:
            network.gradient_checkpointing_enable({"use_reentrant": False})
    policy = TextPolicy(network, spec)
    if options.lora is not None:
        add_adapters(policy, options.lora, adapter_seed)
    return policy.eval(), tokenizer


def build_text_policy(
    config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, *, seed: int, family: str | None = None
) -> TextPolicy:
    """An fp32 policy with fresh weights, for training from scratch.

    Args:
        config: a config.json in the layout that the family publishes.
        seed: of the weights; torch's global generators are neither read nor changed.
    """
    found = recognise(config, family)
    spec = text_spec(found, config, {}, tokenizer)
    network = _empty_network(found, config, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    deviation = network.config.initializer_range

    def fresh(name: str, shape: torch.Size) -> Tensor:
        if len(shape) > 1:
            return torch.empty(shape).normal_(0.0, deviation, generator=generator)
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)  # the others scale a norm

    _fill(network, {name: fresh(name, parameter.shape) for name, parameter in network.named_parameters()})
    return TextPolicy(network, spec).eval()


def published_config(policy: TextPolicy) -> dict[str, Any]:
    """The config.json that the policy was made from."""
    return copy.deepcopy(policy.network.config.published)


def _empty_network(family: TextFamily, config: Mapping[str, Any], device: torch.device) -> PreTrainedModel:
    network_config = family.network_config(config)
    network_config.published = dict(config)
    with torch.device("meta"):
        network = family.network_class(network_config)
    network.set_attn_implementation(EXACT if device.type == "cpu" else "sdpa")
    return network


def _fill(network: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Gives a network on the meta device its weights, and its rotary frequencies, which no checkpoint stores."""
    device = next(iter(tensors.values())).device
    network.load_state_dict(tensors, strict=False, assign=True)
    network.tie_weights()
    rotary = type(network.model.rotary_emb)(network.config)
    network.model.rotary_emb = rotary.to(device)
    missing = [name for name, tensor in [*network.named_parameters(), *network.named_buffers()] if tensor.is_meta]
    if missing:
        raise AssertionError(f"left without a value: {missing}")


def _read_weights(
    folder: Path, network: PreTrainedModel, family: TextFamily, dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """Tensors by transformers' names: all of the network's, and of the right shapes."""
    wanted = {family.published_name(name): (name, parameter) for name, parameter in network.named_parameters()}
    tied_head = family.published_name("lm_head.weight") if network.config.tie_word_embeddings else None
    files = weight_files(folder, WEIGHTS)
    tensors: dict[str, Tensor] = {}
    surplus: dict[str, Path] = {}
    repeated_head: Tensor | None = None
    for file in files:
        for published, tensor in _tensors(file):
            if published == tied_head:
                repeated_head = tensor
            elif published not in wanted:
                surplus[published] = file
            else:
                name, parameter = wanted[published]
                if tensor.shape != parameter.shape:
                    raise CheckpointError(
                        f"{file}: tensor {published} has shape {tuple(tensor.shape)}, but config.json asks for "
                        f"{tuple(parameter.shape)}"
                    )
                # A copy, always: the tensor is a view of the file, which an export may replace under our feet.
                tensors[name] = tensor.to(device=device, dtype=dtype, copy=True)
    missing = [published for published, (name, _) in wanted.items() if name not in tensors]
    if missing:
        raise CheckpointError(f"{files[0] if len(files) == 1 else folder / INDEX}: no tensor {listed(missing)}")
    if surplus:
        file = next(iter(surplus.values()))
        raise CheckpointError(f"{file}: unexpected tensor {listed(list(surplus))}; family {family.name} has none such")
    if repeated_head is not None:
        embedding = tensors["model.embed_tokens.weight"]
        if not torch.equal(repeated_head.to(embedding), embedding):
            raise CheckpointError(
                f"{folder}: tensor {tied_head} differs from the embedding, but config.json says the two are tied"
            )
    return tensors


def _tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    with opened(file) as content:
        for name in content.keys():  # noqa: SIM118 - no mapping: it cannot be iterated over
            yield name, content.get_tensor(name)

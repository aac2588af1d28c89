"""Writes an image policy as what the stock pipeline class loads: a whole pipeline folder, or its adapters alone."""

from __future__ import annotations

import copy
import inspect
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.files import CheckpointError, check_half, find_checkpoint, listed, read_json, stored
from models.images.checkpoint import SMALL_FILES
from models.images.families import FAMILIES
from models.images.policy import ImagePolicy
from models.lora import adapter_config, adapter_tensors, has_adapters, merged_state_dict
from models.user_adapter import has_user_adapter, user_adapter_tensors

ALL_FILES = [
    *SMALL_FILES,
    "*/diffusion_pytorch_model.safetensors",
    "*/diffusion_pytorch_model-*.safetensors",
    "*/model.safetensors",
    "*/model-*.safetensors",
]
"""The pipeline without its half-precision variants and the formats of other tools."""


def export_image_policy(
    policy: ImagePolicy,
    folder: str | Path,
    source: str,
    *,
    adapter_only: bool = False,
    half: bool = False,
    max_shard_size: int | str = "10GB",
) -> None:
    """Writes the pipeline with what was trained, adapters merged in, into `folder`, which is created.

    Args:
        source: what the policy was loaded from (`ModelOptions.path`); all components that are not trained are
            copied from it.
        half: store what was trained as fp16.
        adapter_only: write pytorch_lora_weights.safetensors for the pipeline's `load_lora_weights` instead, or
            ip_adapter.safetensors for its `load_ip_adapter` if the policy has a user adapter.

    Raises:
        CheckpointError: `adapter_only` without adapters or with some that the pipeline does not load, a user adapter
            without `adapter_only`, `folder` is the source's, the source cannot be found, or a weight does not fit fp16.
    """
    folder = Path(folder)
    family = FAMILIES[policy.spec.family]
    if has_user_adapter(policy):
        if not adapter_only:
            raise CheckpointError(
                "the pipeline is what it was, and no weight of it can hold a user adapter: export that alone, with "
                "--adapter-only"
            )
        folder.mkdir(parents=True, exist_ok=True)
        save_file(stored(user_adapter_tensors(policy), half), folder / "ip_adapter.safetensors")
        return
    if adapter_only:
        family.pipeline_class.save_lora_weights(
            folder, **{component: stored(tensors, half) for component, tensors in _adapters(policy).items()}
        )
        return
    origin = find_checkpoint(source, ALL_FILES)
    if folder.resolve() == origin.resolve():
        raise CheckpointError(
            f"export to {folder}: the checkpoint that the policy was loaded from would be overwritten; choose another "
            "folder"
        )
    merged = _merged(policy)
    if half:
        for component, module in merged.items():
            check_half({f"{component}.{name}": tensor for name, tensor in module.state_dict().items()})
    for component, module in merged.items():
        for stale in (folder / component).glob("*.safetensors*"):
            stale.unlink()
        (module.half() if half else module).save_pretrained(folder / component, max_shard_size=max_shard_size)
    for component in read_json(origin / "model_index.json"):
        if component not in merged and (origin / component).is_dir():
            shutil.copytree(origin / component, folder / component, dirs_exist_ok=True)
    shutil.copyfile(origin / "model_index.json", folder / "model_index.json")


def _merged(policy: ImagePolicy) -> dict[str, Any]:
    """What was trained by its name in the pipeline: modules of the same classes that hold the policy's tensors, or sums
    with the adapters' products."""
    tensors = merged_state_dict(policy)
    if policy.text_encoders:
        return {name: _merged_encoder(encoder, name, tensors) for name, encoder in policy.text_encoders.items()}
    network: Any = policy.network
    with torch.device("meta"):
        plain = type(network).from_config(network.config)
    plain.load_state_dict(tensors, assign=True)
    return {FAMILIES[policy.spec.family].denoiser: plain}


def _merged_encoder(encoder: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    own = {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
    with torch.device("meta"):
        plain = type(encoder)(copy.deepcopy(encoder.config))
    plain.load_state_dict(own, assign=True, strict=False)  # a tied weight is there once
    plain.tie_weights()
    if missing := [key for key, tensor in plain.state_dict().items() if tensor.is_meta]:
        raise CheckpointError(f"{name} has no weights for {listed(missing)}")
    return plain


def _adapters(policy: ImagePolicy) -> dict[str, dict[str, Tensor]]:
    """Arguments of `save_lora_weights`: weights by diffusers' names, scaled so that every reader gets them right.

    The file format has no field for alpha that all tools read, and those that find none take it to equal the rank; so
    the factor alpha / rank goes into B.
    """
    if not has_adapters(policy):
        raise CheckpointError("adapter_only: the policy has no adapters, since it was trained without model.lora")
    config = adapter_config(policy)
    scale = {"lora_A": 1.0, "lora_B": config.lora_alpha / config.r}
    family = FAMILIES[policy.spec.family]
    layers: dict[str, dict[str, Tensor]] = {}
    for (module, side), tensor in adapter_tensors(policy).items():
        component, _, inner = module.partition(".") if policy.text_encoders else (family.denoiser, "", module)
        weights = layers.setdefault(f"{component}_lora_layers", {})
        weights[f"{inner}.{side}.weight"] = tensor * scale[side]
    if unknown := layers.keys() - inspect.signature(family.pipeline_class.save_lora_weights).parameters.keys():
        raise CheckpointError(
            f"adapter_only: {family.pipeline_class.__name__} loads no adapters of "
            f"{listed(sorted(name.removesuffix('_lora_layers') for name in unknown))}; export the whole pipeline"
        )
    return layers

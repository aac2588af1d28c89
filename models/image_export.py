"""Writes an image policy as what the stock pipeline class loads: a whole pipeline folder, or its adapters alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.files import CheckpointError, find_checkpoint, read_json
from models.image import ImagePolicy
from models.image_checkpoint import SMALL_FILES
from models.image_families import FAMILIES
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
    """Writes the pipeline with the policy's network, adapters merged in, into `folder`, which is created.

    Args:
        source: what the policy was loaded from (`ModelOptions.path`); all components but the network are
            copied from it.
        half: store the network's weights as fp16.
        adapter_only: write pytorch_lora_weights.safetensors for the pipeline's `load_lora_weights` instead, or
            ip_adapter.safetensors for its `load_ip_adapter` if the policy has a user adapter.

    Raises:
        CheckpointError: `adapter_only` without adapters, a user adapter without `adapter_only`, `folder` is the
            source's, or the source cannot be found.
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
        tensors = {name: tensor.contiguous() for name, tensor in user_adapter_tensors(policy).items()}
        save_file(tensors, folder / "ip_adapter.safetensors")
        return
    if adapter_only:
        family.pipeline_class.save_lora_weights(folder, **{f"{family.denoiser}_lora_layers": _adapters(policy)})
        return
    origin = find_checkpoint(source, ALL_FILES)
    if folder.resolve() == origin.resolve():
        raise CheckpointError(
            f"export to {folder}: the checkpoint that the policy was loaded from would be overwritten; choose another "
            "folder"
        )
    network_folder = folder / family.denoiser
    for stale in network_folder.glob("diffusion_pytorch_model*.safetensors*"):
        stale.unlink()
    network = _merged(policy)
    (network.half() if half else network).save_pretrained(network_folder, max_shard_size=max_shard_size)
    for component in read_json(origin / "model_index.json"):
        if component != family.denoiser and (origin / component).is_dir():
            shutil.copytree(origin / component, folder / component, dirs_exist_ok=True)
    shutil.copyfile(origin / "model_index.json", folder / "model_index.json")


def _merged(policy: ImagePolicy) -> Any:
    """A network of the same class that holds the policy's tensors, or sums with the adapters' products."""
    network: Any = policy.network
    with torch.device("meta"):
        plain = type(network).from_config(network.config)
    plain.load_state_dict(merged_state_dict(policy), assign=True)
    return plain


def _adapters(policy: ImagePolicy) -> dict[str, Tensor]:
    """Adapter weights by diffusers' names, scaled so that every reader gets them right.

    The file format has no field for alpha that all tools read, and those that find none take it to equal the rank; so
    the factor alpha / rank goes into B.
    """
    if not has_adapters(policy):
        raise CheckpointError("adapter_only: the policy has no adapters, since it was trained without model.lora")
    config = adapter_config(policy)
    scale = {"lora_A": 1.0, "lora_B": config.lora_alpha / config.r}
    return {
        f"{module}.{side}.weight": (tensor * scale[side]).contiguous()
        for (module, side), tensor in adapter_tensors(policy).items()
    }

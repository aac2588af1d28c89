"""Writes a policy as a checkpoint that other tools load: the family's published layout and tensor names."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from models.files import read_json, stored
from models.lora import adapter_config, adapter_tensors, has_adapters, merged_state_dict
from models.text.checkpoint import published_config
from models.text.description import SMALL_FILES
from models.text.families import FAMILIES, CheckpointError
from models.text.policy import TextPolicy


def export_text_policy(
    policy: TextPolicy,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    source_folder: str | Path | None = None,
    *,
    adapter_only: bool = False,
    half: bool = False,
    max_shard_size: int | str = "5GB",
) -> None:
    """Writes weights (adapters merged in), config.json and the tokenizer into `folder`, which is created.

    Args:
        source_folder: the checkpoint that the policy was loaded from; its config, tokenizer and code files are copied,
            unchanged but for what `model.block_length`, `family` and `mask_token` said of it. Without it, config.json
            is the one the policy was made from and the tokenizer is saved anew.
        half: store weights as fp16.
        adapter_only: write a PEFT adapter for the published model instead: adapter_model.safetensors and
            adapter_config.json.

    Raises:
        CheckpointError: `adapter_only` without adapters, `folder` is `source_folder`, or a weight does not fit fp16.
    """
    folder = Path(folder)
    if source_folder is not None and folder.resolve() == Path(source_folder).resolve():
        raise CheckpointError(
            f"export to {folder}: the checkpoint that the policy was loaded from would be overwritten; choose another "
            f"folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if adapter_only:
        _write_adapter(policy, folder, source_folder, half)
        return

    family = FAMILIES[policy.spec.family]
    tensors = {family.published_name(name): tensor for name, tensor in merged_state_dict(policy).items()}
    weights = stored(tensors, half)
    for stale in folder.glob("model*.safetensors*"):
        stale.unlink()
    save_torch_state_dict(weights, folder, max_shard_size=max_shard_size, metadata={"format": "pt"})
    if source_folder is None:
        _write_config(published_config(policy), folder)
        tokenizer.save_pretrained(folder)
    else:
        for pattern in SMALL_FILES:
            for file in Path(source_folder).glob(pattern):
                if not file.name.endswith(".index.json"):  # lists the source's shards, not ours
                    shutil.copyfile(file, folder / file.name)
        if (config := published_config(policy)) != read_json(folder / "config.json"):  # options said more
            _write_config(config, folder)


def _write_config(config: dict[str, Any], folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write_adapter(policy: TextPolicy, folder: Path, source_folder: str | Path | None, half: bool) -> None:
    """`PeftModel.from_pretrained(published model, folder)` loads this; keys follow PEFT's own saved adapters."""
    if not has_adapters(policy):
        raise CheckpointError("adapter_only: the policy has no adapters, since it was trained without model.lora")
    if source_folder is not None and published_config(policy) != read_json(Path(source_folder) / "config.json"):
        raise CheckpointError(
            "adapter_only: an adapter cannot tell its readers of other attention blocks, another family or another "
            "mask token (model.block_length, family, mask_token); export the whole model"
        )
    family = FAMILIES[policy.spec.family]
    tensors = {
        f"base_model.model.{family.published_name(module)}.{side}.weight": tensor
        for (module, side), tensor in adapter_tensors(policy).items()
    }
    save_file(stored(tensors, half), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy.deepcopy(adapter_config(policy))
    # Full names: LLaDA calls both the MLP's last layer and the output head `ff_out`.
    config.target_modules = sorted({family.published_name(module) for module, _ in adapter_tensors(policy)})
    config.base_model_name_or_path = None if source_folder is None else str(source_folder)
    config.inference_mode = True
    config.save_pretrained(str(folder))

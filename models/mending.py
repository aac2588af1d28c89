"""Makes a checkpoint folder one that can be read: weights in other formats, and parts of a pipeline that are missing.

Nothing that is there is changed: files are added, under the names that every tool looks for first.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from models.files import CheckpointError, find_checkpoint, opened, other_formats, read_json

NETWORK, ENCODER = "diffusion_pytorch_model.safetensors", "model.safetensors"


def mend(folder: Path, source: str | None = None) -> list[str]:
    """Writes safetensors files from half-precision variants or from torch's pickles, of which nothing is run, and
    copies missing parts of a pipeline from `source`. Returns a sentence for each thing that was done.

    Args:
        source: a checkpoint that has the parts that are missing: a folder or a hub id.

    Raises:
        CheckpointError: there is nothing to mend, or it cannot be mended.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    done = [] if source is None else _copied(folder, source)
    for part in [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]:
        if (part / "config.json").is_file():
            weights = NETWORK if "_class_name" in read_json(part / "config.json") else ENCODER
            if not (part / weights).is_file() and not (part / f"{weights}.index.json").is_file():
                done += _rewritten(part, weights)
    if not done:
        raise CheckpointError(
            f"{folder}: no weights in other formats to rewrite, and nothing that was asked to be copied"
        )
    return done


def _rewritten(folder: Path, weights: str) -> list[str]:
    from safetensors.torch import save_file

    files = other_formats(folder, weights)
    weight_map: dict[str, str] = {}
    for number, file in enumerate(files, start=1):
        tensors = _tensors(file)
        shard = f"{weights.removesuffix('.safetensors')}-{number:05}-of-{len(files):05}.safetensors"
        name = weights if len(files) == 1 else shard
        weight_map |= dict.fromkeys(tensors, name)
        # Copies: a pickle may hold one tensor under two names, and a safetensors file may not.
        save_file({key: value.contiguous().clone() for key, value in tensors.items()}, folder / name, {"format": "pt"})
    if len(files) > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / f"{weights}.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return [f"{folder / weights} written from {', '.join(file.name for file in files)}"] if files else []


def _tensors(file: Path) -> dict[str, Any]:
    import torch

    if file.suffix == ".safetensors":
        with opened(file) as content:
            return {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - no mapping
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # truncated archives and refused pickles raise whatever they meet
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{file}: cannot be read as weights alone ({reason}); download it again") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise CheckpointError(f"{file}: not a table of tensors by their names")
    return loaded


def _copied(folder: Path, source: str) -> list[str]:
    index = read_json(folder / "model_index.json")
    missing = [
        name
        for name, value in index.items()
        if isinstance(value, list) and value[0] is not None and not (folder / name).is_dir()
    ]
    origin = find_checkpoint(source, [f"{name}/*" for name in missing]) if missing else folder
    for name in missing:
        if not (origin / name).is_dir():
            raise CheckpointError(f"{source} has no {name} either; choose the model that the folder was made from")
        shutil.copytree(origin / name, folder / name)
    return [f"{folder / name} copied from {source}" for name in missing]

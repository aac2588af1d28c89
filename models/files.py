"""Finding, opening and filling the files of a checkpoint, with errors that name the file."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:  # reading a tokenizer, or finding a folder, does not wait for torch
    from torch import Tensor

LARGEST_HALF = 65504.0
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


class CheckpointError(ValueError):
    """A checkpoint, or a description of one, that cannot be used; the message names the file, field or tensor."""


def find_checkpoint(path: str, patterns: list[str]) -> Path:
    """Folder of a checkpoint: embedded (`tiny/...`), on disk, or a hub id, of which `patterns` are downloaded."""
    folder = local_folder(path)
    if folder is not None:
        return folder
    if Path(path).is_file():
        raise CheckpointError(
            f"checkpoint {path!r} is a file, not the folder of a model. A pipeline in one file becomes a folder, "
            f'model, with: python -c "from diffusers import StableDiffusionXLPipeline as P; '
            f"P.from_single_file({path!r}).save_pretrained('model')\" (name the class of your model)"
        )
    if not HUB_ID.fullmatch(path):
        raise CheckpointError(f"checkpoint {path!r}: there is no such folder, and a hub id would be OWNER/NAME")
    try:
        return Path(snapshot_download(path, allow_patterns=patterns))
    except (OSError, ValueError) as error:  # the hub's errors and the network's derive from these two
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"checkpoint {path!r} is not a folder and not reachable on the hub: {reason}") from error


def local_folder(path: str) -> Path | None:
    """The folder that `path` names on this machine, embedded or not; None for anything else."""
    embedded = Path(__file__).parent / path
    if path.startswith("tiny/") and embedded.is_dir():
        return embedded
    return Path(path) if Path(path).is_dir() else None


def weight_files(folder: Path, weights: str) -> list[Path]:
    """The safetensors files of one network: `weights`, or the shards that its index lists.

    Args:
        weights: name of the unsharded file, such as model.safetensors.

    Raises:
        CheckpointError: one of them does not exist.
    """
    index = folder / f"{weights}.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not weight_map:
            raise CheckpointError(f"{index}: no weight_map")
        files = [folder / name for name in dict.fromkeys(weight_map.values())]
    else:
        files = [folder / weights]
    for file in files:
        if not file.is_file():
            raise CheckpointError(
                f"{file}: no such file; the weights must be {weights}, or shards listed by {index.name}. "
                f"{_way_out(folder, file.name, weights)}"
            )
    return files


def other_formats(folder: Path, weights: str) -> list[Path]:
    """Files of the same weights that are not read: a half-precision variant, else what torch has pickled.

    Args:
        weights: as `weight_files` has it.
    """
    stem = weights.removesuffix(".safetensors")
    pickled = "pytorch_model" if stem == "model" else stem
    variants = [
        (f"{stem}.{kind}.safetensors", f"{stem}.{kind}-*.safetensors", f"{stem}-*.{kind}.safetensors")
        for kind in ("fp16", "bf16")
    ]
    pickles = [(f"{pickled}.bin", f"{pickled}-*.bin"), (f"{pickled}.fp16.bin",)]
    for patterns in (*variants, *pickles):
        if found := sorted(file for pattern in patterns for file in folder.glob(pattern)):
            return found
    return []


def _way_out(folder: Path, missing: str, weights: str) -> str:
    """What lies in the folder instead, and the one command that mends it."""
    pipeline = (folder.parent / "model_index.json").is_file()
    root = folder.parent if pipeline else folder
    at = shlex.quote(str(root))
    hub = next((part for part in root.parts if part.startswith("models--")), None)
    if hub is not None:  # the hub's cache, which has only what was asked for
        name = hub.removeprefix("models--").replace("--", "/")
        return (
            f"{name} has no such file on the hub: hf download {name} --local-dir model fetches what it has, and "
            f"model.path=model then says more"
        )
    others = other_formats(folder, weights)
    if others and missing == weights:
        named = listed([file.name for file in others])
        return f"There is {named} instead: denoiserl mend {at} writes {weights} from it"
    return f"There is {listing(folder)}. {_fetched(folder / missing)}"


def listing(folder: Path) -> str:
    """The first dozen names of what lies in a folder."""
    return ", ".join(sorted(file.name for file in folder.iterdir())[:12]) or "nothing"


def _fetched(file: Path) -> str:
    """The command that downloads a file of a checkpoint, or of one part of a pipeline."""
    pipeline = (file.parent.parent / "model_index.json").is_file()
    root, name = (file.parent.parent, f"{file.parent.name}/{file.name}") if pipeline else (file.parent, file.name)
    return (
        f"hf download OWNER/NAME {name} --local-dir {shlex.quote(str(root))} fetches it, where OWNER/NAME is the model "
        f"on the hub"
    )


@contextmanager
def opened(file: Path, framework: str = "pt") -> Iterator[Any]:
    """Opening checks the header against the file's size; tensors are read when they are asked for.

    Args:
        framework: of the tensors; "numpy" to check a file without importing torch.
    """
    try:
        with safe_open(file, framework=framework) as content:
            yield content
    except SafetensorError as error:
        raise CheckpointError(
            f"{file}: truncated or corrupt safetensors file ({error}); copy or download it again"
        ) from error


def stored(tensors: Mapping[str, Tensor], half: bool) -> dict[str, Tensor]:
    """As a safetensors file takes them: contiguous, and fp16 if `half`.

    Raises:
        CheckpointError: fp16 would make a number of some tensor infinite; says which.
    """
    if half:
        check_half(tensors)
    return {name: (tensor.half() if half else tensor).contiguous() for name, tensor in tensors.items()}


def check_half(tensors: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError where a tensor has a number that fp16 cannot hold."""
    filled = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()}
    largest = {name: float(tensor.abs().max()) for name, tensor in filled.items()}
    too_large = [f"{name} ({size:g})" for name, size in largest.items() if LARGEST_HALF < size < float("inf")]
    if too_large:
        raise CheckpointError(
            f"--half: fp16 holds numbers up to {LARGEST_HALF:g}, and the largest of these tensors are beyond: "
            f"{listed(too_large)}; export without --half"
        )


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object, else CheckpointError."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        there = f"; there is {listing(file.parent)}" if file.parent.is_dir() else ""
        raise CheckpointError(f"{file}: no such file{there}. {_fetched(file)}") from error
    except ValueError as error:
        raise CheckpointError(f"{file}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: must contain a JSON object")
    return content


def listed(names: list[str]) -> str:
    """The first three names and how many there are beyond."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextmanager
def named(folder: Path) -> Iterator[None]:
    """Adds the checkpoint's folder to errors that do not name it."""
    try:
        yield
    except CheckpointError as error:
        if str(folder) in str(error):
            raise
        raise CheckpointError(f"checkpoint {folder}: {error}") from error

"""What DeepSpeed's own files of an engine hold, by the names of the parameters, without running anything of them.

They are pickles, which `torch.load(weights_only=True)` reads as tensors and plain containers. Three classes of
DeepSpeed's stand in them; in their place come classes of ours without any behaviour. Whatever else is named is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from rl.learner.optimizer_state import MOMENTS, WEIGHT

TAG = "deepspeed"
"""Folder of its files."""
MODEL = "mp_rank_00_model_states.pt"


class UnreadableFiles(RuntimeError):
    """The files are not what an engine of ours wrote, or more than is read here; the message says which and why."""


class _Stage(int):
    pass


class _Fragment:
    numel: int
    start: int


class _Inert:
    pass


STAND_INS = {
    "deepspeed.runtime.zero.config.ZeroStageEnum": _Stage,
    "deepspeed.utils.tensor_fragment.fragment_address": _Fragment,
    "deepspeed.runtime.fp16.loss_scaler.LossScaler": _Inert,
}


@dataclass
class EngineState:
    updates: int
    adam_steps: float | None
    """Steps that Adam corrects its moments for; None before the first."""
    parameters: dict[str, dict[str, Tensor]]
    """Name -> weight, and where there was a step the moments: fp32, whole."""


def read_engine(folder: Path, trained: Sequence[str] | None = None) -> EngineState:
    """
    Args:
        folder: where the folder `deepspeed` lies.
        trained: names of the trained parameters, which files without ZeRO do not say; None: all are.

    Raises:
        UnreadableFiles: they name what would run, are cut up in a way that is not read here, or do not fit together.
    """
    files = {path.name: path for path in (folder / TAG).iterdir()}
    if any(name.startswith("zero_pp_rank_") and name.endswith("model_states.pt") for name in files):
        raise UnreadableFiles(f"{folder / TAG} was written under ZeRO stage 3, whose pieces are not put together here")
    if MODEL not in files:
        raise UnreadableFiles(f"{folder / TAG} has no {MODEL}")
    states = _load(files.pop(MODEL))
    try:
        return _read(states, files, trained)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UnreadableFiles(
            f"{folder / TAG} is not as the tested DeepSpeed wrote it ({type(error).__name__}: {error})"
        ) from error


def _read(states: Mapping[str, Any], files: Mapping[str, Path], trained: Sequence[str] | None) -> EngineState:
    stage = states["ds_config"]["zero_optimization"]["stage"]
    if stage not in (0, 1, 2) or states["mp_world_size"] != 1:
        raise UnreadableFiles(f"ZeRO stage {stage} with {states['mp_world_size']} parallel parts is not read here")
    prefix = "bf16_zero" if states["ds_config"]["bf16"]["enabled"] else "zero"
    ranks = range(states["dp_world_size"] if stage else 0)
    pieces = [f"{prefix}_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in ranks]
    if odd := sorted(files.keys() ^ set(pieces)):
        raise UnreadableFiles(f"{', '.join(odd)}: a piece that is missing, or a file that nobody knows")
    if stage:
        counts, parameters = _of_pieces([_load(files[name])["optimizer_state_dict"] for name in pieces], states)
    else:
        counts, parameters = _of_one(states, trained)
    if len(counts) > 1:
        raise UnreadableFiles(f"parameters of one optimizer have made different numbers of steps: {sorted(counts)}")
    return EngineState(states["updates"], next(iter(counts), None), parameters)


def _of_one(
    states: Mapping[str, Any], trained: Sequence[str] | None
) -> tuple[set[float], dict[str, dict[str, Tensor]]]:
    """Without ZeRO: moments by the number of the parameter, in the order in which the model has them."""
    weights = _without_aliases(states["module"], states["buffer_names"])
    wanted = weights.keys() if trained is None else set(trained)
    if missing := sorted(wanted - weights.keys()):
        raise UnreadableFiles(f"trained parameter {missing[0]} is not in the model")
    names = [name for name in weights if name in wanted]
    (group,) = states["optimizer"]["param_groups"]
    if group["params"] != list(range(len(names))):
        raise UnreadableFiles(
            f"the optimizer has {len(group['params'])} parameters, and {len(names)} of the model's are known as trained"
        )
    kept = states["optimizer"]["state"]
    found: dict[str, dict[str, Tensor]] = {}
    for number, name in enumerate(names):
        parts = {WEIGHT: weights[name], **{part: kept[number][part] for part in MOMENTS if kept}}
        if any(tensor.shape != weights[name].shape for tensor in parts.values()):
            raise UnreadableFiles(f"{name} and its moments differ in shape: another parameter has been its number")
        found[name] = {part: _fp32(tensor, name) for part, tensor in parts.items()}
    return {float(state["step"]) for state in kept.values()}, found


def _without_aliases(module: Mapping[str, Tensor], buffers: Iterable[str]) -> dict[str, Tensor]:
    """The first name of each parameter, as `named_parameters` has it."""
    seen: set[tuple[int, int, torch.Size]] = set()
    found = {}
    for name, tensor in module.items():
        place = (tensor.untyped_storage().data_ptr(), int(tensor.storage_offset()), tensor.shape)
        if name not in set(buffers) and place not in seen:
            found[name] = tensor
            seen.add(place)
    return found


def _of_pieces(
    pieces: Sequence[Mapping[str, Any]], states: Mapping[str, Any]
) -> tuple[set[float], dict[str, dict[str, Tensor]]]:
    """ZeRO 1 and 2: every group of parameters is one row of numbers, cut into as many pieces as there are ranks."""
    shapes = {name: tuple(shape) for group in states["param_shapes"] for name, shape in group.items()}
    cut: dict[str, dict[str, list[Tensor]]] = {name: {} for name in shapes}
    counts = set()
    for piece in pieces:
        stage = piece.get("zero_stage", 1)  # which the optimizer of stage 1 in bf16 does not say
        if stage not in (1, 2) or set(piece["partition_count"]) != {len(pieces)}:
            raise UnreadableFiles(f"a piece says stage {stage} of {piece['partition_count']} pieces")
        moments = piece["base_optimizer_state"]["state"]
        counts |= {float(state["step"]) for state in moments.values()}
        for number, places in enumerate(piece["param_slice_mappings"]):
            rows = {WEIGHT: piece["single_partition_of_fp32_groups"][number]}
            rows |= {part: moments[number][part] for part in MOMENTS if moments}
            for name, place in places.items():
                for part, row in rows.items():
                    cut[name].setdefault(part, []).append(row[place.start : place.start + place.numel])
    found: dict[str, dict[str, Tensor]] = {}
    for name, shape in shapes.items():
        whole = {part: torch.cat(rows) for part, rows in cut[name].items()}
        if WEIGHT not in whole or any(row.numel() != prod(shape) for row in whole.values()):
            raise UnreadableFiles(f"the pieces of {name} do not make a tensor of shape {shape}")
        found[name] = {part: _fp32(row, name).reshape(shape) for part, row in whole.items()}
    return counts, found


def _fp32(tensor: Tensor, name: str) -> Tensor:
    if tensor.dtype != torch.float32:
        raise UnreadableFiles(f"{name} is kept in {tensor.dtype}, not in fp32: what is lost cannot be had back")
    return tensor.contiguous()


def _load(file: Path) -> dict[str, Any]:
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except (ValueError, RuntimeError) as error:
        raise UnreadableFiles(f"{file} is not as `torch.save` writes it ({error})") from error
    if odd := sorted(set(named) - STAND_INS.keys()):
        raise UnreadableFiles(f"{file} names {', '.join(odd)}, which might run: nothing of it was loaded")
    allowed: list[Any] = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    with torch.serialization.safe_globals(allowed):  # what decides; the list above is for the message
        try:
            loaded: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            raise UnreadableFiles(f"{file} holds more than numbers: {error}") from error
    return loaded

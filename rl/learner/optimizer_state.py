"""What an engine must not lose: fp32 weights, Adam's moments and its count of steps, by the names of the parameters.

In safetensors, which hold numbers and nothing that could run, and without a trace of how DeepSpeed had cut them up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import Tensor, nn

from rl.learner.engine import Engine
from rl.learner.state_files import StateFiles

DESCRIPTION = "optimizer.json"
WEIGHT, MOMENTS = "weight", ("exp_avg", "exp_avg_sq")
SHARD_BYTES = 2 << 30
"""Of one file: what rank 0 holds at a time while the others' parts arrive."""


class StateError(RuntimeError):
    """A saved state is not of this engine's parameters."""


class StateWriter:
    """Writes the files of one state, parameter by parameter."""

    def __init__(self, files: StateFiles) -> None:
        self._to = files
        self._shard: dict[str, Tensor] = {}
        self._files: list[str] = []

    def add(self, name: str, parts: Mapping[str, Tensor]) -> None:
        """A parameter's weight and, where there are any, its moments."""
        for part, whole in parts.items():
            self._shard[f"{name}/{part}"] = whole.detach().to("cpu", torch.float32, copy=True).contiguous()
        if sum(tensor.nbytes for tensor in self._shard.values()) >= SHARD_BYTES:
            self._flush()

    def finish(self, updates: int, adam_steps: float | None) -> None:
        self._flush()
        description = {"updates": updates, "adam_steps": adam_steps, "files": self._files}
        self._to.text(DESCRIPTION, json.dumps(description))

    def _flush(self) -> None:
        if self._shard:
            self._files.append(f"optimizer-{len(self._files):05d}.safetensors")
            self._to.tensors(self._files[-1], self._shard)
        self._shard.clear()


def save_state(engine: Engine, files: StateFiles) -> None:
    """Collective; rank 0 writes."""
    writer = StateWriter(files) if dist.get_rank() == 0 else None
    for name, parameter in _trained(engine):
        parts = {part: _whole(engine, parameter, part) for part in (WEIGHT, *MOMENTS)}
        if writer is not None:
            writer.add(name, {part: whole for part, whole in parts.items() if whole is not None})
    if writer is not None:
        writer.finish(engine.updates, _adam_steps(engine))


def state_bytes(engine: Engine) -> int:
    """What `save_state` writes, once there are moments and but for names."""
    trained = (getattr(p, "ds_numel", p.numel()) for _, p in _trained(engine))
    return sum(trained) * (1 + len(MOMENTS)) * torch.float32.itemsize


def load_state(engine: Engine, folder: Path) -> None:
    """Collective; every rank reads what `save_state` wrote.

    Raises:
        StateError: the parameters there are not those of this engine.
    """
    description = json.loads((folder / DESCRIPTION).read_text())
    places: dict[str, Path] = {}
    for file in description["files"]:
        with safe_open(folder / file, "pt") as opened:
            places |= dict.fromkeys(opened.keys(), folder / file)
    trained = dict(_trained(engine))
    found = {place.rpartition("/")[0] for place in places}
    if found != trained.keys():
        odd = sorted(found ^ trained.keys())
        raise StateError(
            f"{folder} holds {len(found)} trained parameters and this run has {len(trained)}; {len(odd)} are in one of "
            f"them only, such as {odd[0]}. Another model or another LoRA cannot go on from it"
        )
    if description["adam_steps"] is not None:
        _make_states(engine, description["adam_steps"])
    for name, parameter in trained.items():
        for part in (WEIGHT, *MOMENTS):
            if (place := places.get(f"{name}/{part}")) is None:
                continue
            with safe_open(place, "pt") as opened:
                value = opened.get_tensor(f"{name}/{part}")
            shape = tuple(parameter.ds_shape if hasattr(parameter, "ds_shape") else parameter.shape)
            if tuple(value.shape) != shape:
                raise StateError(f"{place}: {name} has shape {tuple(value.shape)}, this run's has {shape}")
            _put(engine, parameter, part, value)
    engine.updates = description["updates"]
    engine.deepspeed.global_steps = description["updates"]


def _trained(engine: Engine) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in engine.module.named_parameters() if p.requires_grad)


def _adam(engine: Engine) -> torch.optim.Optimizer:
    """The optimizer that ZeRO wraps, or the only one."""
    optimizer = engine.deepspeed.optimizer
    return optimizer.optimizer if engine.zero_stage else optimizer


def _whole(engine: Engine, parameter: nn.Parameter, part: str) -> Tensor | None:
    """A parameter, or a moment, in fp32 and whole on every rank; None before there is one."""
    if engine.zero_stage == 0:
        return parameter.data if part == WEIGHT else _adam(engine).state.get(parameter, {}).get(part)
    import deepspeed.utils as zero

    if part == WEIGHT:
        return zero.safe_get_full_fp32_param(parameter)
    return zero.safe_get_full_optimizer_state(parameter, part) if engine.updates else None


def _make_states(engine: Engine, steps: float) -> None:
    """AdamW makes its moments, and ZeRO shows parameters their pieces of them, at the first step; here it is now."""
    optimizer = engine.deepspeed.optimizer
    adam = _adam(engine)
    updated = [tensor for group in adam.param_groups for tensor in group["params"]]
    for tensor in optimizer.fp32_partitioned_groups_flat if engine.zero_stage == 3 else updated:
        moments = {part: torch.zeros_like(tensor, memory_format=torch.preserve_format) for part in MOMENTS}
        adam.state[tensor] = {"step": torch.tensor(steps, dtype=torch.float32), **moments}
    if engine.zero_stage in (1, 2):
        optimizer._lazy_init_hp_params_optimizer_state()


def _put(engine: Engine, parameter: nn.Parameter, part: str, value: Tensor) -> None:
    value = value.to(parameter.device)
    with torch.no_grad():
        if engine.zero_stage == 0:
            if part == WEIGHT:
                parameter.copy_(value)
            else:
                _adam(engine).state[parameter][part].copy_(value)
            return
        _put_in_zero(engine, parameter, part, value)
        if part != WEIGHT:
            return
        with engine.gathered([parameter], changed=True):
            parameter.copy_(value)


def _put_in_zero(engine: Engine, parameter: nn.Parameter, part: str, value: Tensor) -> None:
    """This rank's piece of the optimizer's fp32 weight or of a moment."""
    import deepspeed.utils as zero

    if engine.zero_stage == 3:  # not `safe_set_full_...`, which fails where the last rank's piece is padded
        size = cast(Any, parameter).ds_tensor.ds_numel
        padded = torch.nn.functional.pad(value.flatten(), (0, size * engine.world_size - value.numel()))
        piece = padded[size * dist.get_rank() :][:size]
        if part == WEIGHT:
            zero.safe_set_local_fp32_param(parameter, piece)
        else:
            zero.safe_set_local_optimizer_state(parameter, piece, part)
    elif part == WEIGHT:
        zero.safe_set_full_fp32_param(parameter, value)
    else:
        zero.safe_set_full_optimizer_state(parameter, value, part)


def _adam_steps(engine: Engine) -> float | None:
    """How many steps Adam corrects its moments for; None before the first."""
    counts = {float(state["step"]) for state in _adam(engine).state.values() if state}
    if len(counts) > 1:
        raise RuntimeError(f"parameters of one optimizer have made different numbers of steps: {sorted(counts)}")
    return counts.pop() if counts else None

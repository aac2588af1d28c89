"""Weights as one flat buffer: one object-store entry, read without copies, checked on arrival.

Torch tensors are an order of magnitude slower to put into Ray's object store than one numpy array of the same bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # the driver passes weights on without ever making a tensor of them
    from torch import Tensor


class WeightError(RuntimeError):
    """Weights that arrived damaged, or that belong to another network."""


@dataclass(frozen=True)
class PackedWeights:
    version: int
    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    buffer: np.ndarray
    """uint8, the tensors one behind the other"""
    checksum: int
    """crc32 of the buffer"""


def pack_weights(version: int, tensors: Mapping[str, Tensor]) -> PackedWeights:
    import torch

    parts = [tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy() for tensor in tensors.values()]
    buffer = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    return PackedWeights(
        version=version,
        names=tuple(tensors),
        dtypes=tuple(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()),
        shapes=tuple(tuple(tensor.shape) for tensor in tensors.values()),
        buffer=buffer,
        checksum=zlib.crc32(buffer.data),
    )


def unpack_weights(packed: PackedWeights) -> dict[str, Tensor]:
    """Copies of the tensors (the buffer itself may be read-only shared memory)."""
    import torch

    if zlib.crc32(packed.buffer.data) != packed.checksum:
        raise WeightError(f"weights of version {packed.version} were damaged on the way: their checksum differs")
    tensors, offset = {}, 0
    for name, dtype_name, shape in zip(packed.names, packed.dtypes, packed.shapes, strict=True):
        dtype = getattr(torch, dtype_name)
        size = int(np.prod(shape)) * dtype.itemsize
        raw = packed.buffer[offset : offset + size].copy()
        tensors[name] = torch.from_numpy(raw).view(dtype).reshape(shape)
        offset += size
    return tensors


def differing(one: PackedWeights, other: PackedWeights) -> list[str]:
    """Names of the tensors that are not the same in both, to the bit; the order in which they were packed is free."""
    import torch

    first, second = unpack_weights(one), unpack_weights(other)

    def bits(tensor: Tensor) -> Tensor:
        return tensor.reshape(-1).view(torch.uint8)

    return sorted(
        name
        for name in first.keys() | second.keys()
        if name not in first or name not in second or not torch.equal(bits(first[name]), bits(second[name]))
    )


def load_weights(parameters: Mapping[str, Tensor], packed: PackedWeights) -> None:
    """Overwrite `parameters` in place; names and shapes must be exactly those that were packed."""
    import torch

    tensors = unpack_weights(packed)
    missing, unexpected = parameters.keys() - tensors.keys(), tensors.keys() - parameters.keys()
    if missing or unexpected:
        raise WeightError(
            f"weights of version {packed.version} do not fit this network: missing {sorted(missing)[:5]}, unexpected "
            f"{sorted(unexpected)[:5]}; were learner and rollout worker started with the same model options?"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != tensors[name].shape:
                raise WeightError(f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(parameter.shape)}")
            parameter.copy_(tensors[name])

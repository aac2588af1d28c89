"""Where the files of a learner's state go: into a folder, or into memory until somebody asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors.torch import save, save_file
from torch import Tensor


class StateFiles(Protocol):
    def tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """A safetensors file."""

    def text(self, name: str, text: str) -> None: ...

    def within(self, folder: str) -> StateFiles:
        """The same, for files below a folder."""


class InFolder:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        save_file(dict(tensors), self.folder / name)

    def text(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def within(self, folder: str) -> InFolder:
        return InFolder(self.folder / folder)


class InMemory:
    """The same bytes, as (n,) uint8 by their relative path."""

    def __init__(self, files: dict[str, np.ndarray] | None = None, prefix: str = "") -> None:
        self.files = {} if files is None else files
        self.prefix = prefix

    def tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        self.files[self.prefix + name] = np.frombuffer(save(dict(tensors)), np.uint8)

    def text(self, name: str, text: str) -> None:
        self.files[self.prefix + name] = np.frombuffer(text.encode(), np.uint8)

    def within(self, folder: str) -> InMemory:
        return InMemory(self.files, f"{self.prefix}{folder}/")

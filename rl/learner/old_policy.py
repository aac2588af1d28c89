"""A slow copy of the trained weights, which generates the samples and which losses compare with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.algorithm_options import OldPolicyOptions
from rl.learner.state_files import StateFiles

FILE = "old_policy.safetensors"


class OldPolicy:
    """DiffusionNFT's (arXiv 2509.16117, algorithm 1): old <- d old + (1 - d) policy after each update."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], options: OldPolicyOptions) -> None:
        """
        Args:
            parameters: whole on every rank, so not those of ZeRO stage 3.
        """
        self.parameters = parameters
        self.options = options
        self.weights = {name: parameter.detach().float().clone() for name, parameter in parameters.items()}
        """fp32: in bf16 a small step towards the policy would round away."""

    def follow(self, update: int) -> None:
        """After `update` (the first is 0). The decay grows, because early on the policy is better than its past."""
        decay = min(self.options.decay, self.options.growth * (update + 1))
        for name, parameter in self.parameters.items():
            self.weights[name].lerp_(parameter.detach().float(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network computes with the old weights. No graph may be built inside."""
        present = {name: parameter.data for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.data = self.weights[name].to(parameter.dtype)
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = present[name]

    def published(self) -> dict[str, Tensor]:
        """In the precision of the network."""
        return {name: self.weights[name].to(parameter.dtype) for name, parameter in self.parameters.items()}

    def save(self, files: StateFiles) -> None:
        files.tensors(FILE, self.weights)

    def load(self, folder: Path) -> None:
        loaded = load_file(folder / FILE, device=str(next(iter(self.weights.values())).device))
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(loaded[name])

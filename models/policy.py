"""What a text and an image policy have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from models.options import Precision

DTYPES = {Precision.fp32: torch.float32, Precision.bf16: torch.bfloat16}
"""Of stored and loaded weights."""


class Policy(nn.Module, ABC):
    """What is trained, and what it needs in its forward; parameters that ask for a gradient are trained."""

    network: Any
    """The transformers or diffusers model."""

    @property
    def trained(self) -> nn.Module:
        """The part that is trained: its weights, or adapters in it."""
        return self.network

    @property
    @abstractmethod
    def adaptable(self) -> nn.Module:
        """Where in the trained part linear layers may get adapters."""

"""What a text and an image policy have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn


class Policy(nn.Module, ABC):
    """A network that is trained, and nothing else: all parameters of the policy are its."""

    network: Any
    """The transformers or diffusers model."""

    @property
    @abstractmethod
    def adaptable(self) -> nn.Module:
        """The part of the network whose linear layers may get adapters."""

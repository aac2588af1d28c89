"""What a text and an image policy have in common."""

from __future__ import annotations

from typing import Any

from torch import nn


class Policy(nn.Module):
    """A network that is trained, and nothing else: all parameters of the policy are its."""

    network: Any
    """The transformers or diffusers model."""

    @property
    def adaptable(self) -> nn.Module:
        """The part of the network whose linear layers may get adapters."""
        raise NotImplementedError

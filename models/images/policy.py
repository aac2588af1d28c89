"""A text-to-image diffusion or flow model: one of diffusers' own networks, called as its stock pipeline does."""

from __future__ import annotations

import torch
from diffusers import ModelMixin
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from models.images.families import FAMILIES, NetworkInput
from models.images.prompt_encoder import PromptEncoder
from models.images.spec import Condition, Guidance, ImageSpec, Prediction
from models.policy import Policy
from models.user_adapter import has_user_adapter

__all__ = ["Condition", "Guidance", "ImagePolicy", "ImageSpec", "Prediction"]


SMALLEST_BATCH = 16
"""On the CPU, matrix products with fewer rows (the time embedding has one a sample) and convolutions of a single image
take another path, and a row's last bits would depend on its batch mates. From 16 on they were bitwise equal in batches
of every size, with one thread and with two."""


class ImagePolicy(Policy):
    """`network` is a diffusers UNet2DConditionModel, SD3Transformer2DModel or FluxTransformer2DModel."""

    def __init__(self, network: ModelMixin, spec: ImageSpec, prompt_encoder: PromptEncoder | None = None) -> None:
        """
        Args:
            prompt_encoder: where its text encoders are what is trained; the policy then owns their weights.
        """
        super().__init__()
        self.network = network
        self.spec = spec
        self.prompt_encoder = prompt_encoder
        self.text_encoders = TextEncoders({} if prompt_encoder is None else prompt_encoder.text_encoders)
        """By their names in the pipeline; empty where they are not trained."""

    def forward(
        self,
        latents: Tensor,
        time: Tensor,
        embeds: Tensor,
        pooled: Tensor | None,
        guidance: Tensor | None,
        user: Tensor | None = None,
    ) -> Tensor:
        """The network's output, without classifier-free guidance: the caller batches both halves.

        Args:
            latents: (B, C, h, w) fp32.
            time: (B,) fp32, in the units of the pipeline's scheduler: its training steps (0 to 1000) for every family;
                a flow model's is 1000 times its noise level.
            embeds: (B, T, W) and pooled (B, V) or None: a `Condition`.
            guidance: (B,) fp32 scale where `spec.guidance` is embedded, else None.
            user: (B, U) fp32 vector of each row's user where there is a user adapter, else None.

        Returns:
            (B, C, h, w) fp32, to be read by `spec.prediction`.
        """
        if (guidance is not None) != (self.spec.guidance is Guidance.embedded):
            raise ValueError(
                f"this model's guidance is {self.spec.guidance.value}: a guidance scale is an input of the network "
                "exactly where it is embedded"
            )
        if (user is not None) != has_user_adapter(self):
            raise ValueError(
                "a user's vector is an input of the network exactly where it has a user adapter (model.user_adapter)"
            )
        count = len(latents)
        if latents.device.type == "cpu" and count < SMALLEST_BATCH:
            latents, time, embeds = _padded(latents), _padded(time), _padded(embeds)
            pooled = None if pooled is None else _padded(pooled)
            guidance = None if guidance is None else _padded(guidance)
            user = None if user is None else _padded(user)
        precision = self.network.dtype
        pooled, user = (None if value is None else value.to(precision) for value in (pooled, user))
        condition = Condition(embeds.to(precision), pooled, user)
        given = NetworkInput(latents.to(precision), time, condition, guidance)
        return FAMILIES[self.spec.family].call(self.network, self.spec, given).float()[:count]

    @property
    def trained(self) -> nn.Module:
        return self.text_encoders if self.prompt_encoder is not None else self.network

    @property
    def adaptable(self) -> nn.Module:
        """Where adapters may go: everywhere."""
        return self.trained

    @property
    def device(self) -> torch.device:
        return self.network.device


class TextEncoders(nn.ModuleDict):
    """Stays in evaluation mode: with dropout (T5's) another encoder would be trained than the one that is used."""

    def train(self, mode: bool = True) -> TextEncoders:
        super().train(False)
        for module in self.modules():
            if isinstance(module, GradientCheckpointingLayer):
                # Its own mode says whether activations are recomputed; dropout looks at those of modules inside.
                module.training = mode and module.gradient_checkpointing
        return self


def _padded(rows: Tensor) -> Tensor:
    """SMALLEST_BATCH rows, the last one repeated."""
    return torch.cat([rows, rows[-1:].expand(SMALLEST_BATCH - len(rows), *rows.shape[1:])])

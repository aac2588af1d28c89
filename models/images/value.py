"""Networks that predict what a sample will be worth from a state on the way to it. Their first prediction is 0."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WIDTH = 64
"""Channels of an image's value network."""
TIME_FREQUENCIES = 32
LONGEST_PERIOD = 10_000
"""Of the sines that tell an image's value network the time, in the units of the scheduler's timesteps."""


class ImageValue(nn.Module):
    """A small network of the latents, the time and the prompt, whatever the policy's is (as DPOK's, arXiv 2305.16381).

    Each of three convolutions halves the latents' edges; time and prompt are added behind the first, so that the others
    can read the latents by them.
    """

    def __init__(self, latent_channels: int, prompt_width: int, seed: int) -> None:
        """
        Args:
            prompt_width: of each token's embedding.
            seed: of the first weights; torch's global generators are left as they were.
        """
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.latents = nn.Conv2d(latent_channels, WIDTH, 3, stride=2, padding=1)
            self.time = nn.Linear(2 * TIME_FREQUENCIES, WIDTH)
            self.prompt = nn.Sequential(nn.LayerNorm(prompt_width), nn.Linear(prompt_width, WIDTH))
            self.body = nn.Sequential(
                nn.SiLU(),
                nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1),
                nn.SiLU(),
                nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1),
                nn.SiLU(),
            )
            self.hidden = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.SiLU())
            self.head = nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, latents: Tensor, time: Tensor, embeds: Tensor) -> Tensor:
        """(B,) fp32 values.

        Args:
            latents: (B, C, h, w) fp32.
            time: (B,) fp32, as `ImagePolicy.forward` takes it.
            embeds: (B, T, W) fp32 prompt, of which the mean over tokens is read.
        """
        condition = self.time(_waves(time)) + self.prompt(embeds.mean(1))  # (B, WIDTH)
        seen = self.body(self.latents(latents) + condition[:, :, None, None]).mean((2, 3))  # (B, WIDTH)
        return self.head(self.hidden(torch.cat([seen, condition], 1)))[:, 0]


def _waves(time: Tensor) -> Tensor:
    """(B, 2 TIME_FREQUENCIES) cosines and sines of (B,) times."""
    exponent = torch.arange(TIME_FREQUENCIES, device=time.device) / TIME_FREQUENCIES
    angle = time[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * exponent)
    return torch.cat([angle.cos(), angle.sin()], 1)

"""Options of a likelihood that the chosen one would never read: set, they would silently do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from configs.schema import Config, LikelihoodKind, LikelihoodOptions
from models.options import Modality

READ_BY: dict[str, tuple[LikelihoodKind | None, Modality | None]] = {
    "partition": (LikelihoodKind.replay, None),  # for images it has a sentence of its own
    "shrink": (LikelihoodKind.replay, Modality.text),
    "segments": (LikelihoodKind.replay, Modality.text),
    "sampled_parts": (LikelihoodKind.replay, Modality.text),
    "prompt_masking": (None, Modality.text),
    "draws": (LikelihoodKind.elbo, None),
    "mask_law": (LikelihoodKind.elbo, Modality.text),
    "rate_range": (LikelihoodKind.elbo, Modality.text),
    "rising_rate": (LikelihoodKind.elbo, Modality.text),
    "complement": (LikelihoodKind.elbo, Modality.text),
    "full_view": (LikelihoodKind.elbo, Modality.text),
    "canvas_block": (LikelihoodKind.elbo, Modality.text),
    "mask_weight": (LikelihoodKind.elbo, Modality.text),
    "noise_law": (LikelihoodKind.elbo, Modality.image),
    "level_range": (LikelihoodKind.elbo, Modality.image),
    "loss_weight": (LikelihoodKind.elbo, Modality.image),
    "shared_noise": (LikelihoodKind.elbo, Modality.image),
    "inversion_steps": (LikelihoodKind.elbo, Modality.image),
    "unconditional_gradient": (LikelihoodKind.replay, Modality.image),
}
"""Which likelihood reads an option; None is any."""


def unused_options(config: Config) -> Iterator[str]:
    """One sentence for each option that is set and not read."""
    options, modality = config.algorithm.likelihood, config.model.modality
    default = LikelihoodOptions()
    for name, (kind, only) in READ_BY.items():
        value = getattr(options, name)
        if _plain(value) == _plain(getattr(default, name)):
            continue
        setting = f"algorithm.likelihood.{name}={_plain(value)}"
        if kind not in (None, options.kind):
            yield f"{setting} does nothing with kind={options.kind.name}; leave it out, or use kind={kind.name}"
        elif only not in (None, modality):
            yield f"{setting} does nothing for a model of {modality.name}s; leave it out"


def _plain(value: Any) -> Any:
    """As it is written in a configuration."""
    if isinstance(value, Enum):
        return value.name
    return list(value) if isinstance(value, tuple) else value

"""Which modality a configuration is for."""

from __future__ import annotations

from configs.schema import Config
from models.options import Modality as Name
from rl.modality.protocol import Modality


def modality_of(config: Config) -> Modality:
    """Imports only the libraries of the modality in question."""
    if config.model.modality is Name.image:
        from rl.modality.image import ImageModality

        return ImageModality(config)
    from rl.modality.text import TextModality

    return TextModality(config)

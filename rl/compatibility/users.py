"""Users' vectors and the adapter that reads them; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from configs.schema import Config, SourceOptions
from models.options import Modality, TrainedPart
from rl.compatibility.data import sources


def user_problems(config: Config) -> Iterator[str]:
    yield from _adapter(config)
    for name, source in sources(config).items():
        yield from _users(config, name, source)


def _adapter(config: Config) -> Iterator[str]:
    model = config.model
    if model.user_adapter is not None and model.modality is not Modality.image:
        yield "model.user_adapter is for models of images; leave it out"
    if model.user_adapter is not None and model.lora is not None:
        yield "model.user_adapter and model.lora are two ways to train; set model.lora=null, or model.user_adapter=null"
    if model.user_adapter is not None and model.train is not TrainedPart.network:
        yield "model.user_adapter is a part of the network, which model.train=text_encoder freezes; use one of the two"
    if model.user_adapter is not None and config.algorithm.value is not None:
        yield "algorithm.value predicts from prompt and picture and knows no user; beside model.user_adapter use null"


def _users(config: Config, where: str, source: SourceOptions) -> Iterator[str]:
    """Users' vectors and the adapter that reads them come together."""
    adapter = config.model.user_adapter
    if source.user is not None and adapter is None:
        yield (
            f"{where}.user={source.user} names a column of users' vectors, which the model would not read; set "
            f"model.user_adapter.dimension to their width, or {where}.user=null"
        )
    if source.user is None and adapter is not None:
        yield (
            f"model.user_adapter makes pictures for users, and {where} has none; set {where}.user to the column with "
            f"their vectors"
        )

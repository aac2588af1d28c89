"""Parts that users bring along: named where they are asked for, and found; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from configs.algorithm_options import AdvantageKind, AlgorithmOptions
from configs.schema import Config
from models.parts import PartError, find
from rl.algorithm.custom import PARTS, custom_part
from rollout.options import KernelKind


def custom_problems(config: Config) -> Iterator[str]:
    yield from _algorithm(config.algorithm)
    denoising = config.rollout.denoising
    path = denoising.custom_kernel
    if denoising.kernel is not KernelKind.custom:
        if path is not None:
            yield (
                f"rollout.denoising.custom_kernel={path} does nothing with kernel={denoising.kernel.name}; use "
                f"kernel=custom, or leave it out"
            )
    elif path is None:
        yield "rollout.denoising.kernel=custom is a function of yours: set custom_kernel to its dotted path"
    else:
        yield from _found(path, "rollout.denoising.custom_kernel")
    if config.model.family is not None and "." in config.model.family:
        yield from _found(config.model.family, "model.family", called=False)


def _algorithm(algorithm: AlgorithmOptions) -> Iterator[str]:
    for name, (custom, _) in PARTS.items():
        chosen, path = getattr(algorithm, name), getattr(algorithm.custom, name)
        if chosen is custom:
            try:
                custom_part(algorithm, name)
            except PartError as error:
                yield str(error)
        elif path is not None:
            yield (
                f"algorithm.custom.{name}={path} does nothing with {name}={chosen.name}; use {name}=custom, or drop it"
            )
    if algorithm.advantage is AdvantageKind.custom and algorithm.value is not None:
        yield "algorithm.value says what steps are worth beside advantage=zscore or raw; with advantage=custom use null"


def _found(path: str, what: str, called: bool = True) -> Iterator[str]:
    try:
        part = find(path, what)
    except PartError as error:
        yield str(error)
        return
    if called and not callable(part):
        yield f"{what}={path} is a {type(part).__name__}, which cannot be called; name a function"

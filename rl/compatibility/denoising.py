"""Steps, guidance and windows of an image sampler that cannot work; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from configs.schema import Config
from rollout.options import UntrainedOptions, WindowKind

AT_LEAST = {"steps": 1, "eta": 0, "guidance": 0, "guidance_from": 0, "samples_per_forward": 1}


def denoising_problems(config: Config) -> Iterator[str]:
    yield from _steps(config)
    yield from _window(config)


def _steps(config: Config) -> Iterator[str]:
    name, denoising = "rollout.denoising", config.rollout.denoising
    for option, least in AT_LEAST.items():
        value = getattr(denoising, option)
        if value < least:
            yield f"{name}.{option}={value}: must be at least {least}"
    if denoising.evaluation_steps is not None and denoising.evaluation_steps < 1:
        yield f"{name}.evaluation_steps={denoising.evaluation_steps}: must be at least 1"
    until = denoising.guidance_until
    if until is not None and denoising.evaluation_steps not in (None, denoising.steps):
        yield (
            f"{name}.guidance_until={until} counts steps of {denoising.steps}, but evaluation_steps="
            f"{denoising.evaluation_steps}; with another number of steps use guidance everywhere"
        )
    if until is None and denoising.guidance_from >= denoising.steps > 0:
        yield f"{name}.guidance_from={denoising.guidance_from}: no step of {denoising.steps} would be guided"
    if until is not None and not denoising.guidance_from < until <= denoising.steps:
        yield (
            f"{name}.guidance_until={until}: must lie above guidance_from={denoising.guidance_from} and at most at "
            f"steps={denoising.steps}"
        )


def _window(config: Config) -> Iterator[str]:
    name, window = "rollout.denoising.window", config.rollout.denoising.window
    if not 0 < window.trained_fraction <= 1:
        yield f"{name}.trained_fraction={window.trained_fraction}: must lie in (0, 1]"
    # The last step leads to the clean image and never draws noise.
    last = config.rollout.denoising.steps - 1
    if window.untrained is not None:
        yield from _untrained(window.untrained, last, window.kind)
    if window.kind is WindowKind.all:
        return
    stop = last if window.stop is None else window.stop
    if window.size < 1 or window.every < 1 or window.start < 0:
        yield f"{name}: size and every must be at least 1 and start at least 0"
    elif stop > last or window.start + window.size > stop:
        yield (
            f"{name}: {window.size} steps from {window.start}, up to {stop}, are outside the {last} steps that draw "
            f"noise (rollout.denoising.steps={last + 1}, the last of which does not)"
        )


def _untrained(options: UntrainedOptions, last: int, kind: WindowKind) -> Iterator[str]:
    name = "rollout.denoising.window.untrained"
    if kind is not WindowKind.all:
        yield f"{name} leaves out some of all steps, and window.kind={kind.name} chooses few; use kind=all, or null"
    if options.size < 1 or options.every < 1 or not 0 <= options.final_start <= options.start:
        yield f"{name}: size and every must be at least 1, and start at least final_start, which is at least 0"
    elif options.start + options.size > last or options.size == last:
        yield (
            f"{name}: {options.size} steps from {options.start} are not within the {last} steps that draw noise, or "
            f"all of them (rollout.denoising.steps={last + 1}, the last of which draws none); use less"
        )

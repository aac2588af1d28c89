"""Which steps of a schedule draw noise, and which of those are trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rollout.images.kernels.errors import KernelError
from rollout.noise import Purpose, uniform
from rollout.options import UntrainedOptions, WindowKind, WindowOptions


def window_steps(options: WindowOptions, stochastic_steps: Sequence[int], seed: int, update: int) -> tuple[int, ...]:
    """The steps that draw noise, in order; the others follow the ODE.

    Args:
        stochastic_steps: steps at which the kernel can draw noise (`GaussianSteps.stochastic_steps`).
        seed: of the ticket, so that every group in it has the same window.
        update: number of the update, for sliding windows.

    Raises:
        KernelError: the window does not lie within the stochastic steps.
    """
    if not stochastic_steps:
        raise KernelError("no step draws noise, so none can be trained: choose another kernel or a larger eta")
    if options.kind is WindowKind.all:
        return tuple(stochastic_steps)
    stop = stochastic_steps[-1] + 1 if options.stop is None else options.stop
    _check(options, stop, stochastic_steps)
    places = stop - options.size - options.start + 1
    if options.kind is WindowKind.fixed:
        place = 0
    elif options.kind is WindowKind.random:
        place = int(places * _uniform(seed, 1, 0).item())
    else:
        place = update // options.every % places
    first = options.start + place
    return tuple(range(first, first + options.size))


def trained_steps(options: WindowOptions, window: Sequence[int], seed: int, update: int) -> tuple[int, ...]:
    """The steps of a window that are trained, in order: a `trained_fraction`, drawn once per ticket, of those that are
    not in the untrained run of this update; at least one of them unless the fraction is 0."""
    if not 0 <= options.trained_fraction <= 1:
        raise KernelError(f"trained_fraction={options.trained_fraction}: it must lie in [0, 1]")
    if options.trained_fraction == 0:
        return ()
    if options.untrained is not None:
        left_out = _untrained(options.untrained, update)
        window = [step for step in window if step not in left_out]
        if not window:
            raise KernelError(f"all steps that draw noise lie in untrained, from {left_out.start}: lower its size")
    count = max(1, round(options.trained_fraction * len(window)))
    chosen = _uniform(seed, len(window), 1).argsort()[:count]
    return tuple(sorted(window[index] for index in chosen.tolist()))


def _untrained(options: UntrainedOptions, update: int) -> range:
    first = max(options.start - update // options.every, options.final_start)
    return range(first, first + options.size)


def _check(options: WindowOptions, stop: int, stochastic_steps: Sequence[int]) -> None:
    if options.size < 1 or options.every < 1:
        raise KernelError(f"window size={options.size} and every={options.every} must both be at least 1")
    if stop - options.start < options.size:
        raise KernelError(
            f"a window of {options.size} steps does not fit between start={options.start} and stop={stop}: "
            "lower the size or widen the range"
        )
    outside = sorted(set(range(options.start, stop)) - set(stochastic_steps))
    if outside:
        raise KernelError(
            f"the window's range from start={options.start} to stop={stop} holds steps that draw no noise: {outside}. "
            f"This schedule draws noise at {list(stochastic_steps)}: change start and stop"
        )


def _uniform(seed: int, count: int, draw: int) -> torch.Tensor:
    return uniform(torch.tensor(seed), torch.arange(count), torch.tensor(draw), Purpose.WINDOW)

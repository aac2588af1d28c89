"""Training out of Python: the run of the command line, in this process or on Ray."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from configs.errors import UserError
from rl.api.configuration import AnyConfig, composed_of
from rl.records.run_folder import RunFolder, open_run
from rl.run.callback import Callback

WIDTH = 120
"""Columns of what is printed where no terminal says how many there are."""
OnUpdate = Callable[[int, Mapping[str, float]], bool | None]


class _OnUpdate(Callback):
    def __init__(self, function: OnUpdate) -> None:
        self.on_update = function  # type: ignore[method-assign, assignment]


def train(
    config: AnyConfig | str,
    callbacks: Callback | OnUpdate | Sequence[Callback | OnUpdate] = (),
    *,
    ray: bool = False,
    verbose: bool = True,
) -> RunFolder:
    """Train as `denoiserl train` does, with the same numbers, and return the run folder, opened.

    A run goes on from the newest checkpoint of its folder, if there is one; `run.resume=false` starts anew.

    Args:
        config: what `compose` returns, or the name of a recipe.
        callbacks: objects of subclasses of `Callback`, or functions of (update, metrics); one that returns True ends
            the run behind the present update.
        ray: False is one learner, one rollout worker and one reward worker in this process, which start in seconds;
            True starts the processes that `cluster` describes, on Ray.
        verbose: print a line an update and the summary.

    Raises:
        ConfigError, UserError, DataError, RewardError: the run is refused before anything starts; says what to change.
        RunFailed, RewardsFailed, LearnerError, ClusterError: it failed under way; the folder keeps what was done.
    """
    from rich.console import Console

    from rl.compatibility import check

    composed = composed_of(config)
    check(composed.config, None)  # before the imports of the next lines, which take seconds
    several = [callbacks] if isinstance(callbacks, Callback) or callable(callbacks) else list(callbacks)
    looking_on = [_callback(each) for each in several]
    # Not rich's Jupyter mode, which makes an output of every line.
    console = Console(quiet=not verbose, force_jupyter=False, width=None if sys.stdout.isatty() else WIDTH)
    if ray:
        from rl.driver.train import train as on_ray

        on_ray(composed, console, looking_on)
    else:
        learners = composed.config.cluster.learners
        if learners > 1:
            raise UserError(
                f"cluster.learners={learners}: one process has one learner; train(..., ray=True) starts more"
            )
        from torch import cuda

        from rl.driver.in_process import process_group, train_in_process

        if not verbose:
            if not cuda.is_available():  # what DeepSpeed would find out by itself, and warn of
                os.environ.setdefault("DS_ACCELERATOR", "cpu")
            with _compiler_unheard(), process_group():  # it stays; DeepSpeed looks for compilers as it joins
                pass
        train_in_process(composed, console, None, looking_on, shown=True)
    run = composed.config.run
    return open_run(Path(run.folder) / run.name)


@contextmanager
def _compiler_unheard() -> Iterator[None]:
    """What programs that are started here write, which a notebook would show below its cell; not what Python writes."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        yield
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)


def _callback(given: Callback | OnUpdate) -> Callback:
    if isinstance(given, Callback):
        return given
    if not callable(given):
        raise UserError(f"a callback is an object of a subclass of rl.Callback, or a function, not {given!r}")
    return _OnUpdate(given)

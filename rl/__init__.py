"""Reinforcement learning for diffusion models. `from rl import compose, train, ...` is the library (docs/api.md).

The rooms below, each of which may import those behind it and none before:

cli, gym, commands, api, driver, records, run, learner, modality, compatibility, likelihood, algorithm, data; drawing
and storage stand beside.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rl.api.advantages import advantages
    from rl.api.configuration import compose
    from rl.api.likelihoods import log_probs
    from rl.api.losses import loss
    from rl.api.policy import load_policy
    from rl.api.prompts import problems
    from rl.api.registration import register
    from rl.api.sampling import sample
    from rl.api.scoring import score
    from rl.api.training import train
    from rl.records.run_folder import open_run
    from rl.run.callback import Callback

__all__ = [
    "Callback",
    "advantages",
    "compose",
    "load_policy",
    "log_probs",
    "loss",
    "open_run",
    "problems",
    "register",
    "sample",
    "score",
    "train",
]

_HOMES = {
    "Callback": "rl.run.callback",
    "advantages": "rl.api.advantages",
    "compose": "rl.api.configuration",
    "load_policy": "rl.api.policy",
    "log_probs": "rl.api.likelihoods",
    "loss": "rl.api.losses",
    "open_run": "rl.records.run_folder",
    "problems": "rl.api.prompts",
    "register": "rl.api.registration",
    "sample": "rl.api.sampling",
    "score": "rl.api.scoring",
    "train": "rl.api.training",
}
"""Where each name is found when it is first asked for (PEP 562): importing `rl` loads none of them."""


OTHERS = ("cluster", "configs", "models", "rewards", "rollout")


def _take_our_packages() -> None:
    """Our other packages are those beside this one, whatever lies in the working folder or on PYTHONPATH under such
    everyday names: every process imports `rl` first, and what is imported once is not looked for again.

    Raises:
        ImportError: another package of that name is imported already.
    """
    beside = Path(__file__).parent.parent
    for name in OTHERS:
        module = sys.modules.get(name)
        if module is None:
            spec = PathFinder.find_spec(name, [str(beside)])
            if spec is None or spec.loader is None:
                raise ImportError(f"the installation is not whole: {beside} has no package {name}; install it again")
            module = sys.modules[name] = module_from_spec(spec)
            spec.loader.exec_module(module)
        elif Path(module.__file__ or "").resolve() != (beside / name / "__init__.py").resolve():
            raise ImportError(
                f"{name} was imported from {module.__file__}, but DenoiseRL has a package of that name: rename yours, "
                f"or import rl before it"
            )


_take_our_packages()
import_module("models.exact_products").keep_rows_apart()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rl' has no attribute {name!r}; the library's names are {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

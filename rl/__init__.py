"""Reinforcement learning for diffusion models. `from rl import compose, train, ...` is the library (docs/api.md).

The rooms below, each of which may import those behind it and none before:

cli, gym, commands, api, driver, records, run, learner, modality, compatibility, likelihood, algorithm, data; drawing
stands beside.
"""

from __future__ import annotations

from importlib import import_module
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rl' has no attribute {name!r}; the library's names are {', '.join(__all__)}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

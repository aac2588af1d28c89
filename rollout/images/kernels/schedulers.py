"""Builds the diffusers scheduler that a scheduler_config.json names; refuses what it says and nobody would read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)

from rollout.images.kernels.errors import KernelError

SIGMA_SCHEDULERS = (EulerDiscreteScheduler, EulerAncestralDiscreteScheduler)
"""Variance-preserving ones that walk along noise / signal, and from noise of their own scale."""
_CLASSES = (FlowMatchEulerDiscreteScheduler, DDIMScheduler, DDPMScheduler, PNDMScheduler, *SIGMA_SCHEDULERS)
_BY_NAME = {scheduler_class.__name__: scheduler_class for scheduler_class in _CLASSES}

FLOW_SCHEDULERS = (FlowMatchEulerDiscreteScheduler.__name__,)
BROKEN = (ArithmeticError, ImportError, NotImplementedError, TypeError, ValueError)
"""What diffusers raises for values that it cannot make a schedule of."""

_UNCHANGED = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
    "use_dynamic_shifting": False,
    "rescale_betas_zero_snr": False,
    "interpolation_type": "linear",
    "final_sigmas_type": "zero",
    "timestep_type": "discrete",
}
"""Options that choose other levels where a scheduler reads them, and the value with which they choose none."""


def scheduler_of(config: Mapping[str, Any]) -> Any:
    """The scheduler that a pipeline loads with this scheduler_config.json: its own class, with that class's defaults.

    An option that another scheduler of diffusers has, and this one has not, is left over from a conversion
    (`from_config` keeps them): the stock pipeline ignores it, and so do we, unless it asks for other levels.

    Raises:
        KernelError: the class is not supported, or an option is unknown, ignored or impossible.
    """
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in _BY_NAME:
        raise KernelError(
            f"unknown scheduler {name!r}: scheduler_config.json must name one of {', '.join(sorted(_BY_NAME))}"
        )
    scheduler_class: Any = _BY_NAME[name]
    _refuse_unread(scheduler_class, config)
    # PNDM's Runge-Kutta start is of its solver, which is not ours, and impossible with fewer than four steps.
    solver = {"skip_prk_steps": True} if scheduler_class is PNDMScheduler else {}
    try:
        scheduler = scheduler_class.from_config(dict(config), **solver)
    except BROKEN as error:
        raise impossible(name, error) from error
    _refuse_other_outputs(scheduler)
    trained, stated = len(getattr(scheduler, "betas", ())), scheduler.config.num_train_timesteps
    if trained not in (0, stated):
        raise KernelError(
            f"scheduler_config.json lists {trained} trained_betas and says num_train_timesteps={stated}: correct one"
        )
    return scheduler


def impossible(name: str, error: Exception) -> KernelError:
    """What diffusers' own complaint about a scheduler_config.json becomes."""
    return KernelError(f"{name} makes no schedule of its scheduler_config.json ({error}): correct that option")


def _refuse_unread(scheduler_class: Any, config: Mapping[str, Any]) -> None:
    name, own = scheduler_class.__name__, scheduler_class._get_init_keys(scheduler_class)
    unread = {option: value for option, value in config.items() if not option.startswith("_") and option not in own}
    if not unread:  # spares the import of all the relatives
        return
    relatives = EulerDiscreteScheduler._get_compatibles()
    known = set().union(*(scheduler_class._get_init_keys(relative) for relative in relatives))
    for option, value in unread.items():
        if option not in known:
            raise KernelError(
                f"scheduler_config.json says {option}={value!r}, which neither {name} nor any scheduler like it has: "
                f"remove it, or correct its name"
            )
        if option in _UNCHANGED and value not in (None, _UNCHANGED[option]):
            raise KernelError(
                f"scheduler_config.json says {option}={value!r}, which {name} does not read: remove it, or name a "
                f"scheduler in _class_name that does"
            )


def _refuse_other_outputs(scheduler: Any) -> None:
    """What changes the network's input or output on the way, and no kernel knows of."""
    own = scheduler._get_init_keys(type(scheduler))
    config = scheduler.config
    # PNDM and Euler carry these over from a conversion without using them.
    for option in {"clip_sample", "thresholding"} & own:
        if config[option]:
            raise KernelError(
                f"the scheduler clips the predicted image ({option}=true), and a clipped step has no simple density: "
                f"set {option} to false in scheduler_config.json"
            )
    if config.get("invert_sigmas"):
        raise KernelError("invert_sigmas=true runs from image to noise, which these kernels cannot: set it to false")
    if "timestep_type" in own and config.timestep_type == "continuous" and config.prediction_type == "v_prediction":
        raise KernelError(
            "timestep_type=continuous tells the network log(sigma) / 4 in place of a training step, which no model of "
            "the supported families was trained with: use timestep_type=discrete"
        )

"""Parts of your own: rewards, advantages, objectives, denominators, kernels, model families."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

from configs.errors import UserError
from models.parts import GIVEN, LOCAL

Kind = Literal["reward", "advantage", "objective", "denominator", "kernel", "text_family", "image_family"]
Part = TypeVar("Part")


def register(kind: Kind, part: Any, name: str | None = None) -> str:
    """Make a part of yours known, and return the name that a configuration selects it by.

        register("reward", brevity)       reward.terms.TERM.function=NAME
        register("advantage", median)     algorithm.advantage=custom algorithm.custom.advantage=NAME
        register("objective", huber)      algorithm.objective=custom algorithm.custom.objective=NAME
        register("denominator", halved)   algorithm.denominator=custom algorithm.custom.denominator=NAME
        register("kernel", constant)      rollout.denoising.kernel=custom rollout.denoising.custom_kernel=NAME
        register("text_family", AURORA)   model.family=NAME

    The name is a dotted path. What stands in a module is found by it everywhere, later runs and the command line
    included, and needs no registration: its path is enough. What a notebook or a script defines is sent to the run's
    processes by value, with what it uses; it is not written into the run folder, and a later command that cannot find
    it is refused.

    Args:
        part: a function, or of families a `TextFamily` or `ImageFamily`.
        name: of a lambda, or of a family that is called differently from its `name`.

    Raises:
        UserError: it has no name, or is not what the kind calls for.
        RewardError, CheckpointError: the same, of rewards and families.
    """
    if kind not in get_args(Kind):
        raise UserError(f"register({kind!r}, ...): there are {', '.join(get_args(Kind))}")
    _check(kind, part)
    own = name or _name_of(kind, part)
    path = _importable(part) if name is None else None
    if path is not None:
        return path
    if kind == "reward":
        from rewards.registry import GIVEN as REWARDS

        REWARDS[LOCAL + own] = part
    else:
        GIVEN[LOCAL + own] = part
    return LOCAL + own


def _check(kind: Kind, part: Any) -> None:
    if kind == "text_family":
        from models.text.families import enter as enter_text

        enter_text(part)
    elif kind == "image_family":
        from models.images.families import enter as enter_image

        enter_image(part)
    elif kind == "reward":
        from rewards.registry import check_function

        check_function(getattr(part, "__name__", repr(part)), part)
    elif not callable(part):
        raise UserError(f"register({kind!r}, ...) takes a function, not a {type(part).__name__}")


def _name_of(kind: Kind, part: Any) -> str:
    name = part.name if kind.endswith("family") else getattr(part, "__name__", "")
    own = str(name).replace("-", "_")
    if not own.isidentifier():
        raise UserError(f"{part!r} has no name to select it by: register({kind!r}, ..., name='my_part')")
    return own


def _importable(part: Callable[..., Any]) -> str | None:
    """Its dotted path, if another process would find the same object there."""
    module, name = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    if not module or not name or module == "__main__" or "." in name:
        return None
    found = sys.modules.get(module)
    has_file = getattr(found, "__file__", None) is not None
    return f"{module}.{name}" if has_file and getattr(found, name, None) is part else None

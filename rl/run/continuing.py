"""Whether a run may go on under a configuration: whatever decides its numbers must be what it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import reduce
from typing import Any

from configs.errors import UserError
from configs.fields import AtResume, leaves, mark_of, may_change

ABSENT = "(not set)"


def differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted path -> (then, now) of what differs; JSON decides, which both went or will go through."""
    then, now = leaves(json.loads(json.dumps(recorded))), leaves(json.loads(json.dumps(current)))
    return {
        path: (then.get(path, ABSENT), now.get(path, ABSENT))
        for path in sorted(then.keys() | now.keys())
        if then.get(path, ABSENT) != now.get(path, ABSENT)
    }


def check_continues(recorded: Mapping[str, Any], current: Mapping[str, Any], where: str) -> dict[str, tuple[Any, Any]]:
    """Refuse to go on with a run under another configuration: it would be neither the old run nor a new one.

    Args:
        recorded, current: resolved configurations, and what else decides the samples, by dotted paths.
        where: what wrote `recorded`, for the message.

    Returns:
        What differs and may: dotted path -> (then, now).

    Raises:
        UserError: with every other difference, and both ways on.
    """
    changed = differences(recorded, current)
    refused = {path: values for path, values in changed.items() if not may_change(path)}
    if refused:
        lines = [f"  {path}: {_shown(then)} then, {_shown(now)} now" for path, (then, now) in refused.items()]
        raise UserError(
            f"this configuration would not continue the run of {where}, but mix it with another one:\n"
            + "\n".join(lines)
            + "\nTo continue it, use the old values; to start anew, choose another run.name, or run.resume=false, "
            "which keeps the old results under a name with a number"
        )
    return changed


def evaluation_identity(options: Mapping[str, Any]) -> str:
    """Hash of what decides an evaluation's problems and samples and may change at a resume: two evaluations compare
    when it is the same. Which options those are, they say themselves (`configs.fields.AtResume.evaluations`)."""
    marks = {mark.path for path in leaves(options) if (mark := mark_of(path)) and mark.decides is AtResume.evaluations}
    values = {path: _at(options, path) for path in marks}
    # In the order and the form of the first runs' hashes, or those evaluations would compare with none of today's.
    of_evaluation = {path: values.pop(path) for path in marks if path.startswith("evaluation.")}
    evaluation = {path.removeprefix("evaluation."): value for path, value in of_evaluation.items()}
    decides = [evaluation, values.pop("data.evaluation"), values.pop("rollout.denoising.evaluation_steps")]
    decides += [values] if values else []
    return hashlib.blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=8).hexdigest()


def _at(options: Mapping[str, Any], path: str) -> Any:
    return reduce(lambda section, name: section[name], path.split("."), options)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

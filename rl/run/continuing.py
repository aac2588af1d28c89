"""Whether a run may go on under a configuration: whatever decides its numbers must be what it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from configs.errors import UserError
from configs.fields import leaves, may_change

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
    when it is the same."""
    evaluation = {name: value for name, value in options["evaluation"].items() if name != "every"}
    decides = [evaluation, options["data"]["evaluation"], options["rollout"]["denoising"]["evaluation_steps"]]
    return hashlib.blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=8).hexdigest()


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

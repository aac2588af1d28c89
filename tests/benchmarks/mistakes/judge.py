"""What a mistake is, and what became of one: a right result, a refusal that helps, or silence."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rl.commands.foreign import OURS

FIX = re.compile(
    r"did you mean|nearest|is written|its columns are|is named by|"
    r"expected|must (?:be|lie|accept|hold|have)|need(?:s|ed)|"
    r"(?:^|[\s(])(?:use|set|choose|give|write|store|quote|remove|rename|replace|restore|raise|lower|take|make|mend|put|"
    r"end|name|ask|fill|change|convert|copy|train|allows|wait|leave|move|drop|return|cast|unset|start|spell|share|"
    r"go on)\b|files of \w+: |options of [\w.]+: |there (?:are|is)|it has|it knows|they know|at (?:least|most)",
    re.MULTILINE | re.IGNORECASE,
)
"""Words of which a message has one if it says what to do: what is possible, or a verb in the imperative."""


class Outcome(Enum):
    right = "right"
    refused = "refused"
    silent = "silent"


@dataclass(frozen=True)
class Mistake:
    what: str
    """In words, with whatever was drawn: enough to make it by hand."""
    do: Callable[[], Any]
    """The run."""
    cause: tuple[str, ...] = ()
    """Words that the message of a refusal must have, all of them, each in one of its spellings (`a|b`); without any the
    mistake may not be refused."""
    right: Callable[[Any], str] | None = None
    """Of what `do` returns: "", or what is not proven of it. None: a run that ends well is silent."""


@dataclass(frozen=True)
class Verdict:
    outcome: Outcome
    seen: str
    """The message of a refusal; of a silent mistake what was seen in place of it."""


def judged(mistake: Mistake) -> Verdict:
    try:
        result = mistake.do()
    except Exception as error:
        return _refusal(mistake, error)
    if mistake.right is None:
        return Verdict(Outcome.silent, "the run ended well, and nothing was said")
    try:
        wrong = mistake.right(result)
    except Exception:
        wrong = "the proof failed:\n" + traceback.format_exc()
    return Verdict(Outcome.silent if wrong else Outcome.right, wrong)


def _refusal(mistake: Mistake, error: Exception) -> Verdict:
    message = str(error)
    if type(error).__module__.partition(".")[0] not in OURS:
        return Verdict(Outcome.silent, "an error of somebody else's:\n" + "".join(traceback.format_exception(error)))
    named = f"{type(error).__name__}: {message}"
    if not mistake.cause:
        return Verdict(Outcome.silent, f"refused, though it is no mistake: {named}")
    if lacking := [word for word in mistake.cause if not any(spelling in message for spelling in word.split("|"))]:
        return Verdict(Outcome.silent, f"the message lacks {', '.join(map(repr, lacking))}: {named}")
    if not FIX.search(message):
        return Verdict(Outcome.silent, f"the message does not say what to do: {named}")
    return Verdict(Outcome.refused, named)

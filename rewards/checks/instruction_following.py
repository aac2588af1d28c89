"""Instructions that a program can check, in IFEval's form (arXiv 2311.07911): the columns `instruction_id_list` and
`kwargs` of google/IFEval.

IFEval publishes four numbers: of prompts all of whose instructions are followed, or of instructions; strictly, or
loosely, where one of eight versions of the text has to follow each: with and without its first and last line, with and
without asterisks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rewards.checks.answers import LogMalformed, column, scores
from rewards.checks.instructions import check_arguments, follows
from rewards.checks.language import Undetected

LEVELS = ("prompt", "instruction")


def instruction_following(
    completions: list[str],
    instruction_id_list: Sequence[Sequence[str] | None],
    kwargs: Sequence[Sequence[Mapping[str, Any] | None] | None],
    level: Literal["prompt", "instruction"] = "prompt",
    loose: bool = False,
    log_malformed: LogMalformed | None = None,
    **_: Any,
) -> list[float | None]:
    """Whether the instructions are followed.

    Args:
        instruction_id_list: N lists of names, such as `punctuation:no_comma`.
        kwargs: N lists of their arguments, one object each, in the same order.
        level: prompt is 1 where all are followed, else 0; instruction is the share that is followed.
        loose: as IFEval's second measure. A version without its first line may follow what the text does not.
        log_malformed: is told of texts whose language cannot be told, where it is asked for: not followed.

    Returns:
        N scores, 0 to 1; None where the list is null: a problem of another data set.

    Raises:
        ValueError: an instruction is unknown, or its arguments lack, are unknown or mean nothing.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level!r} of instruction_following: choose {' or '.join(LEVELS)}")
    count = len(completions)
    names, arguments = column("instruction_id_list", instruction_id_list, count), column("kwargs", kwargs, count)
    asked = [_asked(place, *pair) for place, pair in enumerate(zip(names, arguments, strict=True))]

    def score(place: int, completion: str) -> float | None:
        instructions = asked[place]
        if instructions is None:
            return None
        versions = loose_versions(completion) if loose else [completion]
        told: list[str] = []
        followed = [_followed(name, versions, each, told) for name, each in instructions]
        if told and log_malformed is not None:
            log_malformed(place, "instruction_following", told[0])
        return float(all(followed)) if level == "prompt" else sum(followed) / len(followed)

    return scores("instruction_following", completions, score, log_malformed)


def _followed(name: str, versions: Sequence[str], arguments: Mapping[str, Any], told: list[str]) -> bool:
    for version in versions:
        try:
            if follows(name, version, arguments):
                return True
        except Undetected as error:
            told.append(f"{name}: {error}")
    return False


def loose_versions(text: str) -> list[str]:
    """The eight that IFEval looks at, each once, the text itself first."""
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return list(dict.fromkeys([*cut, *(version.replace("*", "") for version in cut)]))


def _asked(place: int, names: Any, arguments: Any) -> list[tuple[str, dict[str, Any]]] | None:
    if names is None:
        return None
    if isinstance(names, str) or not names or arguments is None or len(names) != len(arguments):
        raise ValueError(
            f"sample {place}: {names!r:.80} and {arguments!r:.80}: the names of one or more instructions, and as many "
            f"objects with their arguments, are needed"
        )
    try:
        return [(name, check_arguments(name, each)) for name, each in zip(names, arguments, strict=True)]
    except ValueError as error:
        raise ValueError(f"sample {place}: {error}") from error

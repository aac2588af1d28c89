"""What policies are asked: the problems of a configuration, or texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, Union

from configs.errors import UserError
from rewards.conversation import Message
from rl.api.configuration import AnyConfig, composed_of

if TYPE_CHECKING:
    from rl.data.problems import Problem

Split = Literal["train", "evaluation"]
AnyPrompt = Union[str, "Problem", list[Message]]


def problems(config: AnyConfig | str, split: Split = "evaluation", count: int | None = None) -> Sequence[Problem]:
    """Problems of a configuration's data: prompts, with the columns that rewards look at.

    Args:
        config: or the name of a recipe.
        split: `evaluation`, held out, or `train`.
        count: the first ones, as a list; None gives the whole source, which reads a problem when it is indexed.

    Raises:
        UserError: there is no such split, or it has fewer problems.
        DataError: the source is missing, unreadable or empty.
    """
    from rl.data.problems import ProblemSource, open_source, open_training

    whole = composed_of(config).config
    data = whole.data
    if split not in ("train", "evaluation"):
        raise UserError(f"split={split!r}: there are train and evaluation")
    if split == "evaluation" and data.evaluation is None:
        raise UserError("this configuration has no held-out problems: set data.evaluation, or take split='train'")
    source: ProblemSource = (
        open_training(data, whole.algorithm.advantage.offline)
        if split == "train" or not data.evaluation
        else open_source(data.evaluation)
    )
    if count is None:
        return source
    if not 1 <= count <= len(source):
        raise UserError(f"count={count}: this source has {len(source)} problems")
    return [source[index] for index in range(count)]


def as_problems(prompts: AnyPrompt | Iterable[AnyPrompt]) -> list[Problem]:
    """Texts and conversations become problems without columns, called `prompt/0`, `prompt/1`, ..."""
    from rl.data.conversation import looks_like_messages
    from rl.data.problems import Problem, conversation_problem

    several = [prompts] if isinstance(prompts, str | Problem) else list(prompts)
    if not several:
        raise UserError("there is no prompt: give at least one")
    found = []
    for index, prompt in enumerate(several):
        if isinstance(prompt, Problem):
            found.append(prompt)
        elif isinstance(prompt, str):
            found.append(Problem(f"prompt/{index}", prompt, {}))
        elif looks_like_messages(prompt):
            found.append(conversation_problem(f"prompt/{index}", list(prompt)))
        else:
            raise UserError(
                f"prompt {index} is a {type(prompt).__name__}: give texts, lists of messages, or what rl.problems "
                f"returns"
            )
    return found

"""Mistakes in what answers are compared with: the references of the reward `math`, and reasoning-gym's entries.

An untrained policy solves nothing, so right and wrong answers are written here and scored as a run scores them.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rewards.options import RewardOptions, RewardTerm
from rl.api.scoring import Rewards, score
from tests.benchmarks.mistakes.judge import Mistake
from tests.benchmarks.mistakes.workshop import ROWS, Workshop

COUNT = 6


def numbers(rng: random.Random) -> list[int]:
    return rng.sample(range(2, 90), COUNT)


def completions(values: Sequence[int], wrong: set[int]) -> list[str]:
    """Right answers in words around them, but for the wrong ones."""
    return [f"So the answer is {value + (index in wrong)}." for index, value in enumerate(values)]


def scored(reward: str, texts: Sequence[str], columns: dict[str, Any], **arguments: Any) -> Rewards:
    return score(RewardOptions(terms={"answer": RewardTerm(function=reward, args=arguments)}), texts, columns=columns)


def as_expected(expected: Sequence[float], words: tuple[str, ...] = ()) -> Callable[[Rewards], str]:
    """The rewards are these, NaN where a sample must have none; and each of those is a failure that says the words."""

    def right(found: Rewards) -> str:
        values = found.total[0]
        if not np.array_equal(values, np.array(expected, float), equal_nan=True):
            return f"rewards {values.tolist()} where {list(expected)} is right; failures {found.failures}"
        told = {failure.index: failure.message for failure in found.failures}
        for index, value in enumerate(expected):
            if math.isnan(value) and index not in told:
                return f"sample {index} has no reward, and nothing says why"
            if math.isnan(value) and not all(word in told[index] for word in words):
                return f"sample {index}: {told[index]!r} does not name {words}"
        return ""

    return right


UNREADABLE = ("see above", "1, 2, ..., n", "5 # 6", "\\frac{1}{", "x = = 3", "about 5 or 6?", "1 + + ", "{", "=")


def unreadable(workshop: Workshop, rng: random.Random) -> Mistake:
    """Of one row: its samples are not scored, whatever they say; a word stays a word."""
    values, wrong, at = numbers(rng), set(rng.sample(range(COUNT), 2)), rng.randrange(COUNT)
    references: list[Any] = [str(value) for value in values]
    references[at] = rng.choice(UNREADABLE)
    expected = [float(index not in wrong) for index in range(COUNT)]

    def right(found: Rewards) -> str:
        value = found.total[0][at]
        if value == 1:
            return f"{completions(values, wrong)[at]!r} counts as {references[at]!r}"
        rest = [found.total[0][index] if index == at else expected[index] for index in range(COUNT)]
        return as_expected(rest)(found)

    return Mistake(
        f"the reference of row {at} is {references[at]!r}",
        lambda: scored("math", completions(values, wrong), {"answer": references}),
        right=right,
    )


EMPTY = ("", "  ", None, "\n")


def empty(workshop: Workshop, rng: random.Random) -> Mistake:
    """Of one row: the term does not apply, as documented, and the sample has no reward."""
    values, wrong, at = numbers(rng), set(rng.sample(range(COUNT), 2)), rng.randrange(COUNT)
    references: list[Any] = [str(value) for value in values]
    references[at] = rng.choice(EMPTY)
    expected = [math.nan if index == at else float(index not in wrong) for index in range(COUNT)]
    return Mistake(
        f"the reference of row {at} is {references[at]!r}",
        lambda: scored("math", completions(values, wrong), {"answer": references}),
        right=as_expected(expected),
    )


NOT_TEXT: tuple[tuple[str, Callable[[int], Any], float | None], ...] = (
    ("an integer", lambda value: value, 1.0),
    ("a float", lambda value: float(value), 1.0),
    ("a boxed text", lambda value: f"\\boxed{{{value}}}", 1.0),
    ("a text with spaces", lambda value: f"  {value}\n", 1.0),
    ("a numpy integer", lambda value: np.int64(value), 1.0),
    ("a list of one", lambda value: [str(value)], None),
    ("a list of two", lambda value: [str(value), str(value + 1)], None),
    ("a tuple", lambda value: (value,), None),
    ("a set", lambda value: {value}, None),
    ("a mapping", lambda value: {"value": value}, None),
    ("bytes", lambda value: str(value).encode(), None),
    ("not a number", lambda value: math.nan, None),
    ("infinity", lambda value: math.inf, None),
    ("true", lambda value: True, None),
    ("an array", lambda value: np.array([value]), None),
)
"""What a reference may be in place of text: 1.0 where it says the number all the same, None where it says none."""


def not_text(workshop: Workshop, rng: random.Random) -> Mistake:
    values, wrong, at = numbers(rng), set(rng.sample(range(COUNT), 2)), rng.randrange(COUNT)
    what, make, says = rng.choice(NOT_TEXT)
    wrong.discard(at)
    references: list[Any] = [str(value) for value in values]
    references[at] = make(values[at])
    expected = [float(index not in wrong) for index in range(COUNT)]
    expected[at] = math.nan if says is None else says
    return Mistake(
        f"the reference of row {at} is {what}: {references[at]!r}",
        lambda: scored("math", completions(values, wrong), {"answer": references}),
        cause=("answer",) if says is None else (),
        right=as_expected(expected),
    )


def shifted(workshop: Workshop, rng: random.Random) -> Mistake:
    """Nobody can know; but every answer is compared with the reference of its own row, and with no other."""
    values, by = numbers(rng), rng.randrange(1, COUNT)
    references = [str(value) for value in values[by:] + values[:by]]
    expected = [float(value == int(reference)) for value, reference in zip(values, references, strict=True)]
    return Mistake(
        f"references are shifted by {by} rows",
        lambda: scored("math", completions(values, set()), {"answer": references}),
        right=as_expected(expected),
    )


def another_name(workshop: Workshop, rng: random.Random) -> Mistake:
    """In a run: the column that holds the references is called something else."""
    name = rng.choice(["target", "Answer", "answers", "label", "gold", "final_answer", "reference", "ground_truth"])
    folder = workshop.place()
    file = workshop.rows(folder, [{"prompt": row["prompt"], name: row["answer"]} for row in ROWS])
    return Mistake(
        f"references are in the column {name}",
        lambda: workshop.train(workshop.text(folder, "reward.terms.answer.function=math", rows=file)),
        ("answer", "solution", "column"),
    )


def both_names(workshop: Workshop, rng: random.Random) -> Mistake:
    """`answer` and `solution` say different things: `answer` is read, as documented."""
    values, wrong = numbers(rng), set(rng.sample(range(COUNT), 2))
    columns = {
        "answer": [str(value) for value in values],
        "solution": [f"{value}. Since it is so." for value in values],
    }
    return Mistake(
        "rows have both `answer` and `solution`",
        lambda: scored("math", completions(values, wrong), columns),
        right=as_expected([float(index not in wrong) for index in range(COUNT)]),
    )


def too_few(workshop: Workshop, rng: random.Random) -> Mistake:
    values, by = numbers(rng), rng.choice([-1, 1, -COUNT])
    references = [*map(str, values), "1"][: COUNT + by]
    return Mistake(
        f"{len(references)} references for {COUNT} completions",
        lambda: scored("math", completions(values, set()), {"answer": references}),
        ("answer",),
    )


def a_text_for_all(workshop: Workshop, rng: random.Random) -> Mistake:
    """A text has a length, too: one reference in place of a list of them."""
    values = numbers(rng)
    reference = "123456"[:COUNT]
    return Mistake(
        f"the text {reference!r} in place of {COUNT} references",
        lambda: scored("math", completions(values, set()), {"answer": reference}),
        ("answer",),
    )


def all_empty(workshop: Workshop, rng: random.Random) -> Mistake:
    """In a run: no row has a reference, so nothing can be scored, and the run says it."""
    value = rng.choice(EMPTY)
    folder = workshop.place()
    file = workshop.rows(folder, [{**row, "answer": value} for row in ROWS])
    return Mistake(
        f"every reference is {value!r}",
        lambda: workshop.train(workshop.text(folder, "reward.terms.answer.function=math", rows=file)),
        ("could not be scored", "answer"),
    )


TASKS = ("chain_sum", "basic_arithmetic", "mini_sudoku", "countdown")


def entries(task: str, seed: int) -> list[dict[str, Any]]:
    import reasoning_gym

    data = reasoning_gym.create_dataset(task, size=COUNT, seed=seed)
    return [copy.deepcopy(data[index]) for index in range(COUNT)]


BROKEN: tuple[tuple[str, Callable[[dict[str, Any]], Any]], ...] = (
    ("has no metadata", lambda entry: {key: value for key, value in entry.items() if key != "metadata"}),
    ("is a text", str),
    ("has no answer", lambda entry: {key: value for key, value in entry.items() if key != "answer"}),
    ("names a task that there is not", lambda entry: {**entry, "metadata": {"source_dataset": "no_such_task"}}),
    ("has a list as metadata", lambda entry: {**entry, "metadata": [1]}),
    ("is a list", lambda entry: [entry]),
    ("is empty", lambda entry: {}),
    ("is of a refused task", lambda entry: {**entry, "metadata": {**entry["metadata"], "source_dataset": "composite"}}),
)


def a_broken_entry(workshop: Workshop, rng: random.Random) -> Mistake:
    """Its samples have no reward, and those of the others have theirs."""
    seed, at, (what, breaks) = rng.randrange(1000), rng.randrange(COUNT), rng.choice(BROKEN)
    given: list[Any] = entries("chain_sum", seed)
    texts = [entry["answer"] for entry in given]
    given[at] = breaks(given[at])
    expected = [math.nan if index == at else 1.0 for index in range(COUNT)]
    return Mistake(
        f"entry {at} of chain_sum (seed {seed}) {what}",
        lambda: scored("reasoning_gym", texts, {"entry": given}, strict=True),
        right=as_expected(expected),
    )


def shifted_entries(workshop: Workshop, rng: random.Random) -> Mistake:
    seed, by = rng.randrange(1000), rng.randrange(1, COUNT)
    given = entries("chain_sum", seed)
    texts = [entry["answer"] for entry in given]
    given = given[by:] + given[:by]
    expected = [float(text == entry["answer"]) for text, entry in zip(texts, given, strict=True)]
    return Mistake(
        f"entries of chain_sum (seed {seed}) are shifted by {by}",
        lambda: scored("reasoning_gym", texts, {"entry": given}, strict=True),
        right=as_expected(expected),
    )


def entries_of_several_tasks(workshop: Workshop, rng: random.Random) -> Mistake:
    """Each is scored by the task that made it; own answers are right, others' wrong."""
    seed, first = rng.randrange(1000), rng.choice(["chain_sum", "basic_arithmetic"])
    given = [*entries(first, seed)[:3], *entries("mini_sudoku", seed)[:3]]
    texts = [entry["answer"] for entry in given]
    at = rng.randrange(3)
    texts[at], texts[at + 3] = texts[at + 3], texts[at]
    expected = [float(index not in (at, at + 3)) for index in range(COUNT)]
    return Mistake(
        f"entries of {first} and of mini_sudoku (seed {seed}), answers {at} and {at + 3} changed over",
        lambda: scored("reasoning_gym", texts, {"entry": given}, strict=True),
        right=as_expected(expected),
    )


def another_reward(workshop: Workshop, rng: random.Random) -> Mistake:
    """In a run: rows of one kind, and the reward of another."""
    folder = workshop.place()
    reward, words = rng.choice([("reasoning_gym", ("entry",)), ("scene", ("scene", "image")), ("tokens_per_round", ())])
    if reward == "tokens_per_round":
        reward, words = "text_image_similarity", ("text_image_similarity", "image")
    return Mistake(
        f"the reward {reward} on rows of questions",
        lambda: workshop.train(workshop.text(folder, f"reward.terms.answer.function={reward}")),
        words,
    )


KINDS = (
    unreadable,
    unreadable,
    empty,
    not_text,
    not_text,
    shifted,
    another_name,
    both_names,
    too_few,
    a_text_for_all,
    all_empty,
    a_broken_entry,
    a_broken_entry,
    shifted_entries,
    entries_of_several_tasks,
    another_reward,
)

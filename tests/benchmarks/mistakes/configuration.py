"""Mistakes in single options: their names, types and ranges, and options that nothing reads."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

from omegaconf import OmegaConf

from configs.compose import compose
from configs.fields import leaves, paths, type_of, without_none
from tests.benchmarks.mistakes.judge import Mistake
from tests.benchmarks.mistakes.truth import rewards_are, same_run
from tests.benchmarks.mistakes.workshop import Ended, Workshop

WORDS = ("four", "half", "no such", "nan?")
WRONG: dict[Any, tuple[str, ...]] = {
    int: ("four", "1.5", "0.5", "true", "[1]", "{a: 1}", "''", "null", "nan", "inf"),
    float: ("fast", "true", "[0.1]", "{a: 1}", "''", "null", "nan", "inf", "-inf"),
    bool: ("perhaps", "2", "0.5", "-1", "null", "[true]", "{a: true}", "''"),
    str: ("[a]", "{a: b}", "true", "1e3", "''"),
    list: ("5", "word", "null", "{a: 1}", "true"),
    dict: ("5", "word", "[1]", "true"),
}
"""By an option's type, values of another, or of none; where the option may be null, null is left out."""
FILES = ("model.path", "data.train.name", "data.evaluation.name", "run.name", "run.folder")
"""Texts that name something outside: any text is a value, and most name nothing."""
WITHOUT_EFFECT = ("run.", "evaluation.", "data.evaluation", "cluster.", "reward.solved", "reward.terms")


def every_leaf(workshop: Workshop) -> dict[str, Any]:
    """The options of a run, and their values there; a section that is null counts as one."""
    tree = OmegaConf.to_container(compose(workshop.text(Path("nowhere"))).resolved, enum_to_str=True)
    return leaves(tree)


def named(path: str) -> str:
    """How a message may name an option: itself, by its last name, or a section that holds it."""
    parts = path.split(".")
    return "|".join([parts[-1], *(".".join(parts[:length]) for length in range(2, len(parts)))])


def a_leaf(workshop: Workshop, rng: random.Random, fits: Callable[[str], bool]) -> str:
    return rng.choice([path for path in every_leaf(workshop) if fits(path)])


def misspelt(name: str, rng: random.Random) -> str:
    """One letter too few, too many, another one, or two in another order."""
    place = rng.randrange(len(name))
    letter = rng.choice("abcdefghijklmnopqrstuvwxyz_")
    return rng.choice(
        [
            name[:place] + name[place + 1 :],
            name[:place] + letter + name[place:],
            name[:place] + letter + name[place + 1 :],
            name[:place] + name[place + 1 : place + 2] + name[place : place + 1] + name[place + 2 :],
        ]
    )


def a_typo(workshop: Workshop, rng: random.Random) -> Mistake:
    known = every_leaf(workshop)
    path = a_leaf(workshop, rng, lambda path: not path.startswith("reward.terms"))
    parts = path.split(".")
    index = rng.randrange(len(parts))
    wrong = path
    while wrong in {*known, *paths()} or not all(wrong.split(".")):
        wrong = ".".join([*parts[:index], misspelt(parts[index], rng), *parts[index + 1 :]])
    value = json.dumps(known[path])
    folder = workshop.place()
    return Mistake(
        f"the option {wrong}={value}, where {path} is meant",
        lambda: workshop.train(workshop.text(folder, f"{wrong}={value}")),
        cause=(wrong.split(".")[index], "does not exist"),
    )


def a_typo_in_the_name_of_a_term(workshop: Workshop, rng: random.Random) -> Mistake:
    name = misspelt("answer", rng) or "a"
    option = rng.choice(["weight=2", "args.strict=true", "conversational=true"])
    folder = workshop.place()
    if name == "answer":
        name = "anwser"
    return Mistake(
        f"reward.terms.{name}.{option}, where the term is `answer`",
        lambda: workshop.train(workshop.text(folder, f"reward.terms.{name}.{option}")),
        cause=(f"reward.terms.{name}.function", "has no value"),
    )


def a_wrong_type(workshop: Workshop, rng: random.Random) -> Mistake:
    path = a_leaf(workshop, rng, lambda path: "terms.answer.args" not in path and path not in FILES)
    hint = type_of(path)
    bare = without_none(hint)
    optional = bare is not hint
    if isinstance(bare, type) and issubclass(bare, Enum):
        first = next(iter(bare)).name
        values = [misspelt(first, rng) + "x", first.upper() + "_", "0", "1.5", "true", "[a]", "''", "null"]
    elif is_dataclass(bare):
        values = ["5", "word", "[1]", "true", "{no_such_option: 1}"]
    else:
        values = list(WRONG.get(get_origin(bare) or bare, WRONG[list] if get_args(bare) else ("[1]",)))
    value = rng.choice([value for value in values if not (optional and value == "null")])
    return _given(workshop, path, value, f"{path}={value}, which is no {getattr(bare, '__name__', bare)}")


def out_of_range(workshop: Workshop, rng: random.Random) -> Mistake:
    path = a_leaf(workshop, rng, lambda path: without_none(type_of(path)) in (int, float))
    whole = without_none(type_of(path)) is int
    value = rng.choice(["-1", "-1000000", "0"] if whole else ["-1.0", "-1e30", "nan", "inf", "-inf", "0.0"])
    return _given(workshop, path, value, f"{path}={value}")


def _given(workshop: Workshop, path: str, value: str, what: str) -> Mistake:
    """Refused by its name; or it was a value after all, which is then recorded as it was given, and used."""
    folder = workshop.place()

    def right(ended: Ended) -> str:
        recorded = OmegaConf.select(OmegaConf.load(ended.folder / "config.yaml"), path)
        given = OmegaConf.select(OmegaConf.create({"x": OmegaConf.from_dotlist([f"x={value}"]).x}), "x")
        if value in ("nan", "inf", "-inf"):
            return f"{value} is no number to compute with, and was taken for {path}"
        if recorded != given or isinstance(recorded, bool) != isinstance(given, bool):
            return f"{path}={value} was given, and {recorded!r} is recorded"
        return rewards_are(ended)

    return Mistake(
        what,
        lambda: workshop.train(workshop.text(folder, f"{path}={value}")),
        cause=(named(path),),
        right=right,
    )


def another_value(path: str, value: Any, rng: random.Random) -> str | None:
    """Of the option's type and another one; None for texts and lists, of which nobody knows."""
    bare = without_none(type_of(path))
    if bare is bool:
        return json.dumps(not value)
    if isinstance(bare, type) and issubclass(bare, Enum):
        others = [member.name for member in bare if member.name != value and member.name != "custom"]
        return rng.choice(others) if others else None
    if bare is int:
        return str(rng.choice([1, 2, 3, 5, 8]) + (value or 0))
    if bare is float:
        return str(round(value * rng.choice([0.5, 2]), 12) if value else 0.25)
    return None


def an_option_that_nothing_reads(workshop: Workshop, rng: random.Random) -> Mistake:
    """Of another algorithm, likelihood or modality; refused, or seen in the numbers."""
    known = every_leaf(workshop)

    def fits(path: str) -> bool:
        return (
            path not in ALWAYS_READ
            and not path.startswith(WITHOUT_EFFECT)
            and another_value(path, known[path], random.Random(0)) is not None
        )

    path = a_leaf(workshop, rng, fits)
    value = another_value(path, known[path], rng)
    folder = workshop.place()

    def right(ended: Ended) -> str:
        told = f"{path}={value} does nothing" in ended.said
        if not told and path not in NOT_SEEN and not same_run(ended, workshop.undisturbed(*MOVING)):
            return f"{path}={value} was accepted, and changed nothing at all"
        return rewards_are(ended)

    return Mistake(
        f"{path}={value}, in a run that may not read it",
        lambda: workshop.train(workshop.text(folder, *MOVING, f"{path}={value}")),
        cause=(named(path),),
        right=right,
    )


MOVING = ("run.updates=2", "algorithm.minibatches=2", "algorithm.optimizer.learning_rate=1e-2")
"""In a run in which ratios leave 1, more options show."""
ALWAYS_READ = (
    "data.train.kind",
    "model.modality",
    "rollout.group_size",
    "rollout.prompts_per_update",
    "rollout.prompts_per_ticket",
)
NOT_SEEN = (
    # that numbers do not depend on them is their promise
    "model.gradient_checkpointing",
    "algorithm.micro_batch_tokens",
    "reward.timeout_seconds",
    "reward.startup_timeout_seconds",
    "reward.memory_gib",
    "reward.max_failed_fraction",
    "data.max_prompt_tokens",
    "rollout.timeout_seconds",
    # what they are about does not happen in these runs
    "algorithm.filter_zero_variance",
    "algorithm.least_difference",
    "algorithm.denominator",
    "algorithm.kl.estimator",
    "rollout.refills",
    "rollout.sampler.count",
)
"""Options that are read, and change no number here."""


KINDS = (
    a_typo,
    a_typo_in_the_name_of_a_term,
    a_wrong_type,
    a_wrong_type,
    out_of_range,
    out_of_range,
    an_option_that_nothing_reads,
    an_option_that_nothing_reads,
)

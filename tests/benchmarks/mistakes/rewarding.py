"""Mistakes in reward functions: what they return, what they do meanwhile, what they ask for."""

from __future__ import annotations

import random

from tests.benchmarks.mistakes.judge import Mistake
from tests.benchmarks.mistakes.reward_functions import BAD_BATCHES, BAD_VALUES, GOOD_BATCHES, is_bad
from tests.benchmarks.mistakes.truth import honest_but, rewards_are, same_run, same_weights, samples_of
from tests.benchmarks.mistakes.workshop import REWARDS, Ended, Workshop

TERM = "reward.terms.answer"
ALL_MAY_FAIL = "reward.max_failed_fraction=1.0"


def function(name: str, **arguments: object) -> list[str]:
    """Not tried before the start, which would find the most: what a run makes of them is looked at."""
    given = [f"{TERM}.args.{key}={value}" for key, value in arguments.items()]
    return [f"{TERM}.function={REWARDS}.{name}", "reward.try_first=false", *given]


def a_bad_value(workshop: Workshop, rng: random.Random) -> Mistake:
    """For one text in three: these samples have no reward, are counted, and the others learn as if they were alone."""
    kind, salt, limit = rng.choice(list(BAD_VALUES)), rng.randrange(1000), rng.choice([0.05, 1.0, 1.0])
    folder = workshop.place()
    given = [*function("bad_values", kind=kind, salt=salt), f"reward.max_failed_fraction={limit}"]
    if kind in ("hangs", "closes its pipes"):
        given.append("reward.timeout_seconds=0.2")

    def right(ended: Ended) -> str:
        left_out = workshop.undisturbed(*function("left_out", salt=salt), ALL_MAY_FAIL)
        bad = [text for _, text, _ in samples_of(ended) if is_bad(text, salt)]
        listed = ended.run.failures
        if sorted(bad) != sorted(listed["completion"] if len(listed) else []):
            return f"{len(listed)} failures are listed, and {len(bad)} texts are bad"
        return rewards_are(ended, honest_but(salt)) or same_weights(ended, left_out)

    return Mistake(
        f"for one text in three (salt {salt}) a reward returns, or does: {kind}; max_failed_fraction {limit}",
        lambda: workshop.train(workshop.text(folder, *given)),
        cause=("reward.max_failed_fraction", "answer: ") if limit < 1 else (),
        right=right,
    )


def a_bad_batch(workshop: Workshop, rng: random.Random) -> Mistake:
    """What is no value a sample: nothing is scored, and the run says why."""
    kind = rng.choice(list(BAD_BATCHES))
    folder = workshop.place()

    def right(ended: Ended) -> str:
        if kind != "a column":
            return f"the run ended well with rewards of {kind!r}: {[r for *_, r in samples_of(ended)]}"
        return same_run(ended, workshop.undisturbed()) or rewards_are(ended)

    return Mistake(
        f"a reward that returns for a batch: {kind}",
        lambda: workshop.train(workshop.text(folder, *function("batches", kind=f"'{kind}'"))),
        cause=("could not be scored", "answer: "),
        right=right,
    )


def a_good_batch(workshop: Workshop, rng: random.Random) -> Mistake:
    """Odd, and every value belongs to its sample: the run is the undisturbed one."""
    kind = rng.choice(list(GOOD_BATCHES))
    folder = workshop.place()

    def right(ended: Ended) -> str:
        if kind in ("numbers of numpy", "a tensor"):  # rounded
            return rewards_are(ended)
        return same_weights(ended, workshop.undisturbed()) or rewards_are(ended)

    return Mistake(
        f"a reward whose batch is, or which: {kind}",
        lambda: workshop.train(workshop.text(folder, *function("batches", kind=f"'{kind}'"), ALL_MAY_FAIL)),
        right=right,
    )


def it_mutates(workshop: Workshop, rng: random.Random) -> Mistake:
    kind = rng.choice(["clears", "reverses", "writes into", "clears columns"])
    folder = workshop.place()
    other = [f"reward.terms.second.function={REWARDS}.score", "reward.terms.second.weight=0"]

    def right(ended: Ended) -> str:
        found = ended.trained.metrics[0]
        if found["reward/second"] != found["reward/answer"]:
            return "the term after it has other values"
        return same_weights(ended, workshop.undisturbed()) or rewards_are(ended)

    return Mistake(
        f"a reward that {kind} its arguments, before another term",
        lambda: workshop.train(workshop.text(folder, *function("mutates", kind=f"'{kind}'"), *other)),
        right=right,
    )


def it_wants_a_column(workshop: Workshop, rng: random.Random) -> Mistake:
    name = rng.choice(["needs_a_column", "looks_for_a_column"])
    folder = workshop.place()
    return Mistake(
        f"a reward ({name}) that depends on the column `difficulty`, which no row has",
        lambda: workshop.train(workshop.text(folder, *function(name))),
        cause=("difficulty", "could not be scored|no such column"),
    )


NOT_CALLABLE = (
    ("without_columns", ("without_columns", "**kwargs")),
    ("NOT_A_FUNCTION", ("NOT_A_FUNCTION", "int")),
    ("scores", ("scores", "score")),
    ("factory", ("answer: ", "could not be scored")),
    ("Failed", ("Failed",)),
)


def it_is_no_reward(workshop: Workshop, rng: random.Random) -> Mistake:
    name, cause = rng.choice(NOT_CALLABLE)
    folder = workshop.place()
    return Mistake(
        f"{name} as a reward",
        lambda: workshop.train(workshop.text(folder, *function(name))),
        cause=cause,
    )


def a_path(workshop: Workshop, rng: random.Random) -> Mistake:
    path = rng.choice(
        ["maths", "score", "no_such_module.score", f"{REWARDS}.", "os", "''", "json.no_such", ".score", "a b"]
    )
    folder = workshop.place()
    return Mistake(
        f"{TERM}.function={path}",
        lambda: workshop.train(workshop.text(folder, f"{TERM}.function='{path.strip(chr(39))}'")),
        cause=(TERM,),
    )


def it_tells_something(workshop: Workshop, rng: random.Random) -> Mistake:
    """Beside its scores: what is no metric, or speaks of a sample that is not there."""
    kind = rng.choice(
        [
            "metric of nan",
            "metric with the name of another",
            "metric of text",
            "metric of a list",
            "malformed, far away",
            "malformed, before the first",
            "malformed, by name",
        ]
    )
    folder = workshop.place()

    def right(ended: Ended) -> str:
        if kind == "metric of nan" and "log_metric('seen') are not finite" not in ended.said:
            return "nothing says that a metric is no number"
        if kind not in ("metric of nan", "metric with the name of another"):
            return "the run ended well, and nobody can have understood that"
        return same_weights(ended, workshop.undisturbed()) or rewards_are(ended)

    return Mistake(
        f"a reward that logs a {kind}",
        lambda: workshop.train(workshop.text(folder, *function("logs", kind=f"'{kind}'"))),
        cause=("could not be scored", "answer: "),
        right=right,
    )


def criteria(workshop: Workshop, rng: random.Random) -> Mistake:
    names = rng.choice([["accuracy", "style"], ["style"], ["accurcy"], ["0"]])
    kind = rng.choice(["by name", "mappings", "numbers as keys", "a tuple", "pairs"])
    folder = workshop.place()
    given = [f"{TERM}.criteria.{name}=1" for name in names]
    return Mistake(
        f"a term with the criteria {', '.join(names)}, and a reward that returns {kind}",
        lambda: workshop.train(workshop.text(folder, *function("batches", kind=f"'{kind}'"), *given)),
        cause=("criteria", "could not be scored"),
    )


def weights(workshop: Workshop, rng: random.Random) -> Mistake:
    weight = rng.choice(["nan", "inf", "0", "-0.0", "1e300", "-1e39"])
    folder = workshop.place()
    return Mistake(
        f"{TERM}.weight={weight}",
        lambda: workshop.train(workshop.text(folder, f"{TERM}.weight={weight}")),
        cause=("weight",),
    )


def all_the_same(workshop: Workshop, rng: random.Random) -> Mistake:
    """Nothing can be learnt, which is said; the weights stay what they were."""
    updates = rng.choice([1, 2])
    folder = workshop.place()

    def right(ended: Ended) -> str:
        if "so the weights stay" not in ended.said:
            return "nothing says that nothing was learnt"
        return "" if ended.trained.metrics[-1]["groups/used"] == 0 else "groups without a difference were used"

    return Mistake(
        f"a reward that is the same for all, over {updates} updates",
        lambda: workshop.train(workshop.text(folder, *function("constant"), f"run.updates={updates}")),
        right=right,
    )


KINDS = (
    a_bad_value,
    a_bad_value,
    a_bad_value,
    a_bad_batch,
    a_bad_batch,
    a_good_batch,
    it_mutates,
    it_wants_a_column,
    it_is_no_reward,
    a_path,
    it_tells_something,
    criteria,
    weights,
    all_the_same,
)

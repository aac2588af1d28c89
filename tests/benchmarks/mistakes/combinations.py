"""Mistakes in what options say together: choices that do not fit, spellings, files of one's own, names of runs."""

from __future__ import annotations

import random

from configs.compose import PACKAGE, options
from configs.fields import type_of, without_none
from tests.benchmarks.mistakes.configuration import a_leaf, misspelt
from tests.benchmarks.mistakes.judge import Mistake
from tests.benchmarks.mistakes.truth import rewards_are, same_run
from tests.benchmarks.mistakes.workshop import Ended, Workshop


def an_algorithm_of_another_kind(workshop: Workshop, rng: random.Random) -> Mistake:
    """Any algorithm file on rows without answers, by a text model: it trains on them, or says what it lacks."""
    name = rng.choice(options("algorithm", [PACKAGE]))
    folder = workshop.place()
    return Mistake(
        f"algorithm={name} on rows of texts without answers",
        lambda: workshop.train(workshop.text(folder, f"algorithm={name}")),
        cause=("algorithm.",),
        right=rewards_are,
    )


def a_file_that_is_not_there(workshop: Workshop, rng: random.Random) -> Mistake:
    group = rng.choice(["model", "algorithm", "reward", "data", "rollout", "cluster", "recipe"])
    name = misspelt(rng.choice(options(group, [PACKAGE])), rng) + "x"
    folder = workshop.place()
    return Mistake(
        f"{group}={name}, of which there is no file",
        lambda: workshop.train(workshop.text(folder, f"{group}={name}")),
        cause=(f"{group}={name}", "does not exist"),
    )


CONTRADICTIONS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("rollout.prompts_per_update=3",), ("rollout.prompts_per_update=3", "prompts_per_ticket")),
    (("algorithm.minibatches=3",), ("algorithm.minibatches=3", "prompts_per_update")),
    (("rollout.group_size=1",), ("rollout.group_size=1",)),
    (("algorithm.advantage=constant",), ("advantage=constant", "data.train.response")),
    (("algorithm.advantage=preference",), ("advantage=preference", "data.train.chosen")),
    (("algorithm.advantage=raw", "rollout.refills=1"), ("rollout.refills", "advantage=raw")),
    (("data.train.response='{{ answer }}'", "data.train.chosen='{{ answer }}'"), ("data.train has response",)),
    (("model.modality=image",), ("model",)),
    (("rollout.sampler.max_new_tokens=250",), ("256", "lower")),
    (("data.max_prompt_tokens=3",), ("data.max_prompt_tokens=3", "rows.jsonl/0")),
    (("data.train.size=7",), ("size=7", "6 rows")),
    (("data.train.prompt=null",), ("data.train.prompt=null",)),
    (("reward.solved_by=speed",), ("reward.solved_by=speed",)),
    (("reward.terms.mean.function=math",), ("reward.terms.mean", "metric")),
    (("reward.terms.answer.weight=0",), ("weight 0",)),
    (("reward.terms.answer.function=scene",), ("reward.terms.answer.function=scene", "image")),
    (("reward.terms.answer.args.completions=1",), ("reward.terms.answer.args", "completions")),
    (("reward.terms.answer.args.prompt=1", "data.train.prompt='{{ number }}'"), ("number",)),
    (("cluster.learners=2",), ("cluster.learners=2",)),
    (("algorithm.likelihood.kind=reward_gradient",), ("reward_gradient",)),
    (("rollout.branching.factors=[2]",), ("branching",)),
    (("rollout.branching.factors=[2,2]", "rollout.branching.forks=[0]"), ("branching",)),
    (("algorithm.optimizer.betas=[0.9]",), ("betas",)),
    (("algorithm.kl.to=old", "algorithm.kl.coefficient=0.1"), ("kl.to=old",)),
    (("data.system_prompt=<|im_end|>",), ("system",)),
    (("data.train.prompt='{{ prompt'",), ("prompt template",)),
    (("data.train.prompt='{{ promt }}'",), ("promt", "rows.jsonl/0")),
    (("data.train.kind=dataset",), ("rows.jsonl",)),
    (("data.train.args.split=train",), ("args",)),
    (("algorithm.solved_band=[0.8,0.2]",), ("solved_band",)),
    (("run.updates=1", "algorithm.custom.objective=nowhere.at_all", "algorithm.objective=custom"), ("nowhere",)),
    (("model.family=no_such",), ("no_such",)),
    (("model.user_adapter.dimension=4",), ("user",)),
    (("model.lora.rank=4", "model.lora.target_modules=[no_such_module]"), ("no_such_module",)),
)
"""Options that cannot stand together, and words of the message."""


def a_contradiction(workshop: Workshop, rng: random.Random) -> Mistake:
    overrides, cause = rng.choice(CONTRADICTIONS)
    folder = workshop.place()
    return Mistake(
        f"the options {' '.join(overrides)} together",
        lambda: workshop.train(workshop.text(folder, *overrides)),
        cause=cause,
    )


SPELLINGS = (
    ("{path} {value}", "cannot read"),
    ("+{path}={value}", "+{path}"),
    ("~{path}", "~{path}"),
    ("{path}={value},{value}", "several values"),
    ("{path}=[{value}", "{path}"),
    ("{path}:={value}", "{path}"),
    ("{path}@x={value}", "{path}@x"),
    ("--{path}={value}", "{path}"),
    ("={value}", "key=value"),
    ("{path}=${{no.such.option}}", "{path}"),
    ("{path}=${{oc.env:NO_SUCH_VARIABLE_HERE}}", "{path}"),
    (".{path}={value}", "{path}"),
    ("{path}.={value}", "{path}"),
    ("config.{path}={value}", "config"),
)


def a_spelling(workshop: Workshop, rng: random.Random) -> Mistake:
    path = a_leaf(workshop, rng, lambda path: without_none(type_of(path)) is int)
    pattern, word = rng.choice(SPELLINGS)
    value = rng.randrange(1, 9)
    text, cause = pattern.format(path=path, value=value), word.format(path=path)
    folder = workshop.place()
    return Mistake(
        f"the argument {text!r}",
        lambda: workshop.train(workshop.text(folder, text)),
        cause=(cause,),
    )


RECIPES = (
    ("# @package _global_\nrun:\n  updatse: 3\n", ("updatse",)),
    ("# @package _global_\nrun:\n  updates: many\n", ("updates", "many")),
    ("# @package _global_\nrun:\n  updates: 1.5\n", ("updates", "1.5")),
    ("# @package _global_\nrun:\n  resume: 7\n", ("resume", "7")),
    ("# @package _global_\nrun:\n  updates: 1\n  updates: 2\n", ("updates",)),
    ("# @package _global_\nrun: {updates: 1\n", ("YAML",)),
    ("# @package _global_\ndefaults:\n  - override /algorithm: trace_grpoo\n", ("trace_grpoo",)),
    ("# @package _global_\ndefaults:\n  - override /algoritm: trace_grpo\n", ("algoritm",)),
    ("# @package _global_\nalgorithm: trace_grpo\n", ("algorithm",)),
    ("# @package _global_\nalgorithm:\n  optimizer:\n    learning_rate: .nan\n", ("learning_rate",)),
    ("# @package _global_\nmodel:\n  path: 1e3\n", ("model.path",)),
    ("run:\n  updates: 1\n", ("_global_",)),
    ("# @package _global_\n- run\n", ("wrong",)),
    ("# @package _global_\nrun:\n\tupdates: 1\n", ("YAML",)),
)
"""Recipes of one's own, and words of the message."""


def a_recipe(workshop: Workshop, rng: random.Random) -> Mistake:
    text, cause = rng.choice(RECIPES)
    folder = workshop.place()
    (folder / "own/recipe").mkdir(parents=True)
    (folder / "own/recipe/wrong.yaml").write_text(text)
    overrides = [
        each for each in workshop.text(folder) if not each.startswith(("recipe=", "run.updates", "run.resume"))
    ]
    if "defaults:" in text or "\nalgorithm:" in text:
        overrides = [each for each in overrides if not each.startswith("algorithm=")]
    if "model:" in text:
        overrides = [each for each in overrides if not each.startswith("model.path")]
    if "learning_rate" in text:
        overrides = [each for each in overrides if "learning_rate" not in each]
    whole = ["rollout=tiny", "data.max_prompt_tokens=64"]
    return Mistake(
        f"a recipe that says {text!r}",
        lambda: workshop.train(["recipe=wrong", *whole, *overrides], folder / "own"),
        cause=cause,
    )


def a_name(workshop: Workshop, rng: random.Random) -> Mistake:
    """Names of runs that are no names, or are read as something else than they spell."""
    name = rng.choice(
        ["''", "..", ".", "a/../../b", "/tmp/b", "true", "1_000", "1e3", "a/b", "' '", "null", "[mine]", "x" * 300]
    )
    folder = workshop.place()

    def right(ended: Ended) -> str:
        spelt = name.strip("'")
        if ended.folder != folder / spelt:
            return f"run.name={name} was given, and the run lies in {ended.folder}"
        return rewards_are(ended)

    return Mistake(
        f"run.name={name}",
        lambda: workshop.train(workshop.text(folder, f"run.name={name}")),
        cause=("run.name|run.folder",),
        right=right if name in ("true", "1_000", "1e3", "a/b") else None,
    )


def twice(workshop: Workshop, rng: random.Random) -> Mistake:
    """The same option with two values: the later wins, as documented."""
    first, later = rng.sample(range(100), 2)
    folder = workshop.place()

    def right(ended: Ended) -> str:
        return same_run(ended, workshop.undisturbed(f"run.seed={later}")) or rewards_are(ended)

    return Mistake(
        f"run.seed={first} and run.seed={later}",
        lambda: workshop.train(workshop.text(folder, f"run.seed={first}", f"run.seed={later}")),
        right=right,
    )


IMAGES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("rollout.denoising.height=30",), ("height",)),
    (("rollout.denoising.steps=0",), ("steps",)),
    (("rollout.denoising.eta=nan",), ("eta",)),
    (("rollout.denoising.guidance=nan",), ("guidance",)),
    (("rollout.denoising.guidance=-1",), ("guidance",)),
    (("rollout.denoising.guidance_from=9", "rollout.denoising.guidance=2"), ("guidance_from",)),
    (("rollout.denoising.window.kind=fixed", "rollout.denoising.window.size=9"), ("window",)),
    (("rollout.denoising.samples_per_forward=0",), ("samples_per_forward",)),
    (("rollout.denoising.kernel=ode",), ("kernel",)),
    (("algorithm=trace_grpo",), ("algorithm",)),
    (("rollout.sampler.temperature=0.5",), ("rollout.sampler",)),
    (("reward.terms.redness.function=math",), ("math", "text")),
    (("data.train.split=held_in",), ("held_in",)),
    (("data.train.args.careless=2",), ("careless",)),
    (("data.train.args.carless=0.5",), ("carless",)),
    (("data.train.seed=-1",), ("seed=-1",)),
    (("model.max_sequence_length=2",), ("max_sequence_length",)),
    (("model.prompt_segments=2",), ("prompt_segments",)),
)


def an_option_of_images(workshop: Workshop, rng: random.Random) -> Mistake:
    overrides, cause = rng.choice(IMAGES)
    folder = workshop.place()
    return Mistake(
        f"images, with {' '.join(overrides)}",
        lambda: workshop.train(workshop.images(folder, *overrides)),
        cause=cause,
    )


KINDS = (
    an_algorithm_of_another_kind,
    a_file_that_is_not_there,
    a_contradiction,
    a_spelling,
    a_recipe,
    a_name,
    twice,
    an_option_of_images,
)

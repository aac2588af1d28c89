"""Mistakes in going on with a run: another one under its name, or two at once."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from configs.fields import may_change
from models.tiny.create import main as create
from rl.storage.lock import FolderLock
from tests.benchmarks.mistakes.configuration import another_value, every_leaf, named
from tests.benchmarks.mistakes.judge import Mistake
from tests.benchmarks.mistakes.truth import rewards_are, same_run, same_weights
from tests.benchmarks.mistakes.workshop import REWARDS, ROWS, Ended, Workshop

LONGER = "run.updates=3"
FREE = ("run.updates", "run.folder", "run.name", "run.resume", "data.train.name", "model.path")


def begun(workshop: Workshop, place: Path) -> Path:
    """A copy of the folder of a run of two updates, with a checkpoint behind each."""
    ended = workshop.undisturbed("run.updates=2")
    return Path(shutil.copytree(ended.folder, place / "mine"))


def whole(workshop: Workshop) -> Ended:
    """The run of three updates that nothing disturbed."""
    return workshop.undisturbed(LONGER)


def goes_on(workshop: Workshop) -> Callable[[Ended], str]:
    """It is the uninterrupted run, to the bit."""
    return lambda ended: same_run(ended, whole(workshop))


def damaged(
    workshop: Workshop,
    what: str,
    damage: Callable[[Path], None],
    cause: tuple[str, ...] = (),
    right: Callable[[Ended], str] | None = None,
    *overrides: str,
) -> Mistake:
    """A run that is gone on with, after `damage` was done to its folder."""
    place = workshop.place()

    def do() -> Ended:
        damage(begun(workshop, place))
        return workshop.train(workshop.text(place, LONGER, *overrides))

    return Mistake(what, do, cause, right)


def another_option(workshop: Workshop, rng: random.Random) -> Mistake:
    """Any option with another value: refused by its name; or it decides nothing, and then nothing is different."""
    known = every_leaf(workshop)
    fitting = [p for p in known if p not in FREE and another_value(p, known[p], random.Random(0)) is not None]
    free = [path for path in fitting if may_change(path)]
    path = rng.choice(free if rng.random() < 0.3 else fitting)
    value = another_value(path, known[path], rng)
    if path.startswith("rollout.denoising"):  # the evaluation's own, of images
        right = None
    else:
        right = goes_on(workshop) if may_change(path) else None
    change = f"{path}={value}"
    return damaged(workshop, f"goes on with {change}", lambda folder: None, (named(path),), right, change)


def another_reward(workshop: Workshop, rng: random.Random) -> Mistake:
    change = rng.choice(
        [
            f"reward.terms.answer.function={REWARDS}.constant",
            "reward.terms.answer.args.salt=1",
            "reward.terms.answer.weight=-1",
            f"reward.terms.second.function={REWARDS}.constant",
            "algorithm=dipo",
            "rollout=left_to_right",
            "data.train.size=5",
            "data.train.prompt='{{ prompt }} {{ number }}'",
            "data.system_prompt=Hurry.",
            "model.lora.rank=2",
            "model.precision=bf16",
            "run.seed=1",
        ]
    )
    path = change.partition("=")[0]
    return damaged(workshop, f"goes on with {change}", lambda folder: None, (named(path),), None, change)


def another_model(workshop: Workshop, rng: random.Random) -> Mistake:
    place, kind = workshop.place(), rng.choice(["other weights", "another family", "the same elsewhere", "one bit"])

    def do() -> Ended:
        begun(workshop, place)
        model = place / "model"
        if kind == "another family":
            create("full", str(model))
        else:
            shutil.copytree(workshop.model(), model)
        if kind in ("other weights", "one bit"):
            tensors = load_file(model / "model.safetensors")
            name = rng.choice(sorted(tensors))
            flat = tensors[name].view(-1)
            flat[0] = flat[0] * 2 + 1 if kind == "other weights" else torch.nextafter(flat[0], flat[0] + 1)
            save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
        return workshop.train(workshop.text(place, LONGER, f"model.path={model}"))

    moved = kind == "the same elsewhere"
    return Mistake(
        f"goes on with a model in another folder: {kind}",
        do,
        () if moved else ("model.path|cache=block|family",),
        goes_on(workshop) if moved else None,
    )


def other_rows(workshop: Workshop, rng: random.Random) -> Mistake:
    """The file is another one under its name, or the same one under another."""
    place, kind = workshop.place(), rng.choice(["one letter", "one row more", "another order", "the same elsewhere"])
    rows = [dict(row) for row in ROWS]
    if kind == "one letter":
        row, column = rng.choice(rows), rng.choice(["prompt", "answer"])
        row[column] += "x"
    elif kind == "one row more":
        rows.append(dict(rows[0]))
    elif kind == "another order":
        first, second = rng.sample(range(len(rows)), 2)
        rows[first], rows[second] = rows[second], rows[first]
    elsewhere = kind == "the same elsewhere"

    def do() -> Ended:
        file = workshop.rows(place, ROWS, name="mine.jsonl")
        workshop.train(workshop.text(place, "run.updates=2", rows=file))
        file = workshop.rows(place, rows, name="yours.jsonl" if elsewhere else "mine.jsonl")
        return workshop.train(workshop.text(place, LONGER, rows=file))

    return Mistake(
        f"goes on with rows that differ: {kind}",
        do,
        () if elsewhere else ("data.train",),
        (lambda ended: same_weights(ended, whole(workshop))) if elsewhere else None,
    )


def beside_the_way(workshop: Workshop, rng: random.Random) -> Mistake:
    """Files that a resume does not go on from: changed, they change nothing."""
    kind = rng.choice(["config.yaml", "leftovers", "a stale lock", "a broken lock", "summary.json", "tensorboard"])

    def damage(folder: Path) -> None:
        lock = folder.with_name(".mine.lock")
        if kind == "config.yaml":
            (folder / kind).write_text((folder / kind).read_text().replace("group_size: 4", "group_size: 8"))
        elif kind == "leftovers":
            (folder / "checkpoints/u000009.tmp-999999999").mkdir()
            (folder / "checkpoints/u000009.tmp-999999999/weights-000009.safetensors").write_bytes(b"x")
            (folder / "trajectories/.u000001.parquet").write_bytes(b"x")
        elif kind == "a stale lock":
            import socket

            lock.write_text(json.dumps({"host": socket.gethostname(), "process": 999999999, "started": 1.0}))
        elif kind == "a broken lock":
            lock.write_text(rng.choice(["", "{", "[1]", "null"]))
        elif kind == "summary.json":
            (folder / kind).write_text("{")
        else:
            shutil.rmtree(folder / kind)
            (folder / kind).mkdir()

    def right(ended: Ended) -> str:
        kept = (ended.folder / "config.yaml").read_text()
        wrong = "" if "group_size: 4" in kept else "config.yaml is not what was trained with"
        return same_run(ended, whole(workshop)) or rewards_are(ended) or wrong

    return damaged(workshop, f"{kind} was changed", damage, (), right)


def in_use(workshop: Workshop, rng: random.Random) -> Mistake:
    kind, place = rng.choice(["a living process", "another machine"]), workshop.place()

    def do() -> Ended:
        folder = begun(workshop, place)
        lock = FolderLock(folder)
        path = folder.with_name(".mine.lock")
        if kind == "another machine":
            path.write_text(json.dumps({"host": "elsewhere", "process": os.getpid(), "started": 1.0}))
        try:
            return workshop.train(workshop.text(place, LONGER))
        finally:
            lock.release()

    return Mistake(f"{kind} writes to the folder", do, ("is in use", ".mine.lock"))


def fewer_updates(workshop: Workshop, rng: random.Random) -> Mistake:
    place = workshop.place()

    def do() -> Ended:
        begun(workshop, place)
        return workshop.train(workshop.text(place, "run.updates=1"))

    return Mistake("goes on to fewer updates than there are", do, ("run.updates=1",))


def anew(workshop: Workshop, rng: random.Random) -> Mistake:
    """Under the name of another run, on purpose: what it held is kept, and the new run is whole."""
    kind = rng.choice(["run.resume=false", "without checkpoints"])
    place = workshop.place()

    def do() -> Ended:
        folder = begun(workshop, place)
        if kind == "without checkpoints":
            shutil.rmtree(folder / "checkpoints")
            return workshop.train(workshop.text(place, LONGER))
        return workshop.train(workshop.text(place, LONGER, "run.resume=false"))

    def right(ended: Ended) -> str:
        kept = ended.folder.with_name("mine.1") / "metrics.jsonl"
        if not kept.exists() or len(kept.read_text().splitlines()) != 2:
            return "the results of the earlier run were not kept"
        return same_run(ended, whole(workshop)) or rewards_are(ended)

    return Mistake(f"starts anew over a run: {kind}", do, (), right)


KINDS = (
    another_option,
    another_option,
    another_option,
    another_reward,
    another_model,
    other_rows,
    beside_the_way,
    in_use,
    fewer_updates,
    anew,
)

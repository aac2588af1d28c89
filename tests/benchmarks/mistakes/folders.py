"""Mistakes in the folder of a run that is gone on with: its record, its checkpoints, its samples."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from rl.run.checkpoint import MANIFEST, read_state, seal
from tests.benchmarks.mistakes.judge import Mistake
from tests.benchmarks.mistakes.resuming import LONGER, begun, damaged, goes_on, whole
from tests.benchmarks.mistakes.truth import rewards_are, same_run
from tests.benchmarks.mistakes.workshop import Ended, Workshop


def torn_metrics(workshop: Workshop, rng: random.Random) -> Mistake:
    kind = rng.choice(["last line", "last line", "middle line", "no object", "empty line"])
    length = rng.randrange(1, 200)
    file = rng.choice(["metrics.jsonl", "failures.jsonl"])

    def damage(folder: Path) -> None:
        path = folder / file
        row = json.dumps({"update": 0, "index": 0, "reward/mean": 0.5, "term": "answer", "message": "x" * 200})
        lines = path.read_text().splitlines() if path.exists() else [row]
        if kind == "last line":
            path.write_text("".join(line + "\n" for line in lines) + lines[-1][:length])
        elif kind == "middle line":
            path.write_text("".join(line + "\n" for line in [lines[0][:length], *lines[1:]]))
        elif kind == "no object":
            path.write_text("".join(line + "\n" for line in ["7", *lines[1:]]))
        else:
            path.write_text("".join(line + "\n" for line in [*lines, ""]))

    def right(ended: Ended) -> str:
        if "a crash cut its last line off" not in ended.said:
            return "nothing says that a line was torn"
        kept = (ended.folder / "superseded" / file).read_text()
        return same_run(ended, whole(workshop)) or ("" if kept else "what was torn is lost")

    last = kind == "last line"
    return damaged(
        workshop, f"{file}: {kind} torn ({length})", damage, () if last else (f"{file}, line",), right if last else None
    )


def foreign_metrics(workshop: Workshop, rng: random.Random) -> Mistake:
    """The record of the updates before the checkpoint is not the one that this run wrote."""
    kind = rng.choice(
        ["of another run", "gone", "without a row", "a row twice", "one number changed", "in another order"]
    )

    def damage(folder: Path) -> None:
        path = folder / "metrics.jsonl"
        lines = path.read_text().splitlines()
        if kind == "of another run":
            other = workshop.undisturbed("run.updates=2", "run.seed=5").folder / "metrics.jsonl"
            lines = other.read_text().splitlines()
        elif kind == "gone":
            path.unlink()
            return
        elif kind == "without a row":
            del lines[rng.randrange(len(lines))]
        elif kind == "a row twice":
            lines.insert(0, lines[rng.randrange(len(lines))])
        elif kind == "one number changed":
            row = json.loads(lines[0])
            lines[0] = json.dumps({**row, "reward/mean": row["reward/mean"] + 0.5})
        else:
            lines.reverse()
        path.write_text("".join(line + "\n" for line in lines))

    return damaged(workshop, f"metrics.jsonl is {kind}", damage, ("metrics.jsonl",), goes_on(workshop))


def newest(folder: Path) -> Path:
    return folder / "checkpoints/u000002"


def a_checkpoint_file(workshop: Workshop, rng: random.Random) -> Mistake:
    """Deleted, cut, changed, or another one's."""
    kind = rng.choice(["deleted", "cut", "changed", "emptied", "swapped with the older one's"])
    which = rng.random()
    held: dict[str, str] = {}

    def damage(folder: Path) -> None:
        files = sorted(path for path in newest(folder).rglob("*") if path.is_file())
        file = files[int(which * len(files))]
        held["name"] = file.name
        content = bytearray(file.read_bytes())
        if kind == "deleted":
            file.unlink()
        elif kind == "cut":
            file.write_bytes(content[: len(content) // 2])
        elif kind == "emptied":
            file.write_bytes(b"")
        elif kind == "changed":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        else:
            older = folder / "checkpoints/u000001" / file.relative_to(newest(folder))
            if not older.exists():  # weights are named by their version
                older = next((folder / "checkpoints/u000001").glob("weights-*"))
            file.write_bytes(older.read_bytes())

    return damaged(workshop, f"a file of the newest checkpoint is {kind} ({which:.3f})", damage, ("u000002",))


def sealed_again(folder: Path, change: Callable[[Path, dict[str, Any]], None]) -> None:
    """As if it had been written so."""
    state = read_state(folder)
    (folder / MANIFEST).unlink()
    change(folder, state)
    seal(folder, state)


def a_sealed_lie(workshop: Workshop, rng: random.Random) -> Mistake:
    """A checkpoint that fits its manifest, and is not what the run wrote."""
    kind = rng.choice(["optimizer's weights", "published weights", "another update", "a renamed folder", "less of it"])

    def scaled(file: Path, part: str) -> None:
        tensors = load_file(file)
        name = sorted(name for name in tensors if part in name)[0]
        tensors[name] = tensors[name] * 1.5 + 0.01
        save_file(tensors, file)

    def change(folder: Path, state: dict[str, Any]) -> None:
        if kind == "optimizer's weights":
            scaled(next(folder.rglob("optimizer-*.safetensors")), "/weight")
        elif kind == "published weights":
            scaled(folder / "weights-000002.safetensors", "")
        elif kind == "another update":
            state["update"] = 1
        elif kind == "less of it":
            next(folder.glob("weights-*")).unlink()

    def damage(folder: Path) -> None:
        if kind == "a renamed folder":
            shutil.rmtree(newest(folder))
            (folder / "checkpoints/u000001").rename(newest(folder))
        else:
            sealed_again(newest(folder), change)

    return damaged(workshop, f"a checkpoint that was sealed again with {kind}", damage, ("u000002",), goes_on(workshop))


def of_another_run(workshop: Workshop, rng: random.Random) -> Mistake:
    """The whole folder of checkpoints is that of a run of another seed, or of an older state of this one."""
    seed = rng.randrange(1, 4)

    def damage(folder: Path) -> None:
        other = workshop.undisturbed("run.updates=2", f"run.seed={seed}").folder
        shutil.rmtree(folder / "checkpoints")
        shutil.copytree(other / "checkpoints", folder / "checkpoints")

    return damaged(workshop, f"the checkpoints are those of run.seed={seed}", damage, ("run.seed",))


def without_the_newest(workshop: Workshop, rng: random.Random) -> Mistake:
    """It goes on from the older one, over the same updates again."""

    def right(ended: Ended) -> str:
        if not (ended.folder / "superseded/metrics.jsonl").exists():
            return "the rows behind the checkpoint were not kept"
        return same_run(ended, whole(workshop)) or rewards_are(ended)

    return damaged(
        workshop, "the newest checkpoint was removed", lambda folder: shutil.rmtree(newest(folder)), (), right
    )


def trajectories(workshop: Workshop, rng: random.Random) -> Mistake:
    """Files of kept samples: read by people and by `RunFolder`, which must not show one update's as another's."""
    kind = rng.choice(["swapped", "torn", "of another run", "no Parquet", "renamed"])

    def damage(folder: Path) -> None:
        first, second = (folder / f"trajectories/u{update:06d}.parquet" for update in (0, 1))
        if kind == "swapped":
            kept = first.read_bytes()
            first.write_bytes(second.read_bytes())
            second.write_bytes(kept)
        elif kind == "torn":
            first.write_bytes(first.read_bytes()[:-20])
        elif kind == "of another run":
            other = workshop.undisturbed("run.updates=2", "run.seed=5").folder
            first.write_bytes((other / "trajectories/u000000.parquet").read_bytes())
        elif kind == "no Parquet":
            first.write_bytes(b"no Parquet")
        else:
            first.rename(first.with_name("u000002.parquet"))

    place = workshop.place()

    def do() -> Ended:
        damage(begun(workshop, place))
        ended = workshop.train(workshop.text(place, LONGER))
        for update in ended.run.sampled_updates:
            ended.run.samples(update)
        return ended

    def right(ended: Ended) -> str:
        return same_run(ended, whole(workshop)) or rewards_are(ended)

    return Mistake(f"the trajectories of update 0 are {kind}", do, ("u00000",), right)


KINDS = (
    torn_metrics,
    foreign_metrics,
    foreign_metrics,
    a_checkpoint_file,
    a_checkpoint_file,
    a_sealed_lie,
    a_sealed_lie,
    of_another_run,
    without_the_newest,
    trajectories,
    trajectories,
)

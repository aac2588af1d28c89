"""The run folder: what was run, what came out, and what is needed to go on.

runs/NAME/
  config.yaml  code.json          the resolved configuration; commit, uncommitted changes, library versions
  metrics.jsonl  tensorboard/     one row an update
  evaluations.jsonl               one row an evaluation, with every problem's outcome
  starts.jsonl                    one row a start: after how many seconds each of its steps was done
  failures.jsonl                  samples that could not be scored, with their text; malformed ones: one of each label
  printed/reward-0.txt            what reward functions print, at most 4 MiB of each worker
  trajectories/u000012.parquet    the kept tickets of an update
  checkpoints/u000040/            complete, or not there
  pictures/greedy/u000040/        images of the first held-out prompts, one PNG each (image models)
  summary.json  reward_curve.png
  before_after_greedy.png         the first and the last of these pictures side by side (image models)
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from cluster.objects import fetched
from cluster.signals import present
from cluster.weights import PackedWeights, pack_weights, unpack_weights
from configs.errors import UserError
from configs.fields import leaves
from configs.schema import Config
from rewards.options import Missing
from rewards.printable import printable
from rewards.scoring.scores import Failure, Logged
from rl.drawing.progress import Progress
from rl.drawing.sanity import sanity_table
from rl.modality.protocol import Judged, Modality
from rl.run.callback import Callback, Callbacks
from rl.run.checkpoint import new_checkpoint, newest_complete, read_state
from rl.run.continuing import check_continues, evaluation_identity
from rl.run.evaluation import KINDS, TEXTS, Evaluation, summary_of
from rl.run.failures import failed_counts, failure_notes, malformed_counts, too_many, worth_keeping
from rl.run.lines import Lines, free_name, keep_until, set_aside
from rl.run.metrics import STAGES, MetricsWriter, costs, read_rows
from rl.run.place import Place
from rl.run.scored import (
    Scored,
    incomplete,
    logged_metrics,
    logged_notes,
    term_metrics,
    unscored_estimates,
)
from rl.run.start import Start
from rl.run.written import check_written, written
from rl.storage.code import code_state
from rl.storage.disk import replacing, writing
from rl.storage.lock import FolderLock
from rl.storage.speaking import unfailing
from rollout.trajectory import write_parquet

FIRST_MINIBATCH = ("ratio/max_error", "logp/max_error")
"""Metrics that are measured before the first optimizer update."""
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2}
"""What a log-probability may differ by, for the table of the first update."""


class RewardsFailed(RuntimeError):
    """Too many samples could not be scored."""


class Run:
    def __init__(
        self,
        config: Config,
        resolved: DictConfig,
        modality: Modality,
        decides: Mapping[str, Any],
        curves: Sequence[str],
        console: Console | None = None,
        callbacks: Sequence[Callback] = (),
        began: float | None = None,
    ) -> None:
        """
        Args:
            decides: what decides the numbers beside the options, such as what the files hold that they name; a resume
                with another one is refused.
            curves: metrics that the progress display draws.
            console: where it speaks; None is the terminal.
            began: `time.perf_counter()` when the command began; None is now.
        """
        self.callbacks = Callbacks(callbacks)
        self.config = config
        self.modality = modality
        self.place = Place(config.run, self.note)
        self.folder, self.checkpoints = self.place.folder, self.place.checkpoints
        self.console = console or Console(file=unfailing(sys.stdout))
        options = cast(dict[str, Any], OmegaConf.to_container(resolved, enum_to_str=True))
        self._identity = {"options": options, "what decides beside them": dict(decides)}
        self._evaluation = evaluation_identity(options)
        with self.place.starting():
            self._lock = FolderLock(self.folder)
        try:
            self.first_update = self._find_checkpoint()
            with self.place.starting():
                self.place.remove_unfinished()
                self._open(resolved)
        except BaseException:
            self._lock.release()
            raise
        self.progress = Progress(config.run.name, config.run.updates, self.first_update, curves, self.console)
        self.stages = dict.fromkeys(STAGES, 0.0)
        self._in_stage = False
        self.last = time.perf_counter()
        self.start = Start(self.last if began is None else began, self.progress.show_start)
        self._start_seconds: float | None = None

    # The files

    def _open(self, resolved: DictConfig) -> None:
        """The files of the folder, as a run up to the checkpoint would have left them."""
        if self._checkpoint is None and self.folder.exists() and any(self.folder.iterdir()):
            kept = free_name(self.folder)
            self.folder.rename(kept)
            if self.config.run.resume:
                self.note(f"{self.folder} has no checkpoint to go on from: what it holds is kept as {kept}")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # prompts, texts and configurations
        if self._checkpoint is not None and self.first_update < self.config.run.updates:
            self.place.expect_checkpoint()
        for name, content in (
            ("config.yaml", OmegaConf.to_yaml(resolved)),
            ("code.json", json.dumps(code_state(), indent=2)),
        ):
            with replacing(self.folder / name) as file:
                file.write_text(content)
        _, torn = keep_until(self.folder / "metrics.jsonl", self.first_update - 1)
        self.metrics = MetricsWriter(self.folder, note=self.note)
        board = self.metrics.tensorboard
        board.options(leaves(self._identity["options"]))
        self.evaluations = Lines(self.folder / "evaluations.jsonl", self.first_update)
        self.failures = Lines(self.folder / "failures.jsonl", self.first_update - 1)
        self.starts = Lines(self.folder / "starts.jsonl", self.first_update)
        set_aside(self.folder, self.first_update)
        for row in self.evaluations.rows:
            board.evaluation(row, TEXTS, self.folder / "pictures")
        for said in (torn, self.evaluations.repaired, self.failures.repaired, self.starts.repaired):
            if said is not None:
                self.note(said)

    # Time

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block's seconds for a stage; of nested stages the outer one counts."""
        if self._in_stage:
            yield
            return
        present().check()
        self._in_stage = True
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] += time.perf_counter() - started
            self._in_stage = False

    def start_is_over(self) -> None:
        """From here on time belongs to updates. What the start took is a row of starts.jsonl, and `seconds/start` of
        the next update, beside its own seconds."""
        self.last = time.perf_counter()
        self._start_seconds = self.start.seconds
        self.starts.write({"update": self.first_update, "seconds": self._start_seconds, "steps": self.start.steps})

    def note(self, text: str, style: str = "yellow") -> None:
        self.console.print(printable(text), style=style, markup=False, highlight=False)

    # What happened

    def batch_metrics(self, update: int, tickets: list[Scored], groups: int) -> dict[str, float]:
        """What the samples of an update were worth. Raises RewardsFailed when too many could not be scored."""
        rewards = np.concatenate([ticket.rewards for ticket in tickets])  # (problems, G)
        failures = [failure for ticket in tickets for failure in ticket.failures]
        self._check_failures(update, "update", failures, int(np.isnan(rewards).sum()), rewards.size)
        sums = {name: sum(t.statistics[name] for t in tickets) for name in tickets[0].statistics}
        scored = rewards[~np.isnan(rewards)]
        metrics: dict[str, float] = {}
        if len(scored):
            metrics |= {"reward/mean": float(scored.mean()), "reward/std": float(scored.std())}
        solved = [each for ticket in tickets if (each := ticket.solved(self.config.reward)) is not None]
        if solved and not np.isnan(rates := np.concatenate(solved)).all():
            metrics["reward/solve_rate"] = float(np.nanmean(rates))
        metrics |= {
            "reward/unscored": int(np.isnan(rewards).sum()),
            "groups/generated": len(rewards),
            "groups/used": groups,
            "groups/without_signal_fraction": 1 - groups / len(rewards),
            "rollout/staleness": update - min(ticket.ticket.version for ticket in tickets),
        }
        if self.config.reward.missing is Missing.drop_group:
            metrics["groups/incomplete"] = int(incomplete(rewards).sum())
        steps = [ticket.steps for ticket in tickets if ticket.steps is not None]
        if steps:
            missing = sum(unscored_estimates(of_ticket) for of_ticket in steps)
            metrics["reward/unscored_estimates"] = missing
            if missing:
                self.note(f"update {update}: {missing} estimates of steps could not be scored and teach nothing")
            known = sum(int((~np.isnan(of_ticket)).sum()) for of_ticket in steps)
            self._check_failures(update, "estimates of update", [], missing, missing + known)
        rollout = self.modality.rollout_metrics(sums, rewards.size)
        metrics |= {f"rollout/{name}": value for name, value in rollout.items()}
        metrics |= term_metrics(tickets, self.config.reward, update)
        counts = malformed_counts(failures) | failed_counts(failures)
        metrics |= {f"reward/{name}": count for name, count in counts.items()}
        logged = Logged.joined(ticket.logged for ticket in tickets)
        for line in logged_notes(f"update {update}", logged):
            self.note(line)
        return metrics | logged_metrics("reward/metric", logged)

    def _check_failures(self, update: int, what: str, failures: list[Failure], unscored: int, samples: int) -> None:
        """`what` is `update` or `evaluation after update`."""
        for failure in worth_keeping(failures):
            self.failures.write({"update": update, **asdict(failure)})
        weighed_at = update if what == "update" else None  # evaluations have weights of their own
        about = (f"{what} {update}", failures, self.config.reward, unscored, samples, weighed_at)
        for line in failure_notes(*about):
            self.note(line)
        if told := too_many(*about):
            raise RewardsFailed(f"{told}; all of them are listed in {self.failures.path}")

    def record(self, update: int, metrics: Mapping[str, float], tickets: list[Scored]) -> None:
        """End of an update: its row, its kept trajectories, and after the first one the sanity table."""
        if update == 0 and "ratio/mean" in metrics:
            # Means over the whole update are those of moved weights once it consists of several optimizer updates.
            alone = metrics["learner/optimizer_updates"] == 1
            known = metrics if alone else {name: metrics[name] for name in FIRST_MINIBATCH if name in metrics}
            self.progress.console.print(sanity_table(known, TOLERANCE[self.config.model.precision.value]))
        self._keep_trajectories(update, tickets)
        now = time.perf_counter()
        whole = now - self.last
        seconds = {f"seconds/{name}": value for name, value in self.stages.items()}
        seconds |= {"seconds/other": max(0.0, whole - sum(self.stages.values())), "seconds/update": whole}
        if self._start_seconds is not None:
            seconds["seconds/start"], self._start_seconds = self._start_seconds, None
        row = self.metrics.write(update, {**metrics, **seconds})
        self.progress.show_update(row)
        self.last = now
        self.stages = dict.fromkeys(STAGES, 0.0)
        self.callbacks.on_update(update, row)

    def _keep_trajectories(self, update: int, tickets: list[Scored]) -> None:
        kept = tickets[: self.config.run.keep_trajectories]
        if not kept:
            return
        folder = self.folder / "trajectories"
        with writing(folder):
            folder.mkdir(exist_ok=True)
        trajectories = [
            trajectory.with_rewards(rewards)
            for ticket in kept
            for trajectory, rewards in zip(map(fetched, ticket.trajectories), ticket.rewards, strict=True)
        ]
        with replacing(folder / f"u{update:06d}.parquet") as file:
            write_parquet(trajectories, file)

    def record_evaluation(self, evaluation: Evaluation) -> None:
        """Raises RewardsFailed when too many samples could not be scored."""
        what = "evaluation after update"
        self._check_failures(evaluation.update, what, evaluation.failures, evaluation.unscored, evaluation.samples)
        for kind, logged in evaluation.logged.items():
            for line in logged_notes(f"{kind} evaluation after update {evaluation.update}", logged):
                self.note(line)
        row = {**evaluation.row(), **evaluation.texts(), "identity": self._evaluation}
        self.evaluations.write(row)
        self.progress.show_evaluation(evaluation.update, evaluation.line())

        with self.place.dispensable("pictures"):
            for kind, prompts, completions, _ in evaluation.first_samples():
                self.modality.keep_pictures(prompts, completions, self._pictures(kind, evaluation.update))
        self.metrics.tensorboard.evaluation(row, TEXTS, self.folder / "pictures")
        self.callbacks.on_evaluation(evaluation.update, row)

    def _pictures(self, kind: str, update: int) -> Path:
        return self.folder / "pictures" / kind / f"u{update:06d}"

    def evaluated(self, update: int) -> bool:
        return any(row["update"] == update for row in self._comparable())

    def _comparable(self) -> list[dict[str, Any]]:
        """The evaluations on today's problems and with today's samples, in order."""
        return [row for row in self.evaluations.rows if row.get("identity") == self._evaluation]

    # Going on

    def _find_checkpoint(self) -> int:
        self._checkpoint = newest_complete(self.checkpoints, check_crc=True) if self.config.run.resume else None
        if self._checkpoint is None:
            return 0
        state = read_state(self._checkpoint)
        if "identity" not in state:
            raise UserError(
                f"{self._checkpoint} was written before runs recorded their whole configuration, so nobody can say "
                "whether this one would continue it: `eval`, `sample` and `export` read it; to train on, start from "
                "what `export` writes, under another run.name"
            )
        changed: dict[str, Any] = {}
        for recorded, current in zip(state["identity"].values(), self._identity.values(), strict=True):
            changed |= check_continues(recorded, current, str(self._checkpoint))
        if self.config.run.updates < state["update"]:
            raise UserError(
                f"{self._checkpoint} has {state['update']} updates, and run.updates={self.config.run.updates} wants "
                f"fewer: ask for at least as many, or choose another run.name"
            )
        check_written(self.folder, state.get("written", {}), state["update"])
        if changed:
            self.note(f"goes on with other values of {', '.join(changed)}")
        if evaluation_identity(state["identity"]["options"]) != self._evaluation:
            self.note("evaluations are other ones from here on: those before are kept, and not compared with them")
        return state["update"]

    def resume_point(self) -> tuple[Path, int, dict[str, Any]] | None:
        """Folder and update of the checkpoint to go on from, and the state of its advantages."""
        if self._checkpoint is None:
            return None
        self.note(f"resuming after update {self.first_update} from {self._checkpoint}")
        return self._checkpoint, self.first_update, read_state(self._checkpoint)["advantages"]

    @contextmanager
    def new_checkpoint(self, update: int, weights: Mapping[int, Any], advantages: Mapping[str, Any]) -> Iterator[Path]:
        """A folder for the learners' shards. The published versions go in beside them: the newest to export, evaluate
        and sample without a learner, the older ones for tickets that still need them."""
        state = {
            "update": update,
            "identity": self._identity,
            "advantages": advantages,
            "written": written(self.folder),
        }
        self.place.expect_checkpoint()
        with new_checkpoint(self.checkpoints, update, state, self.config.run.keep_checkpoints) as folder:
            from safetensors.torch import save_file  # with torch, which the driver needs for nothing else

            for number, reference in weights.items():
                save_file(unpack_weights(fetched(reference)), folder / f"weights-{number:06d}.safetensors")
            yield folder
        self.callbacks.on_checkpoint(update, self.checkpoints / f"u{update:06d}")

    def saved_weights(self, folder: Path) -> Iterator[PackedWeights]:
        """The versions that a checkpoint keeps."""
        from safetensors.torch import load_file

        for path in sorted(folder.glob("weights-*.safetensors")):
            yield pack_weights(int(path.stem.split("-")[1]), load_file(path))

    # The end

    def summarise(self) -> dict[str, Any]:
        """Write summary.json and the reward curve."""
        rows = read_rows(self.folder / "metrics.jsonl")
        summary = costs(rows) | summary_of(self._comparable())
        with replacing(self.folder / "summary.json") as file:
            file.write_text(json.dumps(summary, indent=2))
        if any("reward/mean" in row for row in rows):
            from rl.drawing.plots import reward_curve  # matplotlib is for the end

            with self.place.dispensable("the reward curve"), replacing(self.folder / "reward_curve.png") as file:
                reward_curve(rows, self._comparable(), file)
        with self.place.dispensable("pictures"):
            self._compare_pictures()
        self.callbacks.on_end(summary)
        return summary

    def _compare_pictures(self) -> None:
        evaluations = self._comparable()
        if len(evaluations) < 2:
            return
        ends = (evaluations[0], evaluations[-1])
        for kind in KINDS:
            for column in ("solved", "rewards"):  # a verdict where there is one
                if all(f"{column}/{kind}" in row for row in ends):
                    before, after = (
                        Judged(
                            self._pictures(kind, row["update"]),
                            np.array(row[f"{column}/{kind}"], float)[:, 0],
                            verdicts=column == "solved",
                        )
                        for row in ends
                    )
                    self.modality.compare_pictures(before, after, self.folder / f"before_after_{kind}.png")
                    break

    def close(self) -> None:
        self.metrics.close()
        self._lock.release()

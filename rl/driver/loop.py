"""The way of the data: prompts -> rollout -> reward -> advantage -> learner -> weights -> rollout.

What is generated, by which policy and with which noise is arithmetic on the ticket number (`rl.driver.schedule`), so
nothing here depends on timing. `max_staleness` is the only difference between synchronous and asynchronous training: it
decides how early the schedule lets a ticket start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.objects import fetched
from cluster.signals import present
from cluster.weights import PackedWeights, differing
from configs.algorithm_options import AnchorOn, TermScale
from configs.schema import Config
from rl.algorithm.advantages import AdvantageEstimator, normalised
from rl.data.tickets import Ticket, TicketKind
from rl.driver.actors import GroupReference
from rl.driver.evaluate import evaluate
from rl.driver.generation import Generation
from rl.driver.learners import Learners
from rl.driver.schedule import Schedule
from rl.run.checkpoint import CheckpointError
from rl.run.folder import Run
from rl.run.scored import Scored
from rl.storage.disk import CannotWrite, size


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint needs, in this process's memory, whatever becomes of the learners and of Ray."""

    update: int
    """Updates done."""
    weights: Mapping[int, PackedWeights]
    advantages: Mapping[str, Any]
    state: Mapping[str, np.ndarray]
    """The learners' files, by name."""

    def write(self, folder: Path) -> None:
        for name, content in self.state.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content.data)


class Loop:
    def __init__(
        self, config: Config, schedule: Schedule, generation: Generation, learners: Learners, run: Run
    ) -> None:
        self.config = config
        self.schedule = schedule
        self.generation = generation
        self.learners = learners
        self.run = run
        self.advantages = AdvantageEstimator(config.algorithm)
        self.update = 0
        self.keeps_snapshots = False
        self.snapshot: Snapshot | None = None
        """Of the newest update that the learners have finished."""
        self.completed: Snapshot | None = None
        """Of the newest one that is recorded as well, until it is a checkpoint."""
        self.unrecorded: tuple[dict[str, float], list[Scored]] | None = None
        """Of an update that the learners have finished."""

    def run_to_end(self) -> None:
        """
        Raises:
            KeyboardInterrupt: a signal wants the run to end; the last completed update is a checkpoint.
        """
        signals = present()
        outer, signals.last_resort = signals.last_resort, self.keep_completed
        try:
            self.updates_to_end()
        except BaseException as error:  # a signal to all processes may show as the end of another one first
            if (isinstance(error, KeyboardInterrupt) or signals.first is not None) and signals.take():
                self.keep_completed()
            raise
        finally:
            signals.last_resort = outer

    def updates_to_end(self) -> None:
        self.resume()
        self.run.callbacks.on_start(self.run.folder, self.update)
        if self.update not in self.generation.weights:
            self.publish()
        self.prepare_checkpoints()
        self.evaluate_if_due()
        self.generation.stream(self.tickets())
        while not self.at_the_end:
            metrics, tickets = self.update_once()
            self.update += 1
            self.publish()
            self.take_snapshot()
            self.unrecorded = metrics, tickets
            self.evaluate_if_due()
            with present().unbroken():
                self.record()
            self.evaluate_if_due()  # if a callback has just ended the run
            self.checkpoint_if_due()

    def record(self) -> None:
        """The update that the learners have finished is a completed one."""
        if self.unrecorded is not None:
            recorded, self.unrecorded = self.unrecorded, None
            self.run.record(self.update - 1, *recorded)
            self.completed = self.snapshot

    @property
    def at_the_end(self) -> bool:
        """All updates are done, or a callback wants no more."""
        return self.update >= self.config.run.updates or self.run.callbacks.stopping

    def update_once(self) -> tuple[dict[str, float], list[Scored]]:
        tickets = self.generation.collect(self.schedule.tickets_of(self.update))
        tickets += self.refills(tickets)
        groups = self.groups(tickets)
        metrics = self.run.batch_metrics(self.update, tickets, len(groups))
        if groups:
            fresh = all(ticket.ticket.version == self.update for ticket in tickets)
            with self.run.stage("learn"):
                metrics |= self.learners.step(self.update, groups, fresh)
        else:
            options = self.config.algorithm
            least = "" if options.least_difference is None else f" by more than {options.least_difference:g}"
            band = "" if options.solved_band is None else " or its solved fraction outside of solved_band"
            nothing = "no group has rewards that tell its samples apart"
            self.run.note(f"update {self.update}: {nothing}{least}{band}, so the weights stay")
        return metrics, tickets

    def refills(self, tickets: list[Scored]) -> list[Scored]:
        """Further tickets until there are as many groups with a signal as an update has prompts, or attempts end."""
        found: list[Scored] = []
        for attempt in range(self.config.rollout.refills):
            teaching = sum(self.advantages.admits(*group) for group in self.outcomes([*tickets, *found]))
            missing = self.config.rollout.prompts_per_update - teaching
            if missing <= 0:
                break
            more = self.schedule.refill(self.update, attempt, missing)
            self.generation.ask(more)
            found += self.generation.collect(more)
        return found

    def tickets(self) -> Iterator[Ticket | None]:
        """Every training ticket in order; None while the policy of the next one is not published yet."""
        for index in range(self.update * self.schedule.tickets_per_update, self.schedule.total_tickets):
            while not self.schedule.may_start(index, self.update):
                yield None
            yield self.schedule.ticket(index)

    def groups(self, tickets: list[Scored]) -> list[GroupReference]:
        """Trajectory, advantages and what of them is valid, of all groups that can teach something, in ticket order."""
        compared = [group for ticket in tickets for group in self.compared(ticket)]
        trajectories = [trajectory for ticket in tickets for trajectory in ticket.trajectories]
        problems = self.generation.sources[TicketKind.train].problems
        each = self.generation.modality.groups_per_prompt(TicketKind.train)
        prompts = [
            problems[index].condition
            for ticket in tickets
            for index in ticket.ticket.problem_indices
            for _ in range(each)
        ]
        tree = self.generation.modality.tree(self.update)
        groups: list[GroupReference] = []
        on_solved = self.config.algorithm.anchor_on is AnchorOn.solved
        for trajectory, (reward, solved), (advantage, valid) in zip(
            trajectories, self.outcomes(tickets), self.advantages(compared, prompts, tree), strict=True
        ):
            if valid.any() and self.advantages.admits(reward, solved, advantage):
                imitated = solved == 1 if solved is not None and on_solved else None
                groups.append(GroupReference(trajectory, advantage, valid, imitated))
        return groups

    def outcomes(self, tickets: list[Scored]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """(samples,) rewards of each group, and (samples,) which of them are solved (`Scored.solved`); None where
        nothing defines it, under options that do not ask."""
        for ticket in tickets:
            solved = ticket.solved(self.config.reward)
            missing = self.config.reward.missing
            rewards = ticket.compared(ticket.rewards, missing)
            known = [None] * len(rewards) if solved is None else ticket.compared(solved, missing)
            yield from zip(rewards, known, strict=True)

    def compared(self, ticket: Scored) -> np.ndarray:
        """(groups, samples) what samples are compared by: their rewards, or the z-scores of their rewards' terms;
        with advantage=per_step (groups, samples, T), the rewards of their steps."""
        return ticket.compared(self._values(ticket), self.config.reward.missing)

    def _values(self, ticket: Scored) -> np.ndarray:
        if ticket.steps is not None:
            return ticket.steps
        scale = self.config.algorithm.normalise_terms
        if scale is TermScale.none:
            return ticket.rewards
        weights = self.config.reward.weights(ticket.ticket.update)
        return normalised(ticket.rewards, ticket.paid, weights, scale)

    def publish(self) -> None:
        """The learners' weights become the policy of this version; versions that no ticket needs are forgotten."""
        with self.run.stage("weights"):
            self.generation.weights[self.update] = self.learners.publish(self.update)
        oldest = max(0, self.update - self.config.rollout.max_staleness)
        for version in [v for v in self.generation.weights if v < oldest]:
            del self.generation.weights[version]

    def evaluate_if_due(self) -> None:
        every = self.config.evaluation.every
        due = every > 0 and (self.at_the_end or self.update % every == 0)
        if not due or self.run.evaluated(self.update):
            return
        with self.run.stage("evaluate"):
            evaluation = evaluate(self.generation, self.config, self.update)
        self.run.record_evaluation(evaluation)

    def prepare_checkpoints(self) -> None:
        """How large they will be: whether there is room for one, and whether one fits into memory."""
        if self.config.run.checkpoint_every == 0 or self.at_the_end:
            return
        state, limit = self.learners.state_bytes(), self.config.run.snapshot_gib * 2**30
        self.run.place.expect_checkpoint(state + fetched(self.generation.weights[self.update]).buffer.nbytes)
        import safetensors.torch  # noqa: F401 - under way since the start; a signal would wait for it

        self.keeps_snapshots = state <= limit
        if not self.keeps_snapshots:
            self.run.note(
                f"the learners' state takes {size(state)}, more than run.snapshot_gib={limit / 2**30:g}: a signal ends "
                f"this run at its newest checkpoint"
            )

    def take_snapshot(self) -> None:
        """After each update: in the middle of the next one nothing else has this one's state."""
        if not self.keeps_snapshots:
            return
        with self.run.stage("weights"):
            weights = {version: fetched(packed) for version, packed in self.generation.weights.items()}
            self.snapshot = Snapshot(self.update, weights, self.advantages.state(), self.learners.state())

    def checkpoint_if_due(self) -> None:
        every = self.config.run.checkpoint_every
        if every == 0 or not (self.at_the_end or self.update % every == 0):
            return
        with present().unbroken(), self.run.stage("checkpoint"):
            if self.completed is not None:
                self.write_completed()
                return
            weights, advantages = self.generation.weights, self.advantages.state()
            with self.run.new_checkpoint(self.update, weights, advantages) as folder:
                self.learners.save(folder)

    def write_completed(self) -> None:
        if (done := self.completed) is not None:
            with self.run.new_checkpoint(done.update, done.weights, done.advantages) as folder:
                done.write(folder)
            self.completed = None

    def keep_completed(self) -> None:
        """At a signal. The next update may be anywhere: what the learners hold is not looked at."""
        if not self.keeps_snapshots:
            return
        try:
            self.record()
            self.write_completed()
        except CannotWrite as error:
            self.run.note(f"the last completed update could not be written: {error}")

    def resume(self) -> None:
        if (checkpoint := self.run.resume_point()) is None:
            return
        folder, self.update, advantages = checkpoint
        self.advantages.load(advantages)
        self.learners.load(folder)
        self.publish()
        published = fetched(self.generation.weights[self.update])
        for packed in self.run.saved_weights(folder):
            if packed.version != self.update:
                self.generation.adopt(packed)
            elif odd := differing(packed, published):
                raise CheckpointError(
                    f"checkpoint {folder} is damaged: {len(odd)} of its {len(packed.names)} published weights are not "
                    f"those that its optimizer holds, such as {odd[0]}. Restore it, or remove it to go on from an "
                    f"older one"
                )

"""The way of the data: prompts -> rollout -> reward -> advantage -> learner -> weights -> rollout.

What is generated, by which policy and with which noise is arithmetic on the ticket number (`rl.driver.schedule`), so
nothing here depends on timing. `max_staleness` is the only difference between synchronous and asynchronous training: it
decides how early the schedule lets a ticket start.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cluster.objects import fetched
from cluster.weights import differing
from configs.algorithm_options import AnchorOn
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

    def run_to_end(self) -> None:
        self.resume()
        self.run.callbacks.on_start(self.run.folder, self.update)
        if self.update not in self.generation.weights:
            self.publish()
        self.evaluate_if_due()
        self.generation.stream(self.tickets())
        while not self.at_the_end:
            metrics, tickets = self.update_once()
            self.update += 1
            self.publish()
            self.evaluate_if_due()
            self.run.record(self.update - 1, metrics, tickets)
            self.evaluate_if_due()  # if a callback has just ended the run
            self.checkpoint_if_due()

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
            yield from zip(ticket.rewards, [None] * len(ticket.rewards) if solved is None else solved, strict=True)

    def compared(self, ticket: Scored) -> np.ndarray:
        """(groups, samples) what samples are compared by: their rewards, or the z-scores of their rewards' terms;
        with advantage=per_step (groups, samples, T), the rewards of their steps."""
        if ticket.steps is not None:
            return ticket.steps
        if not self.config.algorithm.normalise_terms:
            return ticket.rewards
        return normalised(ticket.rewards, ticket.terms, self.config.reward.weights())

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

    def checkpoint_if_due(self) -> None:
        every = self.config.run.checkpoint_every
        if every == 0 or not (self.at_the_end or self.update % every == 0):
            return
        with (
            self.run.stage("checkpoint"),
            self.run.new_checkpoint(self.update, self.generation.weights, self.advantages.state()) as folder,
        ):
            self.learners.save(folder)

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

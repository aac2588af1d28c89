"""`denoiserl train`: check everything that can be checked, start the processes, run the loop, always close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.joining import joined
from cluster.signals import listening
from configs.algorithm_options import Schedule as LearningRateSchedule
from configs.compose import Composed
from configs.environment import check_environment
from configs.errors import UserError
from configs.schema import Config
from models.files import local_folder
from models.identity import identity
from rewards.registry import resolve_term
from rl.algorithm.requirements import differentiates_reward
from rl.compatibility.run import remarks
from rl.data.problems import open_source, open_training
from rl.data.prompts import PromptSource
from rl.data.tickets import TicketKind
from rl.driver.generation import Generation
from rl.driver.imports import collector_paused
from rl.driver.learners import Learners
from rl.driver.loop import Loop
from rl.driver.offline import OfflineLoop
from rl.driver.processes import check_module_path, started
from rl.driver.schedule import Schedule
from rl.modality.choice import modality_of
from rl.modality.protocol import Modality
from rl.run.callback import Callback
from rl.run.evaluation import with_interval
from rl.run.folder import Run


@dataclass(frozen=True)
class Plan:
    """A training run that has been checked, before anything is started."""

    composed: Composed
    modality: Modality
    sources: dict[TicketKind, PromptSource]
    schedule: Schedule
    loop: type[Loop]
    curves: tuple[str, ...]
    """Metrics whose curves are shown."""

    def new_run(self, console: Console | None = None, callbacks: Sequence[Callback] = ()) -> Run:
        config = self.composed.config
        decides = _decides(config, self.sources[TicketKind.train])
        run = Run(config, self.composed.resolved, self.modality, decides, self.curves, console, callbacks)
        for remark in remarks(config):
            run.note(remark)
        return run


def train(composed: Composed, console: Console | None = None, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Run to the end and return the summary; the run folder holds everything else.

    Args:
        console: where the run speaks; None is the terminal.

    Raises:
        KeyboardInterrupt: a signal has ended it.
    """
    with listening():
        return _trained(composed, console, callbacks)


def _trained(composed: Composed, console: Console | None, callbacks: Sequence[Callback]) -> dict[str, Any]:
    config = composed.config
    check_module_path()
    with collector_paused():
        plan = planned(composed)
    run = plan.new_run(console, callbacks)
    generating = plan.loop is Loop or TicketKind.greedy in plan.sources
    try:
        with run.place.ending():
            with (
                joined(config.cluster),
                run.place.ending(),  # before Ray ends, which takes seconds
                started(config, generating=generating, learning=True) as processes,
                run.progress,
            ):
                generation = Generation(config, processes, plan.modality, plan.sources, run.stage, run.note)
                learners = Learners(config, processes.learners, run.note)
                plan.loop(config, plan.schedule, generation, learners, run).run_to_end()
            summary = run.summarise()
    finally:
        run.close()
    print_summary(run, summary)
    return summary


def planned(composed: Composed) -> Plan:
    """Check everything that can be checked without a process."""
    config = composed.config
    check_environment(config)
    if (share := config.model.text_encoder_share) != 1:
        raise UserError(
            f"model.text_encoder_share={share} mixes tuned and loaded text encoders, to evaluate or to sample; train "
            f"with 1"
        )
    modality = modality_of(config)
    modality.check()
    for name, term in config.reward.terms.items():
        resolve_term(name, term)
    problems = open_training(config.data)
    held_out = open_source(config.data.evaluation) if config.data.evaluation and config.evaluation.every else None
    sources = {TicketKind.train: PromptSource(problems, modality)}
    if held_out is not None:
        sources |= dict.fromkeys((TicketKind.greedy, TicketKind.sampled), PromptSource(held_out, modality))
    for kind, source in sources.items():
        scored = kind is not TicketKind.train or not config.algorithm.advantage.offline
        source.check(scored)
        if scored:
            source.check_rewards(config.reward.terms)
    if config.algorithm.advantage.offline:
        sources[TicketKind.train].check_offline_groups()
    schedule = Schedule(
        seed=config.run.seed,
        num_problems=len(problems),
        prompts_per_update=config.rollout.prompts_per_update,
        prompts_per_ticket=config.rollout.prompts_per_ticket,
        group_size=config.rollout.group_size,
        max_staleness=config.rollout.max_staleness,
        updates=config.run.updates,
    )
    return Plan(composed, modality, sources, schedule, *_kind_of_training(config))


def _kind_of_training(config: Config) -> tuple[type[Loop], tuple[str, ...]]:
    """The loop, and the metrics whose curves are shown."""
    if config.algorithm.advantage.offline:
        return OfflineLoop, ("learner/loss",)
    if differentiates_reward(config.algorithm):
        from rl.driver.reward_gradient import RewardGradientLoop  # with diffusers, which only images need

        return RewardGradientLoop, ("reward/mean",)
    return Loop, ("reward/mean",) if config.reward.solved_at is None else ("reward/mean", "reward/solve_rate")


def _decides(config: Config, training: PromptSource) -> dict[str, Any]:
    """What decides the numbers of a run beside its options: contents of what they name, and whether its length does."""
    folder = local_folder(config.model.path)
    schedules = [config.algorithm.optimizer, *([config.algorithm.value.optimizer] if config.algorithm.value else [])]
    of_length = config.algorithm.anchor_growth is not None or any(
        options.schedule is not LearningRateSchedule.constant for options in schedules
    )
    return {
        "what data.train holds": training.problems.fingerprint(),
        "what model.path holds": config.model.path if folder is None else identity(folder),
        "run.updates, which decides rates": config.run.updates if of_length else None,
    }


def print_summary(run: Run, summary: dict[str, Any]) -> None:
    console = run.console
    table = Table(
        title=f"{run.config.run.name}: {summary['steps']} updates in {summary['seconds']:.0f} s", title_justify="left"
    )
    for column in ("held out", "before", "after", "gain"):
        table.add_column(column, justify="left" if column == "held out" else "right")
    for kind, found in summary.get("held_out", {}).items():
        alone = sum(name.startswith("term/") for name in found) == 1  # which is the reward, up to its weight
        for name, change in found.items():
            if not (alone and name.startswith("term/")):
                cells = (_cell(change[what], change["ci95"][what]) for what in ("before", "after", "gain"))
                shown = "solve rate" if name == "solve_rate" else escape(name)
                table.add_row(f"{kind}, {shown}", *cells)
    if table.rows:
        console.print(table)
        console.print("[dim]95 % intervals; the gain is paired over the same problems[/]")
    stages = summary["stage_seconds"]
    console.print("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in stages.items() if value >= 0.05))
    console.print(f"run folder: {run.folder}")


def _cell(value: float | None, interval: list[float] | None) -> str:
    return "not known" if value is None else with_interval(value, interval)

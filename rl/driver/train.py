"""`denoiserl train`: check everything that can be checked, start the processes, run the loop, always close."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import ray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.joining import joined
from cluster.placement import bundles_of, check_this_machine
from cluster.signals import listening
from configs.algorithm_options import Schedule as LearningRateSchedule
from configs.compose import Composed
from configs.environment import check_environment
from configs.errors import RUN_FOLDER, UserError
from configs.schema import Config
from models.files import local_folder
from models.identity import identity
from rewards.registry import resolve_term
from rl.algorithm.requirements import differentiates_reward
from rl.compatibility.run import remarks
from rl.data.problems import open_source, open_training
from rl.data.prompts import PromptSource
from rl.data.tickets import TicketKind
from rl.data.too_long import kept
from rl.driver.generation import Generation
from rl.driver.imports import collector_paused, import_ahead
from rl.driver.learners import Learners
from rl.driver.loop import Loop
from rl.driver.offline import OfflineLoop
from rl.driver.processes import PRINTED, beside, check_module_path, started
from rl.driver.schedule import Schedule
from rl.modality.choice import modality_of
from rl.modality.protocol import Modality
from rl.modality.trial import trial_of
from rl.run.callback import Callback
from rl.run.evaluation import with_interval
from rl.run.folder import Run
from rl.serving.judge import served_name

WIDE = 100
"""Columns that hold a line of the summary; a narrower terminal has its intervals on a line of their own."""


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
    notes: tuple[str, ...] = ()

    def new_run(
        self, console: Console | None = None, callbacks: Sequence[Callback] = (), began: float | None = None
    ) -> Run:
        config = self.composed.config
        decides = _decides(config, self.sources[TicketKind.train])
        run = Run(config, self.composed.resolved, self.modality, decides, self.curves, console, callbacks, began)
        for remark in (*remarks(config), *self.notes):
            run.note(remark)
        return run


def train(composed: Composed, console: Console | None = None, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """Run to the end and return the summary; the run folder holds everything else.

    Args:
        console: where the run speaks; None is the terminal.

    Raises:
        KeyboardInterrupt: a signal has ended it.
    """
    began = time.perf_counter()
    with listening():
        return _trained(composed, console, callbacks, began)


def _trained(
    composed: Composed, console: Console | None, callbacks: Sequence[Callback], began: float
) -> dict[str, Any]:
    config = composed.config
    check_module_path()
    cluster = config.cluster
    if cluster.address is None and not ray.is_initialized():
        workers, others = (cluster.rollout_workers, beside(config)) if generates(config) else (0, [])
        check_this_machine(bundles_of(cluster, cluster.learners, workers, others))
    with collector_paused():
        plan = planned(composed)
    run = plan.new_run(console, callbacks, began)
    run.start.done("options, data and model files are checked")
    trial, printed = trial_of(config, plan.modality, plan.sources), run.folder / PRINTED
    try:
        with run.place.ending():
            with ExitStack() as stack:
                stack.enter_context(joined(config.cluster))
                run.start.done("Ray is there")
                if config.run.checkpoint_every:
                    import_ahead("safetensors.torch")  # for checkpoints; a signal must not wait for it
                stack.enter_context(run.place.ending())  # before Ray ends, which takes seconds
                starting = started(
                    config,
                    generating=generates(config),
                    learning=True,
                    trial=trial,
                    printed=printed,
                    told=run.start.done,
                )
                processes = stack.enter_context(starting)
                run.start_is_over()
                stack.enter_context(run.progress)
                generation = Generation(config, processes, plan.modality, plan.sources, run.stage, run.note)
                learners = Learners(config, processes.learners, run.note)
                plan.loop(config, plan.schedule, generation, learners, run).run_to_end()
            summary = run.summarise()
    except Exception as error:
        error.add_note(f"{RUN_FOLDER}{run.folder}")
        raise
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
    problems = open_training(config.data, answers=config.algorithm.advantage.offline)
    held_out = open_source(config.data.evaluation) if config.data.evaluation and config.evaluation.every else None
    training, notes = kept(
        PromptSource(problems, modality), config.data, "the training problems", config.algorithm.advantage.offline
    )
    sources = {TicketKind.train: training}
    if held_out is not None:
        evaluated, more = kept(PromptSource(held_out, modality), config.data, "data.evaluation")
        sources |= dict.fromkeys((TicketKind.greedy, TicketKind.sampled), evaluated)
        notes += more
    for kind, source in sources.items():
        scored = kind is not TicketKind.train or not config.algorithm.advantage.offline
        source.check(scored)
        if scored:
            source.check_rewards(config.reward.terms)
    if config.algorithm.advantage.offline:
        sources[TicketKind.train].check_offline_groups()
    schedule = Schedule(
        seed=config.run.seed,
        num_problems=len(training.problems),
        prompts_per_update=config.rollout.prompts_per_update,
        prompts_per_ticket=config.rollout.prompts_per_ticket,
        group_size=config.rollout.group_size,
        max_staleness=config.rollout.max_staleness,
        updates=config.run.updates,
    )
    return Plan(composed, modality, sources, schedule, *_kind_of_training(config), notes)


def generates(config: Config) -> bool:
    """Whether a run has rollout and reward workers."""
    learns_alone = config.algorithm.advantage.offline or differentiates_reward(config.algorithm)
    return not learns_alone or bool(config.data.evaluation and config.evaluation.every)


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
        **({} if config.judge is None else {"what judge.model holds": served_name(config.judge)}),
        "run.updates, which decides rates": config.run.updates if of_length else None,
    }


def print_summary(run: Run, summary: dict[str, Any]) -> None:
    console = run.console
    said = f"{run.config.run.name}: {summary['steps']} updates in {summary['seconds']:.0f} s"
    between = " " if console.width >= WIDE else "\n"
    table = Table()
    table.add_column("held out", overflow="fold")
    for column in ("before", "after", "gain"):
        table.add_column(column, justify="right", no_wrap=True)
    for kind, found in summary.get("held_out", {}).items():
        alone = sum(name.startswith("term/") for name in found) == 1  # which is the reward, up to its weight
        for name, change in found.items():
            if not (alone and name.startswith("term/")):
                cells = (_cell(change[what], change["ci95"][what]) for what in ("before", "after", "gain"))
                shown = "solve rate" if name == "solve_rate" else escape(name)
                table.add_row(f"{kind}, {shown}", *(cell.replace(" [", f"{between}[") for cell in cells))
    console.print(said, style="italic", markup=False, highlight=False)
    if table.rows:
        console.print(table)
        console.print("[dim]95 % intervals; the gain is paired over the same problems[/]")
    stages = summary["stage_seconds"]
    costs = ", ".join(f"{name} {value:.1f}" for name, value in stages.items() if value >= 0.05)
    console.print(f"seconds: {costs}", soft_wrap=True)
    console.print(f"run folder: {run.folder}", soft_wrap=True, markup=False)


def _cell(value: float | None, interval: list[float] | None) -> str:
    return "not known" if value is None else with_interval(value, interval)

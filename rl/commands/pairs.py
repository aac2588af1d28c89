"""`denoiserl pairs`: preference data out of a policy's own completions.

The chosen answer of a problem is the best of its group by reward, the rejected one the worst. With
`data.train.perturbed` the rejected one is the worst completion of a changed prompt (Tango 2, arXiv 2404.09956), which
makes losers where the policy itself hardly errs; rewards judge it by the problem's own prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from cluster.objects import fetched
from cluster.weights import PackedWeights
from configs.compose import Composed
from configs.errors import UserError
from configs.schema import Config
from rewards.printable import printable
from rewards.scoring.scores import Failure
from rl.commands.overwriting import ask_before_writing
from rl.commands.policies import check_folder
from rl.data.problems import Problem, open_training
from rl.data.prompts import PerturbedSource, PromptSource
from rl.data.tickets import TicketKind
from rl.data.too_long import kept
from rl.driver.generating import generating
from rl.driver.generation import Generation
from rl.driver.processes import RunFailed
from rl.driver.schedule import evaluation_tickets
from rl.modality.choice import modality_of
from rl.modality.protocol import Modality
from rl.run.failures import failure_notes
from rl.run.scored import Scored


@dataclass
class Tally:
    """What became of the completions."""

    pairs: int = 0
    widest: float = 0.0
    """Largest difference of rewards that any problem offered."""
    samples: int = 0
    unscored: int = 0
    unfinished: int = 0
    failures: list[Failure] = field(default_factory=list)


def write_pairs(
    composed: Composed, weights: PackedWeights | None, output: Path, gap: float, overwrite: bool = False
) -> None:
    """Writes a row for each training problem whose best and worst completion are at least `gap` apart in reward.

    Args:
        weights: of the policy; None are the checkpoint's own.
    """
    config = composed.config
    modality = modality_of(config)
    modality.check()
    _check(config, output, gap)
    ask_before_writing([output, output.with_suffix("")], overwrite)
    problems = open_training(config.data, answers=False)
    source, left_out = kept(PromptSource(problems, modality), config.data, "the training problems")
    problems = source.problems
    sources = {TicketKind.sampled: source}
    if _perturbs(config):
        sources[TicketKind.perturbed] = PerturbedSource(problems, modality)
    for source in sources.values():
        source.check()
        source.check_rewards(config.reward.terms)
    console = Console()
    for note in left_out:
        console.print(printable(note), style="yellow", markup=False, highlight=False)
    with generating(config, modality, sources, weights, console) as (generation, version):
        tally = draw_pairs(generation, config, version, output, gap, console)
    report(config, len(problems), output, gap, tally, console)


def draw_pairs(
    generation: Generation, config: Config, version: int, output: Path, gap: float, console: Console
) -> Tally:
    """Writes the pairs of every problem of `generation.sources`, by the policy of `version`."""
    tally, sources = Tally(), generation.sources
    problems = len(sources[TicketKind.sampled].problems)
    size = problems, config.rollout.prompts_per_ticket, config.rollout.group_size
    tickets = [evaluation_tickets(config.run.seed, version, *size, kind) for kind in sources]
    bundles = list(zip(*tickets, strict=True))
    generation.ask([ticket for bundle in bundles for ticket in bundle])
    with output.open("w", encoding="utf-8") as file:
        for bundle in track(bundles, "pairs", console=console):
            scored = generation.collect(list(bundle))
            for row in _rows(scored, sources, generation.modality, gap, output.with_suffix(""), tally):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return tally


def _rows(
    scored: Sequence[Scored],
    sources: dict[TicketKind, PromptSource],
    modality: Modality,
    gap: float,
    folder: Path,
    tally: Tally,
) -> Iterator[dict[str, Any]]:
    """Rows of one bundle: the ticket with the problems' own prompts, and perhaps the one with changed prompts."""
    source = sources[TicketKind.sampled]
    candidates = [_candidates(ticket, modality, tally) for ticket in scored]
    (outputs, rewards), (worse_outputs, worse_rewards) = candidates[0], candidates[-1]
    for place, index in enumerate(scored[0].ticket.problem_indices):
        found = best_and_worst(rewards[place], worse_rewards[place])
        if found is None:
            continue
        best, worst = found
        difference = float(rewards[place, best] - worse_rewards[place, worst])
        tally.widest = max(tally.widest, difference)
        if difference < gap:
            continue
        tally.pairs += 1
        problem = source.problems[index]
        yield {
            **_identity(problem),
            "chosen": modality.cell(outputs[place][best], folder / f"{index:06d}_chosen"),
            "rejected": modality.cell(worse_outputs[place][worst], folder / f"{index:06d}_rejected"),
            "chosen_reward": float(rewards[place, best]),
            "rejected_reward": float(worse_rewards[place, worst]),
        }


def _identity(problem: Problem) -> dict[str, Any]:
    """Whose answers a pair holds. A user is written as numbers: a path would be relative to another file."""
    row: dict[str, Any] = {"id": problem.id, "prompt": problem.shown}
    if problem.conversation is not None and problem.conversation.options:
        options = dict(problem.conversation.options)
        row |= {"tools": options.pop("tools", None), "chat_template_kwargs": options}
    return row if problem.user is None else {**row, "user": problem.user.tolist()}


def _candidates(scored: Scored, modality: Modality, tally: Tally) -> tuple[list[list[Any]], np.ndarray]:
    """Completions of each problem, and (problems, samples) rewards: NaN for those that could not be scored, and for
    those that were cut off, which show no end to learn from."""
    completions = fetched(scored.completions)
    problems, samples = scored.rewards.shape
    finished = modality.finished(completions).reshape(scored.rewards.shape)
    tally.samples += finished.size
    tally.unscored += int(np.isnan(scored.rewards).sum())
    tally.unfinished += int((~finished).sum())
    tally.failures += scored.failures
    outputs = [completions.outputs[place * samples : (place + 1) * samples] for place in range(problems)]
    return outputs, np.where(finished, scored.rewards, np.nan)


def best_and_worst(rewards: np.ndarray, others: np.ndarray) -> tuple[int, int] | None:
    """The first of the best of `rewards` (G,) and the first of the worst of `others` (G,); None where all are NaN."""
    if np.isnan(rewards).all() or np.isnan(others).all():
        return None
    return int(np.nanargmax(rewards)), int(np.nanargmin(others))


def _check(config: Config, output: Path, gap: float) -> None:
    check_folder(output)
    if output.suffix != ".jsonl":
        raise UserError(f"--output {output}: pairs are written as JSONL; give it a name that ends in .jsonl")
    if not gap > 0:
        raise UserError(f"--gap {gap:g}: a pair needs a better and a worse answer; choose a gap above 0")
    if not config.reward.terms:
        raise UserError(
            "reward.terms is empty, so nothing says which answer is better; choose a file, like reward=math"
        )
    if config.rollout.group_size < 2 and not _perturbs(config):
        raise UserError("rollout.group_size=1 leaves nothing to choose from; raise it, or set data.train.perturbed")


def report(config: Config, problems: int, output: Path, gap: float, tally: Tally, console: Console) -> None:
    for line in failure_notes("pairs", tally.failures, config.reward, tally.unscored, tally.samples):
        console.print(printable(line), style="yellow", markup=False, highlight=False)
    if tally.unfinished:
        console.print(
            f"{tally.unfinished} of {tally.samples} completions were cut off at rollout.sampler.max_new_tokens="
            f"{config.rollout.sampler.max_new_tokens} and are in no pair"
        )
    if not tally.pairs:
        raise RunFailed(
            f"no problem has two completions whose rewards differ by {gap:g}; the most is {tally.widest:g}. Lower "
            f"--gap, raise rollout.group_size, or set data.train.perturbed"
        )
    console.print(f"{tally.pairs} pairs of {problems} problems written to {output}", soft_wrap=True)


def _perturbs(config: Config) -> bool:
    given = {name: source.perturbed is not None for name, source in config.data.training().items()}
    if any(given.values()) and not all(given.values()):
        missing = ", ".join(f"{name}.perturbed" for name, has in given.items() if not has)
        raise UserError(f"some training sources have a perturbed prompt and others have none: set {missing} too")
    return any(given.values())

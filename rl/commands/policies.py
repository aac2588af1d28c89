"""What `denoiserl eval`, `sample` and `export` do, once their arguments are read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.weights import PackedWeights
from configs.compose import Composed
from configs.errors import UserError
from rewards.printable import printable
from rl.commands.judging import Judge
from rl.commands.overwriting import ask_before_writing
from rl.data.problems import Problem, open_source
from rl.data.prompts import PromptSource
from rl.data.tickets import TicketKind
from rl.data.too_long import kept
from rl.driver.evaluate import evaluate
from rl.driver.generating import generating
from rl.modality.choice import modality_of
from rl.modality.protocol import ShowOptions
from rl.records.saved import run_configuration, run_weights
from rl.run.evaluation import Evaluation, told
from rl.run.failures import failure_notes
from rl.run.scored import logged_notes


def run_evaluation(
    composed: Composed, weights: PackedWeights | None, output: Path | None, overwrite: bool = False
) -> None:
    """Greedy and sampled rewards on the held-out problems, and solve rates where they are defined, on the cluster that
    the configuration describes."""
    config = composed.config
    modality = modality_of(config)
    modality.check()
    if config.data.evaluation is None:
        raise UserError("there are no held-out problems: set data.evaluation")
    check_folder(output)
    ask_before_writing([output] if output else [], overwrite)
    whole = PromptSource(open_source(config.data.evaluation), modality)
    source, left_out = kept(whole, config.data, "data.evaluation")
    source.check()
    source.check_rewards(config.reward.terms)
    console = Console()
    for note in left_out:
        console.print(printable(note), style="yellow", markup=False, highlight=False)
    sources = dict.fromkeys((TicketKind.greedy, TicketKind.sampled), source)
    with generating(config, modality, sources, weights, console) as (generation, version):
        evaluation = evaluate(generation, config, version)
    said = f"{len(source.problems)} held-out problems, after {version} updates: {evaluation.line()}"
    console.print(said, markup=False)
    console.print("reward and its terms, mean over problems, 95 % intervals", style="italic")  # a title would wrap
    console.print(_terms_table(evaluation))
    unscored, samples = evaluation.unscored, evaluation.samples
    notes = [*failure_notes("evaluation", evaluation.failures, config.reward, unscored, samples)]
    notes += [note for kind, logged in evaluation.logged.items() for note in logged_notes(f"{kind} evaluation", logged)]
    for line in notes:
        console.print(printable(line), style="yellow", markup=False, highlight=False)
    if output is not None:
        output.write_text(json.dumps(evaluation.row(), indent=2))
        console.print(f"written to {output}", soft_wrap=True, markup=False)


def check_folder(output: Path | None) -> None:
    if output is not None and not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: its folder does not exist; create it first")


def _terms_table(evaluation: Evaluation) -> Table:
    table = Table()
    table.add_column("", overflow="fold")
    found = {kind: evaluation.estimates(kind) for kind in evaluation.rewards}
    for kind in found:
        table.add_column(kind, justify="right", no_wrap=True)
    terms = dict.fromkeys(f"term/{name}" for terms in evaluation.terms.values() for name in terms)
    for name in ("reward", *terms):
        estimates = (of_kind.get(name) for of_kind in found.values())
        table.add_row(escape(name.removeprefix("term/")), *(told(each) if each else "not scored" for each in estimates))
    return table


def show_samples(
    composed: Composed, weights: PackedWeights | None, prompt: str | None, problems: int, options: ShowOptions
) -> None:
    """Draw completions of one prompt, or of the first held-out problems, and show how each came about."""
    config = composed.config
    check_folder(options.output)
    if prompt is not None:
        wanted = [Problem("--prompt", prompt, {})]
    elif config.data.evaluation is None:
        raise UserError("no prompt: give --prompt, or set data.evaluation to show its first problems")
    else:
        held_out = open_source(config.data.evaluation)
        wanted = [held_out[index] for index in range(min(problems, len(held_out)))]
    with Judge(config) as judge:
        modality_of(config).show(weights, wanted, replace(options, judge=judge), Console())


def export_run(
    run: Path, target: Path, update: int | None, adapter_only: bool, half: bool = False, overwrite: bool = False
) -> None:
    """A checkpoint in the family's published layout, with adapters merged in unless `adapter_only`."""
    modality = modality_of(run_configuration(run, [], unused=("reward",)).config)
    weights = run_weights(run, update)
    try:
        ask_before_writing([target], overwrite)
        written = modality.export(weights, target, adapter_only, half)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error}); choose another folder") from error
    Console().print(f"{written} after {weights.version} updates written to {target}", soft_wrap=True, markup=False)

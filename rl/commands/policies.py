"""What `denoiserl eval`, `sample` and `export` do, once their arguments are read."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cluster.weights import PackedWeights
from configs.compose import Composed
from configs.errors import UserError
from rl.data.problems import Problem, open_source
from rl.data.prompts import PromptSource
from rl.data.tickets import TicketKind
from rl.driver.evaluate import evaluate
from rl.driver.generating import generating
from rl.modality.choice import modality_of
from rl.modality.protocol import ShowOptions
from rl.records.saved import run_configuration, run_weights
from rl.run.evaluation import Evaluation
from rl.run.failures import failure_notes


def run_evaluation(composed: Composed, weights: PackedWeights | None, output: Path | None) -> None:
    """Greedy and sampled solve rate on the held-out problems, on the cluster that the configuration describes."""
    config = composed.config
    modality = modality_of(config)
    modality.check()
    if config.data.evaluation is None:
        raise UserError("there are no held-out problems: set data.evaluation")
    check_folder(output)
    source = PromptSource(open_source(config.data.evaluation), modality)
    source.check()
    console = Console()
    sources = dict.fromkeys((TicketKind.greedy, TicketKind.sampled), source)
    with generating(config, modality, sources, weights, console) as (generation, version):
        evaluation = evaluate(generation, config, version)
    console.print(f"{len(source.problems)} held-out problems, after {version} updates: {evaluation.line()}")
    if any(evaluation.terms.values()):
        console.print(_terms_table(evaluation))
    unscored, samples = evaluation.unscored, evaluation.samples
    for line in failure_notes("evaluation", evaluation.failures, config.reward, unscored, samples):
        console.print(line, style="yellow", markup=False, highlight=False)
    if output is not None:
        outcome = {f"solved/{kind}": values.tolist() for kind, values in evaluation.solved.items()}
        output.write_text(json.dumps({"update": evaluation.update, **evaluation.metrics(), **outcome}, indent=2))
        console.print(f"written to {output}")


def check_folder(output: Path | None) -> None:
    if output is not None and not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: its folder does not exist; create it first")


def _terms_table(evaluation: Evaluation) -> Table:
    table = Table(title="reward terms, mean over problems, 95 % intervals", title_justify="left")
    table.add_column("term")
    for kind in evaluation.terms:
        table.add_column(kind, justify="right")
    for name in dict.fromkeys(name for terms in evaluation.terms.values() for name in terms):
        estimates = (terms.get(name) for terms in evaluation.terms.values())
        table.add_row(name, *(f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" if e else "" for e in estimates))
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
    modality_of(config).show(weights, wanted, options, Console())


def export_run(run: Path, target: Path, update: int | None, adapter_only: bool, half: bool = False) -> None:
    """A checkpoint in the family's published layout, with adapters merged in unless `adapter_only`."""
    modality = modality_of(run_configuration(run, []).config)
    weights = run_weights(run, update)
    try:
        written = modality.export(weights, target, adapter_only, half)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error}); choose another folder") from error
    Console().print(f"{written} after {weights.version} updates written to {target}")

"""What `denoiserl eval`, `sample` and `export` do, once their arguments are read."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import ray
from rich.console import Console

from cluster.placement import joined
from cluster.weights import PackedWeights, pack_weights
from configs.compose import Composed
from configs.errors import UserError
from models.checkpoint import check_weights, find_checkpoint, read_text_spec, read_tokenizer
from models.export import export_text_policy
from models.lora import trainable_parameters
from rl.compatibility import check
from rl.data import open_source
from rl.encode import encode_prompt
from rl.evaluate import evaluate
from rl.generation import Generation
from rl.processes import started
from rl.prompts import PromptSource
from rl.saved import load_run_policy, run_configuration, run_weights
from rl.schedule import TicketKind, derive_seed, sample_uid
from rl.show import show_unmasking
from rollout.groups import Origin
from rollout.worker import RolloutRequest, TextRolloutWorker


def run_evaluation(composed: Composed, weights: PackedWeights | None, output: Path | None) -> None:
    """Greedy and sampled solve rate on the held-out problems, on the cluster that the configuration describes."""
    config = composed.config
    spec, tokenizer = read_text_spec(config.model), read_tokenizer(config.model)
    check(config, spec)
    if config.data.evaluation is None:
        raise UserError("there are no held-out problems: set data.evaluation")
    if output is not None and not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: its folder does not exist; create it first")
    check_weights(config.model)
    source = PromptSource(open_source(config.data.evaluation), tokenizer, config.data)
    source.check()
    if weights is None:
        policy, _ = load_run_policy(composed, None)
        weights = pack_weights(0, trainable_parameters(policy))
    console = Console()
    sources = dict.fromkeys((TicketKind.greedy, TicketKind.sampled), source)
    with joined(config.cluster), started(config, generating=True, learning=False) as processes:
        generation = Generation(config, processes, sources, lambda _: nullcontext(), console.print)
        generation.weights[weights.version] = ray.put(weights)
        evaluation = evaluate(generation, config, weights.version)
    console.print(f"{len(source.problems)} held-out problems, after {weights.version} updates: {evaluation.line()}")
    if evaluation.failures:
        first = evaluation.failures[0]
        console.print(
            f"{evaluation.unscored} of {evaluation.samples} samples could not be scored and were left out; first: "
            f"{first.term}: {first.kind}: {first.message} on {first.completion!r}",
            style="yellow",
            markup=False,
        )
    if output is not None:
        outcome = {f"solved/{kind}": values.tolist() for kind, values in evaluation.solved.items()}
        output.write_text(json.dumps({"update": evaluation.update, **evaluation.metrics(), **outcome}, indent=2))
        console.print(f"written to {output}")


def show_samples(
    composed: Composed, weights: PackedWeights | None, prompt: str | None, count: int, greedy: bool
) -> None:
    """Draw completions of one prompt, or of the first held-out problem, and show how each was unmasked."""
    config = composed.config
    policy, tokenizer = load_run_policy(composed, weights)
    if prompt is None:
        if config.data.evaluation is None:
            raise UserError("no prompt: give --prompt, or set data.evaluation to show its first problem")
        prompt = open_source(config.data.evaluation)[0].prompt
    ids = encode_prompt(tokenizer, prompt, config.data.system_prompt, config.data.max_prompt_tokens)
    seed = derive_seed(config.run.seed, "sample")
    request = RolloutRequest(
        origin=Origin(0, 0, 0, seed),
        prompt_ids=("prompt",),
        prompts=(np.asarray(ids),),
        uids=tuple(sample_uid(seed, 0, sample) for sample in range(count)),
        sampler=config.rollout.sampler.greedy() if greedy else config.rollout.sampler,
    )
    (trajectory,), _ = TextRolloutWorker(policy, tokenizer).run(request)
    console = Console()
    console.print(prompt, style="bold", markup=False)
    for sample in range(count):
        console.rule(f"sample {sample + 1} of {count}")
        show_unmasking(trajectory, sample, tokenizer, policy.spec.mask_id, console)


def export_run(run: Path, target: Path, update: int | None, adapter_only: bool) -> None:
    """A checkpoint in the family's published layout, with adapters merged in unless `adapter_only`."""
    composed = run_configuration(run, [])
    weights = run_weights(run, update)
    policy, tokenizer = load_run_policy(composed, weights)
    source = find_checkpoint(composed.config.model.path, ["*.json"])
    try:
        export_text_policy(policy, tokenizer, target, source_folder=source, adapter_only=adapter_only)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error}); choose another folder") from error
    Console().print(f"{policy.spec.family} checkpoint after {weights.version} updates written to {target}")

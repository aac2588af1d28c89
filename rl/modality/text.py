"""Text: masked and block-diffusion language models."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from rich.console import Console

from cluster.weights import PackedWeights, load_weights
from configs.algorithm_options import LikelihoodKind, LikelihoodOptions
from configs.errors import UserError
from configs.schema import Config
from models.files import find_checkpoint
from models.text.description import check_weights, read_text_spec, read_tokenizer
from models.text.spec import TextSpec
from rewards.printable import printable
from rl.compatibility import check
from rl.data.encode import encode_prompt, encode_response
from rl.data.problems import Problem
from rl.data.tickets import TicketKind
from rl.modality.protocol import Judged, ShowOptions, answer_uids
from rl.modality.samples import sample_request
from rollout.branching import Tree, tree_at
from rollout.options import Remask, SamplerOptions
from rollout.trajectory import TextTrajectory
from rollout.worker import Completions

if TYPE_CHECKING:  # imported where they are used: the driver asks for prompts only, and starts without torch
    import torch
    from transformers import PreTrainedTokenizerBase

    from models.policy import Policy
    from models.text.policy import TextPolicy
    from rl.likelihood.text import TextElbo, TextReplay
    from rl.likelihood.text_proposals import TextProposals
    from rollout.text.worker import TextRolloutWorker


class TextModality:
    def __init__(self, config: Config) -> None:
        self.config = config

    @cached_property
    def spec(self) -> TextSpec:
        return read_text_spec(self.config.model)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return read_tokenizer(self.config.model)

    def check(self) -> None:
        check(self.config, self.spec)
        check_weights(self.config.model)

    def prompt(self, problem: Problem) -> np.ndarray:
        data = self.config.data
        prompt = problem.conversation or problem.prompt
        return encode_prompt(
            self.tokenizer, prompt, data.system_prompt, data.max_prompt_tokens, problem.id, self.spec.control_ids
        )

    def sampler(self, kind: TicketKind) -> SamplerOptions:
        """Greedy evaluation differs from training in its temperature only."""
        sampler = self.config.rollout.sampler
        return sampler.greedy() if kind is TicketKind.greedy else sampler

    def tree(self, update: int) -> Tree | None:
        """A canvas ends with its block, and each round reveals a position at least."""
        branching = self.config.rollout.branching
        if branching is None:
            return None
        steps = self.config.rollout.sampler.max_new_tokens + (self.spec.block_length or 1) - 1
        return tree_at(branching, update, steps)

    def groups_per_prompt(self, kind: TicketKind) -> int:
        return 1

    def rollout_worker(self, device: torch.device) -> TextRolloutWorker:
        from rollout.text.worker import TextRolloutWorker

        return TextRolloutWorker(self.policy(device), self.tokenizer)

    def policy(self, device: torch.device) -> TextPolicy:
        from models.text.checkpoint import load_text_policy

        return load_text_policy(self.config.model, device=device, adapter_seed=self.config.run.seed)[0]

    def likelihood(self, policy: Policy, device: torch.device) -> TextReplay | TextElbo | TextProposals:
        from rl.likelihood.text import TextElbo, TextReplay
        from rl.likelihood.text_proposals import TextProposals

        spec, options = cast("TextPolicy", policy).spec, self.config.algorithm.likelihood
        if options.kind is LikelihoodKind.proposals:
            return TextProposals(spec, self.config.rollout.sampler, device)
        if options.kind is LikelihoodKind.elbo:
            return TextElbo(spec, options, self.config.algorithm.epochs, device)
        return TextReplay(spec, self.config.rollout.sampler, options, device, self.tree)

    def value_network(self, device: torch.device) -> TextPolicy:
        from models.text.value import text_value

        return text_value(self.policy(device))

    def exact_replay(self, policy: Policy, device: torch.device) -> TextReplay | TextProposals | None:
        if self.config.algorithm.advantage.offline:
            return None
        from rl.likelihood.text import TextReplay
        from rl.likelihood.text_proposals import TextProposals

        spec = cast("TextPolicy", policy).spec
        if self.config.rollout.sampler.remask is not Remask.none:
            return TextProposals(spec, self.config.rollout.sampler, device)
        return TextReplay(spec, self.config.rollout.sampler, LikelihoodOptions(), device)

    def offline_group(self, problem: Problem, seed: int, update: int) -> TextTrajectory:
        from rollout.text.offline import offline_group

        limit = self.config.rollout.sampler.max_new_tokens
        pair = {"chosen": "chosen response", "rejected": "rejected response"}
        names = [pair.get(name, name) for name in problem.answers] or ["response"] * len(problem.responses)
        control, stops = self.spec.control_ids, self.spec.stop_ids
        responses = [
            encode_response(self.tokenizer, response, stops, limit, problem.id, control, name)
            for response, name in zip(problem.responses, names, strict=True)
        ]
        uids = answer_uids(seed, responses, problem.id)
        return offline_group(problem.id, self.prompt(problem), responses, self.spec, limit, uids, seed, update)

    def finished(self, completions: Completions) -> np.ndarray:
        assert completions.ids is not None
        return np.array([ids[-1] in self.spec.stop_ids for ids in completions.ids])

    def made_up(self, samples: int) -> Completions:
        texts = [f"The answer is {number}." for number in range(samples)]
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        return Completions(texts, ids, {"denoising_rounds": [max(1, len(tokens)) for tokens in ids]})

    def cell(self, completion: str, file: Path) -> str:
        return completion

    def rollout_metrics(self, sums: Mapping[str, float], samples: int) -> dict[str, float]:
        return {
            "tokens_mean": sums["tokens"] / samples,
            "tokens_per_round": sums["tokens"] / sums["rounds"],
            "stopped_fraction": sums["stopped"] / samples,
            "forwards": sums["forwards"],
            "token_forwards": sums["token_forwards"],
        }

    def keep_pictures(self, prompts: list[str], completions: Completions, folder: Path) -> None:
        """Text is in the trajectories; there is nothing to look at."""

    def compare_pictures(self, before: Judged, after: Judged, target: Path) -> None:
        """None were kept."""

    def show(
        self, weights: PackedWeights | None, problems: list[Problem], options: ShowOptions, console: Console
    ) -> None:
        """Every round of the unmasking, or with `short` the completions alone; then reference and reward."""
        if options.steps or options.output is not None:
            raise UserError(
                "--steps and --output are for image models; text shows each round on the terminal, unless --short"
            )
        import torch

        from models.lora import trainable_parameters
        from rl.drawing.unmasking import show_unmasking

        worker = self.rollout_worker(torch.device("cpu"))
        if weights is not None:
            load_weights(trainable_parameters(worker.policy), weights)
        sampler = self.sampler(TicketKind.greedy if options.greedy else TicketKind.sampled)
        for problem in problems:
            request = sample_request(self.config.run.seed, [problem.id], [self.prompt(problem)], options.count, sampler)
            (trajectory,), completions, _ = worker.run(request)
            verdicts = options.verdicts(problem, completions.outputs, completions.ids)
            console.print(printable(problem.prompt), style="bold", markup=False)
            for sample in range(options.count):
                console.rule(f"sample {sample + 1} of {options.count}")
                if options.short:
                    console.print(printable(completions.outputs[sample]), markup=False, highlight=False)
                else:
                    show_unmasking(trajectory, sample, self.tokenizer, self.spec.mask_id, console)
                if verdicts.scores[sample]:
                    console.print(printable(verdicts.scores[sample]), style="cyan", markup=False, highlight=False)
            if verdicts.reference is not None:
                console.rule("reference")
                console.print(printable(verdicts.reference), markup=False, highlight=False)

    def export(self, weights: PackedWeights, target: Path, adapter_only: bool, half: bool) -> str:
        import torch

        from models.lora import trainable_parameters
        from models.text.export import export_text_policy

        policy = self.policy(torch.device("cpu"))
        load_weights(trainable_parameters(policy), weights)
        source = find_checkpoint(self.config.model.path, ["*.json"])
        export_text_policy(policy, self.tokenizer, target, source_folder=source, adapter_only=adapter_only, half=half)
        return f"{policy.spec.family} checkpoint"

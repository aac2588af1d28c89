"""The text rollout worker: a ticket's prompts in, one trajectory a prompt and the completions' text out."""

from __future__ import annotations

import time
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from models.text.policy import TextPolicy
from rollout.options import SamplerOptions
from rollout.text.estimates import text_estimates
from rollout.text.groups import to_trajectories
from rollout.text.sampler import Sampler
from rollout.trajectory import TextTrajectory
from rollout.worker import Completions, RolloutRequest


class TextRolloutWorker:
    def __init__(self, policy: TextPolicy, tokenizer: PreTrainedTokenizerBase) -> None:
        self.policy = policy
        self.tokenizer = tokenizer

    def run(self, request: RolloutRequest) -> tuple[list[TextTrajectory], Completions, dict[str, float]]:
        assert isinstance(request.sampler, SamplerOptions)
        started = time.perf_counter()
        rows = [prompt for prompt in request.prompts for _ in range(request.group_size)]
        prompt_index = [index for index in range(len(request.prompts)) for _ in range(request.group_size)]
        recording = request.recording
        sampler = Sampler(self.policy, request.sampler, recording.proposals or recording.estimates)
        samples = sampler.sample(rows, list(request.uids), prompt_index, request.tree)
        trajectories = to_trajectories(
            samples,
            request.origin,
            list(request.prompt_ids),
            list(request.prompts),
            list(request.uids),
            request.group_size,
            request.sampler,
        )
        ids = [t.completion_ids(i).tolist() for t in trajectories for i in range(t.group_size)]
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        completions = Completions(texts, ids, {"denoising_rounds": samples.rounds.tolist()})
        if recording.estimates:
            limit = request.sampler.max_new_tokens
            estimates = text_estimates(trajectories, self.policy.spec, limit, self.tokenizer)
            completions = replace(completions, estimates=estimates)
        if not recording.trajectories:
            trajectories = []
        elif not (recording.proposals or sampler.remasks):  # they were for the estimates only
            trajectories = [replace(t, proposed_ids=None, proposed_logp=None) for t in trajectories]
        stop = set(self.policy.spec.stop_ids)
        statistics = {name: float(value) for name, value in samples.counters.items()}
        statistics["rounds"] = float(samples.rounds.sum())
        statistics["tokens"] = float(samples.stop_length.sum())
        statistics["stopped"] = float(sum(sample[-1] in stop for sample in ids))
        statistics["seconds"] = time.perf_counter() - started
        return trajectories, completions, statistics

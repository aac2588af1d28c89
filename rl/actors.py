"""The Ray actors: thin shells that bring a worker, its weights and its device together."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
import torch
from ray.util import get_node_ip_address

from cluster.weights import PackedWeights, load_weights, pack_weights
from configs.schema import Config, LikelihoodKind, LikelihoodOptions
from models.checkpoint import load_text_policy
from models.lora import has_adapters, trainable_parameters, without_adapters
from models.options import Precision
from rewards.scorer import ScoreRequest, Scores
from rewards.worker import RewardWorker
from rl.learner import Group, Learner
from rl.text_likelihood import TextElbo, TextReplay
from rollout.trajectory import Trajectory
from rollout.worker import Completions, RolloutRequest, TextRolloutWorker

GroupReference = tuple[ray.ObjectRef | Trajectory, np.ndarray, np.ndarray]
"""A trajectory (where it lies in the object store), the advantage of each sample, and which samples are valid."""


def device_and_threads(threads: int) -> torch.device:
    """Ray shows each actor only its own GPU, if it has one."""
    torch.set_num_threads(threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class RolloutActor:
    """Generates a ticket under the weights that come with it; a restarted one catches up by itself."""

    def __init__(self, config: Config, threads: int) -> None:
        self.config = config
        self.device = device_and_threads(threads)
        self.worker: TextRolloutWorker | None = None
        self.version: int | None = None

    def ready(self) -> None:
        """Load the policy. Not in the constructor: of an error there, Ray reports no more than that the actor died."""
        model, seed = self.config.model, self.config.run.seed
        policy, tokenizer = load_text_policy(model, device=self.device, adapter_seed=seed)
        self.worker = TextRolloutWorker(policy, tokenizer)
        self.version = None

    def run(self, request: RolloutRequest, weights: PackedWeights) -> tuple[Any, ...]:
        """The ticket's trajectories, one object each, and its completions last."""
        if self.worker is None:  # died while idle, and Ray has started it again
            self.ready()
        assert self.worker is not None
        if self.version != weights.version:
            load_weights(trainable_parameters(self.worker.policy), weights)
            self.version = weights.version
        trajectories, completions = self.worker.run(request)
        return (*trajectories, completions)


class RewardActor:
    """Scores a ticket's completions under deadlines."""

    def __init__(self, config: Config) -> None:
        self.worker = RewardWorker(config.reward)

    def ready(self) -> None:
        self.worker.ready()

    def score(self, completions: Completions, prompts: list[str], columns: dict[str, list[Any]], update: int) -> Scores:
        return self.worker.score(ScoreRequest(prompts, completions.texts, completions.ids, columns, update))


class LearnerActor:
    """One DeepSpeed rank. Built in two steps, because rank 0 must open the store before anyone can join."""

    def __init__(self, config: Config, rank: int, threads: int) -> None:
        self.config = config
        self.rank = rank
        self.device = device_and_threads(threads)
        if self.device.type == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"

    def open_store(self) -> tuple[str, int]:
        from rl.engine import open_store

        host = get_node_ip_address()
        self.store = open_store(host)
        return host, self.store.port

    def build(self, host: str, port: int) -> None:
        """Join the group, load the policy, wrap it into DeepSpeed."""
        from rl.engine import Engine, join_group

        config = self.config
        join_group(host, port, self.rank, config.cluster.learners, config.cluster.step_timeout_seconds, self.device)
        policy, _ = load_text_policy(config.model, device=self.device, adapter_seed=config.run.seed)
        self.policy = policy
        reference = None
        if config.algorithm.kl.coefficient > 0:
            reference = self._reference()
        engine = Engine(
            policy,
            config.algorithm.optimizer,
            zero_stage=config.cluster.zero_stage,
            bf16=config.model.precision is Precision.bf16,
        )
        replay = TextReplay(policy.spec, config.rollout.sampler, config.algorithm.likelihood, self.device)
        elbo = config.algorithm.likelihood.kind is LikelihoodKind.elbo
        self.engine = engine
        self.learner = Learner(
            engine,
            TextElbo(policy.spec, self.device) if elbo else replay,
            None if elbo else TextReplay(policy.spec, config.rollout.sampler, LikelihoodOptions(), self.device),
            reference,
            config.algorithm,
            config.run.updates,
            self.device,
        )

    def _reference(self) -> Any:
        """The policy as it was loaded: itself without adapters, or a frozen copy."""
        if has_adapters(self.policy):

            @contextmanager
            def adapters_off():
                with without_adapters(self.policy):
                    yield self.engine

            return adapters_off
        frozen, _ = load_text_policy(self.config.model, device=self.device)
        frozen.requires_grad_(False)

        @contextmanager
        def copy():
            yield frozen

        return copy

    def parity_gap(self, groups: list[GroupReference]) -> float:
        return self.learner.parity_gap(_fetch(groups, self.config.rollout.timeout_seconds))

    def step(self, update: int, minibatches: list[list[GroupReference]], fresh: bool) -> dict[str, float]:
        return self.learner.step(
            update, [_fetch(groups, self.config.rollout.timeout_seconds) for groups in minibatches], fresh
        )

    def weights(self, version: int) -> PackedWeights | None:
        """Collective; rank 0 returns the trainable weights. Returned, not put: an object must outlive this actor."""
        parameters = trainable_parameters(self.policy)
        with self.engine.gathered(list(parameters.values())):
            return pack_weights(version, parameters) if self.rank == 0 else None

    def save(self, folder: str) -> None:
        self.engine.save(folder)

    def load(self, folder: str) -> None:
        self.engine.load(folder)


def _fetch(groups: list[GroupReference], seconds: float) -> list[Group]:
    """A rank reads only its own share from the object store."""
    return [
        Group(ray.get(t, timeout=seconds) if isinstance(t, ray.ObjectRef) else t, advantage, valid)
        for t, advantage, valid in groups
    ]

"""The loop of one image run in one process: rollout, reward, advantage, learner, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.compose import compose
from configs.schema import Config
from rl.algorithm.advantages import AdvantageEstimator
from rl.data.problems import Problem
from rl.data.tickets import TicketKind, derive_seed, sample_uid
from rl.driver.actors import LearnerActor, RolloutActor
from rl.learner.groups import Group
from rl.learner.learner import Learner
from rl.learner.report import Parity
from rl.likelihood.image_reward_gradient import undrawn
from rl.modality.choice import modality_of
from rl.modality.protocol import recording_of
from rollout.trajectory import Trajectory
from rollout.worker import Completions, Estimates, Origin, Recording, RolloutRequest
from tests.models.pipelines import T5_TOKENS

CPU = torch.device("cpu")
Reward = Callable[[np.ndarray], float]


def configuration(model: Path, *overrides: str) -> Config:
    base = [f"model.path={model}", "model.modality=image", f"model.max_sequence_length={T5_TOKENS}", "run.name=x"]
    return compose([*base, "data=scenes", "rollout.denoising.steps=5", *overrides]).config


class Training:
    """The actors of a run, called directly; `process_group` must be open."""

    def __init__(self, config: Config, reward: Reward, caption: str = "red", seed: int = 0) -> None:
        """`seed` is of the rollouts; the weights are those of the checkpoint."""
        self.config = config
        self.reward = reward
        self.caption = caption
        self.seed = seed
        self.modality = modality_of(config)
        self.rollout, self.actor = RolloutActor(config, threads=1), LearnerActor(config, 0, threads=1)
        self.rollout.ready()
        self.actor.load_policy()
        self.learner, self.policy = self.actor.learner, self.actor.policy
        self.advantages = AdvantageEstimator(config.algorithm)
        self.published = 0

    def generate(self, request: RolloutRequest) -> tuple[list[Trajectory], Completions]:
        """Under the learner's present weights."""
        self.published += 1
        *trajectories, completions, _ = self.rollout.run(request, self.actor.weights(self.published))
        return trajectories, completions

    def roll_out(self, update: int, prompts: int = 2, group_size: int | None = None) -> tuple[list[Group], float]:
        group_size = group_size or self.config.rollout.group_size
        seed = derive_seed(self.seed, "train", update)
        request = RolloutRequest(
            origin=Origin(update, update, update, seed),
            prompt_ids=tuple(f"p{index}" for index in range(prompts)),
            prompts=(self.modality.prompt(Problem("p", self.caption, {})),) * prompts,
            uids=tuple(sample_uid(seed, group, sample) for group in range(prompts) for sample in range(group_size)),
            sampler=self.modality.sampler(TicketKind.train),
            recording=recording_of(self.config.algorithm, TicketKind.train),
            tree=self.modality.tree(update),
            candidates=self.config.rollout.step_candidates,
        )
        trajectories, completions = self.generate(request)
        self.completions = completions
        """Of the latest samples."""
        rewards = np.array([self.reward(image) for image in completions.outputs]).reshape(-1, group_size)
        compared = rewards if completions.estimates is None else self._steps(completions.estimates, rewards)
        found = self.advantages(list(compared), [self.caption] * len(rewards), self.modality.tree(update))
        groups = [Group(trajectory, *advantage) for trajectory, advantage in zip(trajectories, found, strict=True)]
        return groups, float(rewards.mean())

    def evaluate(self, samples: int, kind: TicketKind = TicketKind.sampled) -> np.ndarray:
        """(samples,) rewards under the present weights. No training sees this noise; it is the same at every call and
        for every seed, whatever branches or candidates the training has."""
        seed = derive_seed(0, "evaluation")
        request = RolloutRequest(
            origin=Origin(0, 0, 0, seed),
            prompt_ids=("p",),
            prompts=(self.modality.prompt(Problem("p", self.caption, {})),),
            uids=tuple(sample_uid(seed, 0, sample) for sample in range(samples)),
            sampler=self.modality.sampler(kind),
            recording=Recording(trajectories=False),
        )
        return np.array([self.reward(sample) for sample in self.generate(request)[1].outputs])

    def _steps(self, estimates: Estimates, rewards: np.ndarray) -> np.ndarray:
        """(prompts, samples, T) rewards of the estimates, then of the finished sample."""
        steps = np.full((rewards.size, max(estimates.counts) + 1), np.nan)
        found = iter(estimates.outputs)
        for row, count, last in zip(steps, estimates.counts, rewards.flat, strict=True):
            row[: count + 1] = [*(self.reward(next(found)) for _ in range(count)), last]
        return steps.reshape(*rewards.shape, -1)

    def parity(self, groups: list[Group]) -> Parity:
        assert self.learner.parity is not None
        return self.learner.parity.measure([group.trajectory for group in groups])

    def likely_cause(self, groups: list[Group]) -> str:
        assert self.learner.parity is not None
        return self.learner.parity.likely_cause([group.trajectory for group in groups], 1e-4)

    def update(self, update: int, prompts: int = 2) -> tuple[dict[str, float], float]:
        """The learner's metrics, with those of the replay at the first one, and the mean reward of the samples that it
        learned from."""
        groups, reward = self.roll_out(update, prompts)
        pieces = min(self.config.algorithm.minibatches, len(groups))
        minibatches = [list(piece) for piece in np.array_split(np.array(groups, object), pieces)]
        return self.learner.step(update, minibatches, fresh=update == 0), reward


def undrawn_groups(update: int, caption: str = "red") -> list[Group]:
    """Two groups of four samples that a reward's gradient is to draw, other ones at every update."""
    ones = np.ones(4, np.float32), np.ones(4, bool)
    uids = [[1000 * update + 10 * group + sample for sample in range(4)] for group in range(2)]
    return [Group(undrawn("x", caption, {}, keys, update), *ones) for keys in uids]


def assert_same_updates(plain: Learner, sharded: Learner) -> None:
    """Of two updates by a reward's gradient."""
    for update in range(2):
        expected, found = (learner.step(update, [undrawn_groups(update)], False) for learner in (plain, sharded))
        assert found["learner/loss"] == pytest.approx(expected["learner/loss"], abs=1e-6)
        assert found["learner/gradient_norm"] == pytest.approx(expected["learner/gradient_norm"], rel=1e-4)

"""Replaying a few samples before anything is learned: what the rollout recorded must come out again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from rl.learner.collectives import in_step, maximum_over_ranks
from rl.learner.engine import Engine
from rl.learner.report import Parity
from rl.likelihood.protocol import Likelihood, micro_batches
from rollout.trajectory import Trajectory

Reference = Callable[[], AbstractContextManager[Callable[..., Tensor]]]
"""Opens a context whose value is another model than the one in training."""
PARITY_SAMPLES = 4


class ParityCheck:
    """Every method is collective."""

    def __init__(
        self,
        engine: Engine,
        exact_replay: Likelihood,
        adapters_off: Reference | None,
        micro_batch_tokens: int,
        device: torch.device,
    ) -> None:
        """
        Args:
            exact_replay: reproduces recorded log-probabilities.
            adapters_off: the policy without its adapters; None when it has none.
        """
        self.engine = engine
        self.exact_replay = exact_replay
        self.adapters_off = adapters_off
        self.micro_batch_tokens = micro_batch_tokens
        self.device = device

    def measure(self, trajectories: Sequence[Trajectory]) -> Parity:
        """The gap is the largest over ranks."""
        by_step = self._gaps(_few_samples(trajectories))
        return Parity(maximum_over_ranks(max(by_step.values(), default=0.0), self.device), by_step)

    def likely_cause(self, trajectories: Sequence[Trajectory], limit: float) -> str:
        """Replays the samples under one change at a time; the change that closes the gap names its cause."""
        trajectory = _few_samples(trajectories)
        suspects = {
            "a row's result depends on its batch (attention or convolution kernels chosen by shape)": {"alone": True},
            "a layer behaves differently in training mode, such as dropout": {"training": False},
            "the rollout ran without the adapters that the learner has": {"adapters": False},
        }
        for cause, change in suspects.items():
            gaps = self._gaps(trajectory, **change)
            if maximum_over_ranks(max(gaps.values(), default=0.0), self.device) <= limit:
                return cause
        return "rollout and learner load different weights or precisions"

    def _gaps(
        self, trajectory: Trajectory, *, alone: bool = False, training: bool = True, adapters: bool = True
    ) -> dict[int, float]:
        """Largest |recorded - recomputed| log-probability of each step."""
        self.engine.module.train(training)
        trajectory = self.exact_replay.decisions_of(trajectory)
        rows = self.exact_replay.rows([trajectory], 0)
        batches = [[row] for row in rows] if alone else micro_batches(rows, self.micro_batch_tokens)
        gaps: dict[int, float] = {}
        switched = nullcontext(self.engine) if adapters or self.adapters_off is None else self.adapters_off()
        with torch.no_grad(), switched as model:
            for batch in in_step(batches, lambda row: row, self.device):
                recomputed = self.exact_replay.score(model, batch).log_prob.cpu().numpy()
                recorded = np.concatenate([trajectory.logp[row.sample, row.decision] for row in batch])
                steps = np.concatenate([row.step for row in batch])
                found = np.nan_to_num(np.abs(recorded - recomputed), nan=np.inf) * self.exact_replay.gap_scale
                for step, gap in zip(steps.tolist(), found.tolist(), strict=True):
                    gaps[step] = max(gaps.get(step, 0.0), gap)
        return dict(sorted(gaps.items()))


def _few_samples(trajectories: Sequence[Trajectory]) -> Trajectory:
    trajectory = trajectories[0]
    return trajectory.take(list(range(min(PARITY_SAMPLES, trajectory.group_size))))

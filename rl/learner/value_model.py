"""A second network that predicts, from the state before each decision, what the sample will be worth.

It stands beside the policy: it scores the same rows, its predictions turn what a sample is worth into an advantage of
each decision (`rl.algorithm.gae`), and it has an engine and an optimizer of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from configs.algorithm_options import ValueOptions
from configs.schema import Config
from rl.algorithm.decisions import NOBODY, Entry
from rl.algorithm.gae import at_the_end, step_advantages
from rl.learner.engine import Engine
from rl.learner.optimizer_state import load_state, save_state
from rl.learner.optimizer_step import NOT_FINITE, learning_rate, optimizer_step
from rl.learner.report import LearnerError
from rl.learner.state_files import StateFiles
from rl.likelihood.protocol import Likelihood, Replay
from rl.modality.protocol import Modality

FOLDER = "value"
"""Of its engine's files in a checkpoint."""


class ValueModel:
    """Every method but `save` and `load` is called by the learner; all are collective."""

    def __init__(
        self, engine: Engine, replay: Replay, options: ValueOptions, total_updates: int, device: torch.device
    ) -> None:
        self.engine = engine
        self.replay = replay
        self.options = options
        self.total_updates = total_updates
        self.device = device
        self.rows_scored = 0
        """In this update."""
        engine.module.train()  # the same numbers; activations are recomputed if the options say so

    def judge(self, minibatch: Sequence[list[Entry]]) -> None:
        """Turns what a sample is worth, the `advantage` of its decisions so far, into their GAE; notes value and
        target.

        Args:
            minibatch: micro-batches, with all trained decisions of every sample.
        """
        samples = defaultdict(list)
        for batch in minibatch:
            with torch.no_grad():
                values = self._values(batch).cpu().numpy()
            if not np.isfinite(values).all():
                raise LearnerError(f"the value model predicts numbers that are not finite. {NOT_FINITE}")
            for entry, value in zip(batch, np.split(values, _bounds(batch)), strict=True):
                entry.value = entry.value_target = value
                if entry.sample != NOBODY:
                    samples[entry.sample].append(entry)
        for entries in samples.values():
            step, worth = (_joined(entries, name) for name in ("step", "advantage"))
            options = self.options
            advantage, target = step_advantages(
                at_the_end(worth, step), _joined(entries, "value"), step, options.discount, options.gae_lambda
            )
            bounds = _bounds(entries)
            for entry, a, r in zip(entries, np.split(advantage, bounds), np.split(target, bounds), strict=True):
                entry.advantage, entry.value_target = a.astype(np.float32), r.astype(np.float32)

    def learn(self, minibatches: Sequence[Sequence[list[Entry]]], update: int) -> dict[str, float]:
        """Trains on judged minibatches. Returns metrics, equal on every rank."""
        if not minibatches:
            return {}
        rate = learning_rate(self.options.optimizer, update, self.total_updates)
        losses = 0.0
        for minibatch in [*minibatches] * self.options.passes:
            for batch in minibatch:
                loss = self._loss(batch)
                self.engine.backward(loss)
                losses += float(loss.detach())
            optimizer_step(self.engine, rate, update)
        steps = self.options.passes * len(minibatches)
        entries = [entry for minibatch in minibatches for batch in minibatch for entry in batch]
        return self._metrics(losses / steps, entries)

    def save(self, files: StateFiles) -> None:
        save_state(self.engine, files.within(FOLDER))

    def load(self, folder: Path) -> None:
        load_state(self.engine, folder / FOLDER)

    def _values(self, batch: list[Entry]) -> Tensor:
        """(M,) fp32"""
        self.rows_scored += sum(entry.sample != NOBODY for entry in batch)
        return self.replay.values(self.engine, [entry.row for entry in batch]).float()

    def _loss(self, batch: list[Entry]) -> Tensor:
        """Scalar: this rank's part of the mean over the minibatch's decisions, weighted as the policy's loss."""
        weight, value, target = (
            torch.from_numpy(_joined(batch, name)).to(self.device) for name in ("weight", "value", "value_target")
        )
        return (weight * value_loss(self._values(batch), value, target, self.options.clip)).sum()

    def _metrics(self, loss: float, entries: list[Entry]) -> dict[str, float]:
        """How much of the targets' variance the predictions explained before they were trained on them: 1 is all of
        it, 0 what a constant would. 0 where targets do not vary."""
        counts = _joined(entries, "weight") > 0
        value, target = (_joined(entries, name)[counts].astype(np.float64) for name in ("value", "value_target"))
        error = target - value
        sums = [loss, counts.sum(), value.sum(), target.sum(), (target**2).sum(), error.sum(), (error**2).sum()]
        reduced = torch.tensor([float(number) for number in sums], dtype=torch.float64, device=self.device)
        dist.all_reduce(reduced)
        loss, count, total, *moments = reduced.tolist()
        variance, unexplained = (square / count - (first / count) ** 2 for first, square in (moments[:2], moments[2:]))
        return {
            "value/loss": loss,
            "value/mean": total / count,
            "value/explained_variance": 1 - unexplained / variance if variance > 1e-12 else 0.0,
        }


def value_loss(value: Tensor, old: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """(M,) 1/2 max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2), as in TraceRL (arXiv 2509.06949); without the
    second term where c is None. A prediction that has moved further than c has no gradient, unless it moved away."""
    error = (value - target).square()
    if clip is not None:
        error = torch.maximum(error, (old + (value - old).clamp(-clip, clip) - target).square())
    return 0.5 * error


def value_model_of(
    config: Config, modality: Modality, likelihood: Likelihood, device: torch.device
) -> ValueModel | None:
    """The one that the options ask for."""
    options = config.algorithm.value
    if options is None:
        return None
    network = modality.value_network(device)
    bf16 = any(parameter.dtype is torch.bfloat16 for parameter in network.parameters())
    engine = Engine(network, options.optimizer, zero_stage=config.cluster.zero_stage, bf16=bf16)
    replay = cast(Replay, likelihood)  # checked with the configuration
    return ValueModel(engine, replay, options, config.run.updates, device)


def _joined(entries: Sequence[Entry], name: str) -> np.ndarray:
    """(M,) of all entries' decisions; `step` is their rows'."""
    return np.concatenate([getattr(entry.row if name == "step" else entry, name) for entry in entries])


def _bounds(entries: Sequence[Entry]) -> np.ndarray:
    """Where each entry but the last ends."""
    return np.cumsum([len(entry.recorded) for entry in entries])[:-1]

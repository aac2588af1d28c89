"""A trajectory and what of it is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rollout.trajectory import Trajectory


@dataclass(frozen=True)
class Group:
    """A trajectory and what its samples are worth."""

    trajectory: Trajectory
    advantage: np.ndarray
    """(G,) fp32 of each sample, or (G, T) of each of its denoising steps"""
    valid: np.ndarray
    """The same shape, bool: what is trained. A group with nothing keeps ranks in step and weighs nothing."""
    imitated: np.ndarray | None = None
    """(G,) bool: the samples that the anchor is taken of; None: decisions with a positive advantage"""

    def trained(self) -> Group | None:
        """The samples that have something to train, those decisions alone in their mask, with (g, D) advantages of
        their decisions. None if there are none."""
        valid = self._of_decisions(self.valid) & self.trajectory.mask
        kept = self.trained_samples()
        if len(kept) == 0:
            return None
        trajectory, advantage, imitated = self.trajectory, self._of_decisions(self.advantage), self.imitated
        if len(kept) < trajectory.group_size:
            trajectory, valid, advantage = trajectory.take(kept), valid[kept], advantage[kept]
            imitated = None if imitated is None else imitated[kept]
        if not (valid == trajectory.mask).all():
            trajectory = replace(trajectory, mask=valid)
        return Group(trajectory, advantage, valid, imitated)

    def trained_samples(self) -> np.ndarray:
        """(g,) int64 places of the samples that have something to train."""
        return (self._of_decisions(self.valid) & self.trajectory.mask).any(-1).nonzero()[0]

    def weightless(self) -> Group:
        """One of its samples, to keep ranks in step."""
        one = self.trajectory.take([0])
        return Group(one, np.zeros(one.mask.shape, np.float32), np.zeros(one.mask.shape, bool))

    def _of_decisions(self, values: np.ndarray) -> np.ndarray:
        """(G, D) of values (G,) or (G, T)."""
        if values.ndim == 1:
            return np.broadcast_to(values[:, None], self.trajectory.mask.shape)
        step = self.trajectory.decision_step
        last = int(step[self.trajectory.mask].max(initial=-1))
        if last >= values.shape[1]:
            raise ValueError(f"{values.shape[1]} steps have an advantage, but step {last} was trained")
        return np.take_along_axis(values, step.clip(0, values.shape[1] - 1), axis=1)

"""All that the rounds of a text proposed, as decisions of their own."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from rollout.trajectory import Role, TextTrajectory, Trajectory, TrajectoryError, array


@dataclass(frozen=True, kw_only=True)
class ProposalTrajectory(Trajectory):
    """A view of a text's trajectory whose decisions are (round, position) pairs, D = R x L, round by round: a position
    that several rounds proposed a token for is that many decisions."""

    text: TextTrajectory
    place: np.ndarray = array(Role.sample, np.int64, "G")
    """Index of each sample in `text`."""

    @property
    def decision_step(self) -> np.ndarray:
        length = self.text.canvas_ids.shape[1]
        return np.broadcast_to(np.arange(self.logp.shape[1]) // length, self.logp.shape)


def proposal_view(text: TextTrajectory) -> ProposalTrajectory:
    """
    Raises:
        TrajectoryError: the rollout recorded no proposals.
    """
    if text.proposed_ids is None or text.proposed_logp is None:
        raise TrajectoryError(
            f"trajectory of prompt {text.prompt_id!r} holds no proposals, which likelihood.kind=proposals scores; roll "
            f"out again with this algorithm"
        )
    common = {f.name: getattr(text, f.name) for f in fields(Trajectory) if f.name not in ("logp", "mask")}
    return ProposalTrajectory(
        **common,
        logp=text.proposed_logp.reshape(text.group_size, -1),
        mask=(text.proposed_ids >= 0).reshape(text.group_size, -1),
        text=text,
        place=np.arange(text.group_size),
    )

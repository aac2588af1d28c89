"""Trees of samples: the G samples of a prompt share the first steps of their chain and part at forks.

A sample draws the noise of each step with the key of the first leaf of the node that it belongs to there. Samples of
one node therefore agree bit by bit, a chain is still a function of keys and weights alone, and no new generator is
needed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from rollout.options import BranchingOptions


@dataclass(frozen=True)
class Tree:
    """A chain of `steps` denoising steps that splits, at each of `forks`, into as many as `factors` says.

    The leaves of a node lie side by side: with factors (2, 3), leaves 0 to 2 and 3 to 5 part at the first fork.
    """

    forks: tuple[int, ...]
    """Steps, from 0, in order: the first one that the children of a node do not share."""
    factors: tuple[int, ...]
    steps: int
    """Most steps that a chain can have."""

    def __post_init__(self) -> None:
        increasing = all(a < b for a, b in zip(self.forks, self.forks[1:], strict=False))
        if not (increasing and all(0 <= fork < self.steps for fork in self.forks)):
            raise ValueError(f"forks {list(self.forks)} must be increasing steps of a chain of {self.steps}")
        if len(self.factors) != len(self.forks) or min(self.factors, default=0) < 2:
            raise ValueError(f"factors {list(self.factors)}: each fork {list(self.forks)} needs one, of at least 2")

    @property
    def leaves(self) -> int:
        return math.prod(self.factors)

    def shared_by(self, step: int) -> int:
        """Leaves that have a step in common; all of them before the first fork."""
        return math.prod(self.factors[bisect_right(self.forks, step) :])

    def first_leaf(self, leaf: int, step: int) -> int:
        """The leaf whose key draws the noise of a step. Counts through whole groups as it does within one."""
        return leaf - leaf % self.shared_by(step)

    def segments(self) -> list[range]:
        """The steps from each fork to the next, whose decisions all belong to the same nodes."""
        return [range(*ends) for ends in zip(self.forks, (*self.forks[1:], self.steps), strict=True)]


def tree_at(options: BranchingOptions, update: int, steps: int) -> Tree:
    """The tree of an update: forks move evenly from `forks` to `final_forks` over `moving_updates`."""
    last = options.forks if options.final_forks is None else options.final_forks
    done = min(update / options.moving_updates, 1.0)
    # Rounded the same way whether even or odd: neighbours must not meet half-way.
    forks = (math.floor(first + done * (end - first) + 0.5) for first, end in zip(options.forks, last, strict=True))
    return Tree(tuple(forks), tuple(options.factors), steps)

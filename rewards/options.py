"""Options of the reward: a weighted sum of named terms, scored under a deadline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from omegaconf import MISSING

if TYPE_CHECKING:
    Weights = dict[str, float]
else:  # while a configuration is composed, null takes out what a file brought along
    Weights = dict[str, Optional[float]]  # noqa: UP045


@dataclass
class RewardTerm:
    function: str = MISSING
    """A registered name (`reasoning_gym`, `math`) or the dotted path of any function with TRL's reward signature."""
    weight: float = 1.0
    """A term of weight 0 is a measure: it is reported, never rewarded, and its failures cost no sample. Unit: 1."""
    conversational: bool = False
    """Pass each completion as a list of one chat message, as TRL does for conversational datasets."""
    args: dict[str, Any] = field(default_factory=dict)
    """Extra keyword arguments of the function."""
    criteria: Weights = field(default_factory=dict)
    """Of a function that returns several scores of a sample by name: the weight of each, within the term's own. Every
    criterion is reported as TERM/CRITERION. Empty for a function that returns one number a sample. Unit: 1."""

    def weights(self, name: str) -> dict[str, float]:
        """What the term is reported as, with its weight in the sum: `name`, or a `name/criterion` for each."""
        if not self.criteria:
            return {name: self.weight}
        return {f"{name}/{criterion}": self.weight * weight for criterion, weight in self.criteria.items()}


if TYPE_CHECKING:
    Terms = dict[str, RewardTerm]
else:
    Terms = dict[str, Optional[RewardTerm]]  # noqa: UP045


@dataclass
class RewardOptions:
    terms: Terms = field(default_factory=dict)
    """The terms of the reward, by names of yours; the reward is their weighted sum. `reward.terms.NAME=null` takes one
    out that a file brought along."""
    timeout_seconds: float = field(default=10.0, metadata={"resume": "may change"})
    """Deadline of one sample; a sample that misses it is dropped from its group and counted, never scored zero. Unit:
    seconds."""
    startup_timeout_seconds: float = field(default=300.0, metadata={"resume": "may change"})
    """Deadline for importing every term, models that they load included. Unit: seconds."""
    try_first: bool = field(default=True, metadata={"resume": "may change"})
    """Call every term once before the start, on a row of the data with completions that are made up, and refuse to
    start if it fails. False is for functions that can score real ones only."""
    memory_gib: Optional[float] = field(default=8.0, metadata={"resume": "may change"})  # noqa: UP045
    """Memory that the scoring process may allocate, so that a runaway sample cannot take the machine with it; null is
    unlimited. Enforced on Linux. Unit: GiB."""
    allow_weak_sandbox: bool = field(default=False, metadata={"resume": "may change"})
    """Let rewards of code run programs under limits of processes and a filter of system calls alone where this user can
    make no namespaces: such a program can read what this user can. Otherwise the run is refused there."""
    solved_at: Optional[float] = None  # noqa: UP045
    """A sample counts as solved when its reward reaches this. Null: nothing is counted as solved, as for a reward
    without a mark that means success; rewards are reported either way. Unit: rewards."""
    solved_by: Optional[str] = None  # noqa: UP045
    """Term of the reward, or TERM/CRITERION, that `solved_at` is about, without its weight; null is the total."""
    max_failed_fraction: float = field(default=0.05, metadata={"resume": "may change"})
    """The run stops when more than this fraction of an update's samples could not be scored. Unit: share of an
    update."""

    def weights(self) -> dict[str, float]:
        """The weight in the sum of everything that is reported."""
        return {
            reported: weight for name, term in self.terms.items() for reported, weight in term.weights(name).items()
        }

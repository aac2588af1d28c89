"""Options of the reward: a weighted sum of named terms, scored under a deadline."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Optional

from omegaconf import MISSING

if TYPE_CHECKING:
    Weights = dict[str, float]
else:  # while a configuration is composed, null takes out what a file brought along
    Weights = dict[str, Optional[float]]  # noqa: UP045


class Per(Enum):
    """What a reward function can score alone."""

    sample = "sample"
    """One sample, whatever else is in the batch."""
    group = "group"
    """All samples of a prompt together, as a comparison of each with the others. The function is told in `groups`, the
    number of each sample's group, which belong together, and never gets a part of one."""


class Missing(Enum):
    """What a sample without a score costs."""

    drop_sample = "drop_sample"
    """Itself: the others of its group are compared without it."""
    drop_group = "drop_group"
    """Its group: comparisons are among as many samples everywhere."""
    stop = "stop"
    """The run."""


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
    per: Per = Per.sample
    """What the function can score alone."""
    pool: Optional[str] = field(default=None, metadata={"resume": "may change"})  # noqa: UP045
    """Name of the pool of `reward.pools` that scores it; null is the common one, of `cluster.reward_workers`."""
    timeout_seconds: Optional[float] = field(default=None, metadata={"resume": "may change"})  # noqa: UP045
    """Deadline of one sample of this term, or of one group; null is `reward.timeout_seconds`. Unit: seconds."""
    clip: Optional[tuple[float, float]] = None  # noqa: UP045
    """What the sum counts of the term is limited to these bounds; null has none. Of criteria, each. Unit: of the
    term."""
    requires: Weights = field(default_factory=dict)
    """Gates: the term pays nothing, 0, on a sample on which one of these other terms, or TERM/CRITERION, is below its
    number. A gate that does not apply to the sample holds nothing back, one that failed costs the sample."""
    start_weight: Optional[float] = None  # noqa: UP045
    """The weight at the first update, from which it moves to `weight` in a straight line over `weight_updates`; null is
    `weight` all the time. Evaluations always use `weight`. Unit: 1."""
    weight_updates: Optional[int] = None  # noqa: UP045
    """After so many updates the weight is `weight`. Unit: updates."""
    criteria: Weights = field(default_factory=dict)
    """Of a function that returns several scores of a sample by name: the weight of each, within the term's own. Every
    criterion is reported as TERM/CRITERION. Empty for a function that returns one number a sample. Unit: 1."""

    def weight_at(self, update: int | None) -> float:
        """Of the term in the sum that this update learns from; None: in an evaluation."""
        if update is None or self.start_weight is None or not self.weight_updates:
            return self.weight
        done = min(1.0, update / self.weight_updates)
        return (1 - done) * self.start_weight + done * self.weight

    def weights(self, name: str, update: int | None = None) -> dict[str, float]:
        """What the term is reported as, with its weight in the sum: `name`, or a `name/criterion` for each."""
        weight = self.weight_at(update)
        if not self.criteria:
            return {name: weight}
        return {f"{name}/{criterion}": weight * of for criterion, of in self.criteria.items()}


@dataclass
class PoolOptions:
    """Workers for some terms alone."""

    workers: int = 1
    """Each with a scoring process of its own. Unit: processes."""
    cpus: float = 0.0
    """CPUs that Ray reserves for one. Unit: CPUs."""
    gpus: float = 0.0
    """GPUs that Ray reserves for one and shows it; workers whose shares add up to one GPU share it. Unit: GPUs."""

    @property
    def needs(self) -> tuple[float, float]:
        """CPUs and GPUs of one worker."""
        return self.cpus, self.gpus


if TYPE_CHECKING:
    Terms = dict[str, RewardTerm]
else:
    Terms = dict[str, Optional[RewardTerm]]  # noqa: UP045


@dataclass
class RewardOptions:
    terms: Terms = field(default_factory=dict)
    """The terms of the reward, by names of yours; the reward is their weighted sum. `reward.terms.NAME=null` takes one
    out that a file brought along."""
    pools: dict[str, PoolOptions] = field(default_factory=dict, metadata={"resume": "may change"})
    """Workers for terms that need a place of their own, such as a GPU, or that are slow. A ticket is scored in all
    pools at once. In one process there are none."""
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
    missing: Missing = Missing.drop_sample
    """What a sample without a score costs."""
    max_failed_fraction: float = field(default=0.05, metadata={"resume": "may change"})
    """The run stops when more than this fraction of an update's samples could not be scored. Unit: share of an
    update."""

    def weights(self, update: int | None = None) -> dict[str, float]:
        """The weight of everything that is reported, in the sum of this update; None: in an evaluation."""
        return {
            reported: weight
            for name, term in self.terms.items()
            for reported, weight in term.weights(name, update).items()
        }

    @property
    def by_pool(self) -> dict[str, list[str]]:
        """Names of the terms of every pool that has some; "" is the common one."""
        found: dict[str, list[str]] = {}
        for name, term in self.terms.items():
            found.setdefault(term.pool or "", []).append(name)
        return found or {"": []}

    def term_of(self, reported: str) -> str:
        """Name of the term that is reported so."""
        return next(name for name, term in self.terms.items() if reported in (name, *term.weights(name)))

    def seconds_of(self, name: str) -> float:
        """Deadline of one sample of a term."""
        seconds = self.terms[name].timeout_seconds
        return self.timeout_seconds if seconds is None else seconds

    @property
    def longest_seconds(self) -> float:
        """The longest deadline of one sample."""
        return max([self.timeout_seconds, *(self.seconds_of(name) for name in self.terms)])


@dataclass
class JudgeOptions:
    model: str = MISSING
    """Folder, or hub id, of the model that judges."""
    python: str = field(default=MISSING, metadata={"resume": "may change"})
    """Interpreter of the environment that has vLLM, such as .venv-judge/bin/python: vLLM wants versions of its own."""
    args: list[str] = field(default_factory=list)
    """Further words of the command line of `vllm serve`, such as [--dtype, bfloat16, --max-model-len, "4096"]."""
    environment: dict[str, str] = field(default_factory=dict)
    """Further variables of its environment, such as VLLM_CPU_KVCACHE_SPACE: "1". Not for secrets: the run folder keeps
    them."""
    cpus: float = field(default=1.0, metadata={"resume": "may change"})
    """CPUs that Ray reserves for it. Unit: CPUs."""
    gpus: int = field(default=0, metadata={"resume": "may change"})
    """GPUs that Ray reserves for it. Unit: GPUs."""
    threads: Optional[int] = field(default=None, metadata={"resume": "may change"})  # noqa: UP045
    """Computing threads; null is vLLM's own choice. Unit: threads."""
    startup_seconds: float = field(default=600.0, metadata={"resume": "may change"})
    """Deadline of one start; after three that fail the run stops. Unit: seconds."""
    unhealthy_seconds: float = field(default=60.0, metadata={"resume": "may change"})
    """It is started again when it does not say that it is well for so long. Unit: seconds."""

    @property
    def needs(self) -> tuple[float, int]:
        """CPUs and GPUs."""
        return self.cpus, self.gpus

"""Options of the cluster: how many processes of each kind, and what each may use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional


@dataclass
class ClusterOptions:
    address: Optional[str] = field(default=None, metadata={"resume": "may change"})  # noqa: UP045
    """Address of a running Ray cluster (`auto` finds one on this machine); null starts one here for the job."""
    learners: int = 1
    """Learners, one DeepSpeed rank each. Unit: processes."""
    rollout_workers: int = field(default=1, metadata={"resume": "may change"})
    """Workers that generate. Unit: processes."""
    reward_workers: int = field(default=1, metadata={"resume": "may change"})
    """Workers that score, each with a scoring process of its own. Unit: processes."""
    learner_gpus: int = 0
    """GPUs of one learner: 0 or 1. Unit: GPUs."""
    rollout_gpus: int = 0
    """GPUs of one rollout worker: 0 or 1. Unit: GPUs."""
    cpus: float = field(default=0.5, metadata={"resume": "may change"})
    """CPUs that Ray reserves for one learner or rollout worker; half a core each lets two of either share two cores.
    Unit: CPUs."""
    threads: Optional[int] = None  # noqa: UP045
    """Computing threads of one learner or rollout worker; null shares the machine's cores among those of its kind.
    Unit: threads."""
    zero_stage: int = 0
    """DeepSpeed ZeRO stage, 0 to 3. Unit: 1."""
    startup_timeout_seconds: float = field(default=300.0, metadata={"resume": "may change"})
    """Deadline for placement, process start and model loading. Unit: seconds."""
    step_timeout_seconds: float = field(default=1800.0, metadata={"resume": "may change"})
    """Deadline of one learner step; a dead or frozen learner is reported after it. Unit: seconds."""

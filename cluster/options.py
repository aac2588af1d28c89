"""Options of the cluster: how many processes of each kind, and what each may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass
class ClusterOptions:
    address: Optional[str] = None  # noqa: UP045
    """Address of a running Ray cluster (`auto` finds one on this machine); null starts one here for the job."""
    learners: int = 1
    """DeepSpeed ranks."""
    rollout_workers: int = 1
    reward_workers: int = 1
    learner_gpus: int = 0
    """GPUs of one learner: 0 or 1."""
    rollout_gpus: int = 0
    """GPUs of one rollout worker: 0 or 1."""
    cpus: float = 0.5
    """CPUs that Ray reserves for one learner or rollout worker; half a core each lets two of either share two cores."""
    threads: Optional[int] = None  # noqa: UP045
    """Computing threads of one learner or rollout worker; null shares the machine's cores among those of its kind."""
    zero_stage: int = 0
    """DeepSpeed ZeRO stage, 0 to 3."""
    startup_timeout_seconds: float = 300.0
    """Deadline for placement, process start and model loading."""
    step_timeout_seconds: float = 1800.0
    """Deadline of one learner step; a dead or frozen learner is reported after it."""

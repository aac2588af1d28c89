"""Options of the cluster: how many processes of each kind, and what each may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass
class ClusterOptions:
    address: Optional[str] = None  # noqa: UP045
    """Address of a running Ray cluster; null starts one on this machine."""
    learners: int = 1
    """DeepSpeed ranks."""
    rollout_workers: int = 1
    reward_workers: int = 1
    learner_gpus: int = 0
    """GPUs of one learner: 0 or 1."""
    rollout_gpus: int = 0
    """GPUs of one rollout worker: 0 or 1."""
    cpus: int = 1
    """CPU threads of one learner or rollout worker."""
    zero_stage: int = 0
    """DeepSpeed ZeRO stage, 0 to 3."""
    startup_timeout_seconds: float = 300.0
    """Deadline for placement, process start and model loading."""
    collective_timeout_seconds: float = 600.0
    """Deadline of one gradient reduction; a dead or frozen learner is reported after it."""

"""The nouns of the schedule: tickets, what they are for, and the seeds that follow from them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import Enum

MAX_REFILLS = 64
"""Attempts to replace an update's groups without a signal, so that each has its own stretch of problems."""


class TicketKind(Enum):
    train = "train"
    greedy = "greedy"
    """Evaluation, one greedy completion of each problem."""
    sampled = "sampled"
    """Evaluation, sampled completions."""
    perturbed = "perturbed"
    """The same of changed prompts, for preference pairs."""


@dataclass(frozen=True)
class Ticket:
    index: int
    """Counts from 0 through the whole run; in evaluations, through one evaluation; refills count from
    `REFILLS_FROM` in each update."""
    update: int
    """The update that consumes it; in evaluations, the number of updates done."""
    version: int
    """The policy that generates it, named by the number of updates it has seen."""
    problem_indices: tuple[int, ...]
    samples: int
    """Completions of each problem: the group size."""
    seed: int
    kind: TicketKind


def sample_uid(ticket_seed: int, group: int, sample: int) -> int:
    """Key of one sample's noise in a counter-based generator, wherever in a batch the sample runs.

    Args:
        group: place of the prompt in its ticket.
        sample: place of the sample in its group.

    Returns:
        Below 2**63, so that it is the same number as a signed and as an unsigned 64-bit integer.
    """
    return derive_seed(ticket_seed, "sample", group, sample)


def derive_seed(*parts: int | str) -> int:
    """Seeds below 2**63 that are unrelated for different parts, on every machine and Python version."""
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

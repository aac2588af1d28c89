"""Sums and maxima over the units of an update."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from rl.algorithm.objectives import Loss


@dataclass
class Statistics:
    """Sums and maxima over the units of an update, reduced over ranks at its end."""

    sums: dict[str, float] = field(default_factory=dict)
    """The same names on every rank: they follow from the configuration."""
    counts: dict[str, float] = field(default_factory=dict)
    """Of what each sum has a term of."""
    maxima: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("ratio_error", "logprob_gap"), 0.0))

    def add(self, loss: Loss) -> None:
        used = loss.weight > 0
        for name, values in loss.measures.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(values[used].sum())
            self.counts[name] = self.counts.get(name, 0.0) + float(used.sum())

    def total(self, name: str, value: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + value
        self.counts[name] = 1.0

    def raise_to(self, name: str, value: float) -> None:
        self.maxima[name] = max(self.maxima[name], value)

    def reduced(self, device: torch.device) -> Statistics:
        def over_ranks(values: dict[str, float], operation: dist.ReduceOp.RedOpType) -> dict[str, float]:
            tensor = torch.tensor([values[name] for name in sorted(values)], dtype=torch.float64, device=device)
            dist.all_reduce(tensor, operation)
            return dict(zip(sorted(values), tensor.tolist(), strict=True))

        return Statistics(
            over_ranks(self.sums, dist.ReduceOp.SUM),
            over_ranks(self.counts, dist.ReduceOp.SUM),
            over_ranks(self.maxima, dist.ReduceOp.MAX),
        )

"""What happens between the command and the first rollout, step by step, so that nobody looks at a blank minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class Start:
    def __init__(self, began: float, show: Callable[[str, float], None]) -> None:
        """
        Args:
            began: `time.perf_counter()` when the command began.
            show: shows a step, and the seconds after which it was done.
        """
        self._began = began
        self._show = show
        self.steps: dict[str, float] = {}
        """Step -> seconds after which it was done; the last one is what the whole start took."""

    def done(self, step: str) -> None:
        self.steps[step] = time.perf_counter() - self._began
        self._show(step, self.steps[step])

    @property
    def seconds(self) -> float:
        return max(self.steps.values(), default=0.0)


class Arrivals:
    """Tells when all processes of a kind are there, instead of every one of hundreds."""

    def __init__(self, kinds: Mapping[str, Mapping[str, object]], told: Callable[[str], None]) -> None:
        """
        Args:
            kinds: kind -> its processes by name.
        """
        self._missing = {kind: set(processes) for kind, processes in kinds.items()}
        self._counts = {kind: len(processes) for kind, processes in kinds.items()}
        self._told = told

    def __call__(self, name: str) -> None:
        for kind, missing in self._missing.items():
            if name in missing:
                missing.discard(name)
                if not missing:
                    count = self._counts[kind]
                    self._told(f"{count} {kind} {'process is' if count == 1 else 'processes are'} ready")

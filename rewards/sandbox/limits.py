"""What one sample may use, all its processes together."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    seconds: float = 8.0
    """Of the clock, for all cases of the sample and the start of the sandbox. Unit: seconds."""
    case_seconds: float = 4.0
    """Of the clock, for one case. Unit: seconds."""
    cpu_seconds: float = 6.0
    """Of processors, for all processes together. Unit: seconds."""
    memory_mib: int = 512
    """That the processes hold together; a single one gets a MemoryError there. Unit: MiB."""
    processes: int = 32
    """Processes and threads at one time."""
    file_mib: int = 8
    """Of one file. Unit: MiB."""
    scratch_mib: int = 16
    """Of the scratch folder. Unit: MiB."""
    output_kib: int = 256
    """Of what a program prints in one case, or returns. Unit: KiB."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e7:
                raise ValueError(f"the limit {each.name} is {value!r}; it must be a positive number below 1e7")

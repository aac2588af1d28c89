"""What became of a run that had a fault: whether it ended well, in words, and left nothing behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from tests.benchmarks.faults.kinds import Bench, Fault
from tests.benchmarks.faults.run import UPDATES, finished
from tests.benchmarks.mistakes.judge import FIX
from tests.rl.support.training import weights_after


@dataclass(frozen=True)
class Verdict:
    right: bool
    """It reached the weights of the run that nothing disturbed; else it ended by name."""
    faults: dict[str, str]
    """What must not be, by kind, with what was seen: late, traceback, leftovers, weights, code, message, worse."""


def judged(fault: Fault, bench: Bench, wanted: Path) -> Verdict:
    """
    Args:
        wanted: folder of the run that nothing disturbed.
    """
    ended, faults = fault.ended, {}
    if ended.code is None:
        faults["late"] = f"it had not ended after {ended.seconds:.0f} s; last: {ended.message}"
    elif ended.code not in fault.codes:
        faults["code"] = f"exit {ended.code}, expected {' or '.join(map(str, fault.codes))}; last: {ended.message}"
    if ended.foreign:
        faults["traceback"] = f"{ended.foreign} ... {ended.message}"
    if ended.leftovers:
        faults["leftovers"] = "; ".join(ended.leftovers)
    if ended.code in (1, 2) and ("error: " not in ended.output or not FIX.search(ended.message)):
        faults["message"] = f"it names no cause, or no way out: {ended.message}"
    right = ended.code == 0 and not faults
    if right and fault.folder is not None and (odd := _other_weights(fault.folder, wanted)):
        faults["weights"] = odd
    if not right and fault.folder is not None:
        again = finished(fault.folder, bench.options())
        if again.code != 0:
            faults["worse"] = f"the same command does not go on (exit {again.code}): {again.message}"
        elif odd := _other_weights(fault.folder, wanted):
            faults["worse"] = f"the same command goes on to other weights: {odd}"
    return Verdict(right and not faults, faults)


def _other_weights(folder: Path, wanted: Path) -> str:
    try:
        found, expected = weights_after(folder / "x", UPDATES), weights_after(wanted / "x", UPDATES)
    except FileNotFoundError as error:
        return str(error)
    odd = [name for name in expected if not torch.equal(found[name], expected[name])]
    return f"{len(odd)} of {len(expected)} weights differ, such as {odd[0]}" if odd else ""

"""Matrix products whose rows do not depend on how many there are, also where they would.

A rollout and its replay send the same rows through a network in batches of different sizes. MKL's kernels for AVX-512
give a row the same bits in any batch of two or more; those for AVX2 choose another order of sums for other sizes, and
log-probabilities of images were off by 4e-4 then. Its strict mode of conditional numerical reproducibility forbids it.
"""

from __future__ import annotations

import os
from pathlib import Path

SETTING = "MKL_CBWR"
STRICT = "AUTO,STRICT"


def keep_rows_apart() -> None:
    """Has MKL be strict where this processor, or MKL_ENABLE_INSTRUCTIONS, offers no AVX-512; whoever has set MKL_CBWR
    has chosen. To be called before the first product: MKL reads it once."""
    if SETTING not in os.environ and not _has_avx512():
        os.environ[SETTING] = STRICT


def _has_avx512() -> bool:
    allowed = os.environ.get("MKL_ENABLE_INSTRUCTIONS", "AVX512")
    try:
        return "AVX512" in allowed.upper() and "avx512f" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux, where torch has no MKL, or an older one
        return False

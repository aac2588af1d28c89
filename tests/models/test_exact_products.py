"""Rows of a product are the same in every batch, also with the kernels of other processors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import rl
import torch

generator = torch.Generator().manual_seed(0)
different = 0
for inner in (16, 32, 64, 100, 128):
    for width in (16, 32, 96):
        rows, columns = (torch.randn(*shape, generator=generator) for shape in ((64, inner), (inner, width)))
        whole = rows @ columns
        different += sum(not torch.equal(whole[:few], rows[:few] @ columns) for few in (2, 3, 4, 8, 16, 20, 33, 48))
print("different:", different)
"""


@pytest.mark.parametrize("instructions", [None, "AVX2", "SSE4_2"])
def test_a_row_does_not_depend_on_how_many_there_are(instructions: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    if instructions:
        environment["MKL_ENABLE_INSTRUCTIONS"] = instructions
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "different: 0\n"


def test_what_a_user_has_chosen_stays() -> None:
    program = "import rl, os; print(os.environ['MKL_CBWR'])"
    environment = {**os.environ, "MKL_CBWR": "COMPATIBLE"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "COMPATIBLE\n"

"""Compile DeepSpeed's CPU communication op once, at installation: the first use would compile it for most of a minute.

On a machine with a GPU nothing is compiled.
"""

from __future__ import annotations

import os
import sys

import torch


def main() -> None:
    if torch.cuda.is_available():
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])  # for ninja
    from deepspeed.accelerator import get_accelerator

    get_accelerator().create_op_builder("ShareMemCommBuilder").load(verbose=False)


if __name__ == "__main__":
    main()

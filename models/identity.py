"""Whether two folders hold the same model, wherever they lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

DESCRIPTIONS = (".json", ".jinja", ".txt", ".model", ".py")
"""Endings of the small files that decide what the weights mean: configurations, tokenizers, templates, code."""
WEIGHTS = (".safetensors", ".bin")
SAMPLED, SAMPLES = 1 << 16, 16
"""Bytes of a sample, and samples of a file of weights, evenly from its beginning to its end."""


def identity(folder: Path) -> str:
    """Hash of the model in `folder`: the small files whole, of the weights their sizes, names and shapes (which are in
    the first bytes) and samples. Training moves every weight, so that another state of the same model is told apart;
    a change of some bytes between the samples is not seen. Costs the same for 16 GB as for one.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or file.suffix not in DESCRIPTIONS + WEIGHTS:
            continue
        digest.update(f"{name.as_posix()} {file.stat().st_size}\n".encode())
        if file.suffix in DESCRIPTIONS:
            digest.update(file.read_bytes())
            continue
        last = max(0, file.stat().st_size - SAMPLED)
        with file.open("rb") as weights:
            for k in range(SAMPLES):
                weights.seek(last * k // (SAMPLES - 1))
                digest.update(weights.read(SAMPLED))
    return digest.hexdigest()

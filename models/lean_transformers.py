"""What text models need of transformers, without the libraries that only its other parts want.

Wherever they are installed, transformers' generation imports scikit-learn (for assisted decoding) and its losses import
SciPy (for object detection), with pandas behind both: a second of every process that loads a network. Nothing here
decodes or trains with transformers' own loops, so while these modules are imported, transformers hears that the two are
not installed, which it allows for. Afterwards it hears the truth again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import transformers.utils


@contextmanager
def _said_to_be_missing(*packages: str) -> Iterator[None]:
    tests = {f"is_{package}_available": getattr(transformers.utils, f"is_{package}_available") for package in packages}
    for name in tests:
        setattr(transformers.utils, name, lambda: False)
    try:
        yield
    finally:
        for name, test in tests.items():
            setattr(transformers.utils, name, test)


with _said_to_be_missing("sklearn", "scipy"):
    from transformers import AttentionInterface, DynamicCache, GenerationMixin, PreTrainedModel

__all__ = ["AttentionInterface", "DynamicCache", "GenerationMixin", "PreTrainedModel"]

"""Values that may lie in the object store."""

from __future__ import annotations

from typing import Any

import ray


def fetched(value: Any, seconds: float | None = None) -> Any:
    """What lies in the object store under `value`, or `value` itself where everything is one process."""
    return ray.get(value, timeout=seconds) if isinstance(value, ray.ObjectRef) else value

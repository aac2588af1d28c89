"""Messages between the processes of a sandbox: their length, and JSON."""

from __future__ import annotations

import json
import os
from typing import Any


def write_frame(descriptor: int, content: dict[str, Any]) -> None:
    written = json.dumps(content).encode()
    write(descriptor, len(written).to_bytes(8, "big") + written)


def write(descriptor: int, written: bytes) -> None:
    view = memoryview(written)
    while view:
        view = view[os.write(descriptor, view) :]


def read_frame(descriptor: int, most: int | None = None) -> dict[str, Any]:
    """Raises EOFError: the other side is gone. ValueError: it is longer than `most`, or no JSON."""
    length = int.from_bytes(_exactly(descriptor, 8), "big")
    if most is not None and length > most:
        raise ValueError(f"more than {most} bytes")
    return json.loads(_exactly(descriptor, length))


def _exactly(descriptor: int, length: int) -> bytes:
    found = bytearray()
    while len(found) < length:
        part = os.read(descriptor, min(length - len(found), 2**20))
        if not part:
            raise EOFError("the other side is gone")
        found += part
    return bytes(found)

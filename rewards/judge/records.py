"""Verdicts by content: what was asked before is read, not asked again, and every answer is written before it is used.

A folder of files with a line for each answer. Every process appends to a file of its own and reads all of them when it
starts, so that a run which goes on, another worker, and a scoring process that was replaced know what was answered. The
key is a hash of the whole request: the model, the text, which the template has made, and the sampling.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

from rewards.judge.verdict import Reply
from rewards.unavailable import Unavailable


def key_of(request: dict[str, Any]) -> str:
    """Of a request as it is sent, with its model."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


class Records:
    def __init__(self, folder: Path | None) -> None:
        """
        Args:
            folder: is made; None keeps answers in memory alone.
        """
        self._own = None if folder is None else folder / f"{uuid.uuid4().hex}.jsonl"
        self._known: dict[str, Reply] = {}
        self.unreadable = 0
        """Lines that are none of ours, such as one that was half written when its process was killed: asked again."""
        for file in sorted(folder.glob("*.jsonl")) if folder is not None else ():
            for line in file.read_bytes().splitlines():
                try:
                    kept = json.loads(line)
                    self._known[str(kept["key"])] = Reply.of_json(kept["reply"])
                except (ValueError, KeyError, TypeError):
                    self.unreadable += 1

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Reply | None:
        return self._known.get(key)

    def put(self, key: str, reply: Reply) -> None:
        """Raises Unavailable: it cannot be written."""
        if self._own is not None:
            line = (json.dumps({"key": key, "reply": reply.as_json()}) + "\n").encode()
            try:
                self._own.parent.mkdir(parents=True, exist_ok=True)
                with self._own.open("ab", buffering=0) as file:
                    size = file.tell()
                    if file.write(line) != len(line):
                        os.ftruncate(file.fileno(), size)
                        raise OSError("the disk took only a part of it")
            except OSError as error:
                raise Unavailable(
                    f"a verdict cannot be kept in {self._own}: {error}. Nothing is used that is not kept: make room "
                    f"there, or set reward.terms.NAME.args.records"
                ) from error
        self._known[key] = reply

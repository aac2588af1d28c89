"""What code a run was made with."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "deepspeed", "ray", "peft")


def code_state() -> dict[str, Any]:
    """Commit, uncommitted changes, versions."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": _git("status", "--porcelain"),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def _git(*arguments: str) -> str | None:
    root = Path(__file__).parent
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None

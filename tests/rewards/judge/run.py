"""The quickstart of texts, small, with a real judge as its only reward, as a command of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import psutil

from tests.rewards.judge.conftest import ROOT

MARK = "JUDGE_TEST"
TEMPLATE = Path(__file__).parent / "grid.jinja"
SMALL = (
    "recipe=quickstart",
    "reward.terms.answer=null",
    "reward.terms.judge.function=judge",
    f"reward.terms.judge.args.template={TEMPLATE}",
    "reward.terms.judge.args.constrained=true",
    "reward.terms.judge.args.scores={1: 0, 2: 0.25, 3: 0.5, 4: 1}",
    "reward.terms.judge.args.patience_seconds=300",
    "reward.terms.judge.args.concurrency=2",
    "reward.terms.judge.timeout_seconds=400",
    "reward.solved_at=null",
    "algorithm.anchor=0",
    "data.train.size=64",
    "evaluation.every=0",
    "rollout.prompts_per_update=6",
    "rollout.prompts_per_ticket=3",
    "run.updates=3",
    "run.checkpoint_every=3",
    "rollout.timeout_seconds=900",
    "cluster.cpus=0.25",
    "cluster.threads=1",
    "run.resume=false",
)


class Run:
    def __init__(self, folder: Path, name: str, *overrides: str, environment: dict[str, str] | None = None) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = folder / name
        self._rows = self.folder / "metrics.jsonl"
        words = [*SMALL, f"run.folder={folder}", f"run.name={name}", *overrides]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rl.cli", "train", *words],
            cwd=ROOT,
            env={**os.environ, MARK: self.mark, "COLUMNS": "500", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._rows.read_text().splitlines()] if self._rows.exists() else []

    def reaches(self, updates: int, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while len(self.rows) < updates:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "too slow"
            time.sleep(0.05)

    def ends(self, seconds: float = 300) -> str:
        """What it said; it was right, and nothing of it lives ten seconds later."""
        try:
            said, _ = self.process.communicate(timeout=seconds)
        finally:
            if self.process.poll() is None:
                self.process.kill()
        assert self.process.returncode == 0, said
        deadline = time.monotonic() + 10
        while left := self.processes():
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
        return said

    def processes(self, containing: str = "") -> list[psutil.Process]:
        """Of the run, those whose command line has some words."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE
                if ours and containing in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def weights(self) -> bytes:
        """What the last checkpoint publishes."""
        return (self.folder / "checkpoints/u000003/weights-000003.safetensors").read_bytes()

    def verdicts(self) -> list[str]:
        return [line for file in (self.folder / "judge").glob("*.jsonl") for line in file.read_text().splitlines()]

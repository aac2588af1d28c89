"""`denoiserl` as its user runs it: arguments in, exit code and output out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster import placement
from rl import cli


@dataclass
class Finished:
    code: int
    output: str
    """Standard output and error."""
    used_ray: bool


class CommandLine:
    """Runs `denoiserl` in this process, as `rl.cli.main` does, so that importing torch is paid once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capfd = capfd

    def __call__(self, *arguments: str | Path) -> Finished:
        self.capfd.readouterr()
        used: list[str] = []

        def noted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                used.append(function.__name__)
                return function(*arguments, **options)

            return call

        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["denoiserl", *map(str, arguments)])
            patch.setattr(ray, "init", noted(ray.init))
            patch.setattr(placement, "placement_group", noted(placement.placement_group))  # on the shared cluster
            with pytest.raises(SystemExit) as caught:
                cli.main()
        captured = self.capfd.readouterr()
        return Finished(int(caught.value.code or 0), " ".join((captured.out + captured.err).split()), bool(used))

    def refuses(self, *arguments: str | Path) -> str:
        """The message of a request that must end before anything has been started."""
        finished = self(*arguments)
        assert finished.code == 2, finished.output
        assert not finished.used_ray, finished.output
        assert "Traceback" not in finished.output
        assert finished.output.count("error: ") == 1
        return finished.output

    def fails(self, *arguments: str | Path) -> str:
        """The message of a run that must have started and failed."""
        finished = self(*arguments)
        assert finished.code == 1, finished.output
        assert finished.used_ray
        assert "Traceback" not in finished.output
        assert finished.output.count("error: ") == 1
        return finished.output

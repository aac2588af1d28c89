"""Everyday names of ours in the user's folder and on PYTHONPATH: harmless, or named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rl.support.training import SMALL

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
PACKAGES = ("cluster", "configs", "models", "rollout", "tests")
PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import rl
del sys.path[0]  # as a console script has it: the current folder and PYTHONPATH come before the installation
from rl.cli import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository of the user's: a module `rewards`, and packages, none of which may be imported."""
    (tmp_path / "rewards.py").write_text("raise RuntimeError('the user's rewards were imported')")
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('the user's {name} was imported')")
    (tmp_path / "my_rewards.py").write_text(
        "def ones(completions, **kwargs):\n    return [1.0 * c.count('1') for c in completions]"
    )
    return tmp_path


def denoiserl(folder: Path, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """In `folder`, which is on PYTHONPATH too."""
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", PROGRAM, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds)


def test_a_command_takes_ours(folder: Path) -> None:
    done = denoiserl(folder, "config", "recipe=quickstart")
    assert done.returncode == 0, done.stderr
    assert "name: quickstart" in done.stdout


def test_a_reward_in_a_file_of_such_a_name_is_told_the_clash(folder: Path) -> None:
    done = denoiserl(folder, "train", "recipe=quickstart", "reward.terms.answer.function=rewards.short")
    assert done.returncode == 2, done.stderr
    assert (
        "rewards is a package of DenoiseRL: give a module of yours another name, such as my_rewards.py" in done.stderr
    )


def test_another_rl_is_refused_before_anything_starts(folder: Path) -> None:
    (folder / "rl").mkdir()
    (folder / "rl/__init__.py").write_text("raise RuntimeError('the user's rl was imported')")
    done = denoiserl(folder, "train", "recipe=quickstart")
    assert done.returncode == 2, done.stderr
    assert f"{folder / 'rl'} has the name of a package of DenoiseRL" in done.stderr


@pytest.mark.slow
def test_a_run_on_ray_takes_ours_in_every_process(folder: Path) -> None:
    words = [*SMALL, "reward.terms.answer.function=my_rewards.ones", "run.updates=1", "run.checkpoint_every=0"]
    done = denoiserl(folder, "train", *words, f"run.folder={folder / 'runs'}", seconds=280)
    assert done.returncode == 0, done.stdout + done.stderr

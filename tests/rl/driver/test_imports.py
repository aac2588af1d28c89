"""What each process of a run imports, so that none starts to import what only another one needs."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import pytest

CONFIGURATION = """
from configs.compose import compose
composed = compose(["recipe=quickstart", "run.name=x"])
config = composed.config
"""
ROLES = {
    "driver": (
        "from rl.driver.train import planned; planned(composed)",
        {"torch", "deepspeed", "datasets", "diffusers", "peft", "sklearn", "pandas", "accelerate"},
    ),
    "reward": (
        "from rl.driver.actors import RewardActor; RewardActor(config)",
        {"torch", "transformers", "deepspeed", "datasets", "diffusers", "matplotlib"},
    ),
    "reward_child": (
        "import rewards.scoring.child",
        {"torch", "transformers", "ray", "numpy", "pyarrow", "PIL"},
    ),
    "rollout": (
        "from rl.driver.actors import RolloutActor; RolloutActor(config, 1).ready()",
        {"deepspeed", "datasets", "diffusers", "peft", "sklearn", "scipy", "pandas", "trl", "rl.learner.learner"},
    ),
    "learner": (
        "from rl.driver.actors import LearnerActor; LearnerActor(config, 0, 1)\n"
        "import rl.learner.learner, deepspeed, rl.modality.text",
        {"datasets", "diffusers", "peft", "sklearn", "scipy", "trl", "matplotlib"},
    ),
    "algorithms": (
        "from rl.commands.catalogue import catalogue; catalogue()",
        {"torch", "transformers", "ray", "pyarrow"},
    ),
}


@functools.cache
def imported(program: str) -> set[str]:
    report = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{CONFIGURATION}\n{program}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("role", ROLES)
def test_a_process_imports_nothing_that_only_another_one_needs(role):
    program, forbidden = ROLES[role]
    assert not imported(program) & forbidden


def test_a_learner_is_seen_to_import_torch():
    """Negative control: what is forbidden above would show."""
    assert "torch" in imported(ROLES["learner"][0])


def test_hidden_libraries_can_be_imported_afterwards():
    done = "import models.lean_transformers, transformers.utils as u; print('sklearn' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; {done}; import sklearn; print(u.is_sklearn_available())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["False", "True"]

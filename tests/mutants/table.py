"""Which modules are mutated and which tests must notice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Target:
    group: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    """Fast ones that test it directly."""
    wider: tuple[str, ...] = ()
    """Only run against what survives those."""


KERNELS = "tests/rollout/images/kernels"
TARGETS = (
    Target(
        "objectives",
        ("rl.algorithm.objectives",),
        tuple(
            f"tests/rl/algorithm/test_{name}.py"
            for name in (
                "objectives",
                "ratio_objectives",
                "named_objectives",
                "bound_objectives",
                "gaussian_objectives",
                "kl",
                "nft",
            )
        ),
        ("tests/rl/likelihood/test_policy_gradient_bias.py", "tests/rl/learner/test_value_bias.py"),
    ),
    Target(
        "advantages",
        ("rl.algorithm.advantages",),
        tuple(
            f"tests/rl/algorithm/test_{name}.py"
            for name in ("advantages", "update_advantages", "step_advantages", "credit")
        ),
        ("tests/rl/algorithm/test_branches.py", "tests/rl/algorithm/test_named_objectives.py"),
    ),
    Target(
        "denominators",
        ("rl.algorithm.denominators",),
        tuple(f"tests/rl/algorithm/test_{name}.py" for name in ("denominators", "objectives", "ratio_objectives")),
        ("tests/rl/likelihood/test_text_rows.py", "tests/rl/algorithm/test_bound_objectives.py"),
    ),
    Target(
        "reveal",
        ("rollout.text.reveal",),
        tuple(
            f"tests/rollout/text/test_{name}.py"
            for name in ("reveal", "reveal_counts", "reveal_ties", "reveal_probability")
        ),
        ("tests/rl/likelihood/test_golden_traces.py",),
    ),
    Target(
        "kernels",
        tuple(
            f"rollout.images.kernels.{name}" for name in ("corruption", "gaussian", "levels", "transition", "window")
        ),
        tuple(
            f"{KERNELS}/test_{name}.py"
            for name in ("corruption", "gaussian", "levels", "schedulers", "transition", "window", "marginals")
        ),
        ("tests/rl/algorithm/test_gaussian_objectives.py", "tests/rl/likelihood/test_inversion.py"),
    ),
    Target(
        "schedule",
        ("rl.driver.schedule", "rl.data.tickets"),
        ("tests/rl/driver/test_schedule.py",),
        ("tests/rl/driver/test_evaluation_rollouts.py",),
    ),
    Target(
        "scorer",
        ("rewards.scoring.combination", "rewards.scoring.term_call"),
        (
            "tests/rewards/test_scorer_calls.py",
            "tests/rewards/test_scorer.py",
            "tests/rewards/scoring/test_combination.py",
        ),
        ("tests/rewards/test_trl.py", "tests/rewards/test_worker.py", "tests/rl/run/test_failures.py"),
    ),
)


def source_of(module: str) -> Path:
    return ROOT / Path(*module.split(".")).with_suffix(".py")

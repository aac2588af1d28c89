"""What the faulty functions of the other tests leave out: floods of output, generators of others, kinds of numbers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewards.options import RewardOptions, RewardTerm
from rewards.scoring.printed import LIMIT_BYTES
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import ScoreRequest

HERE = "tests.rewards.scoring.test_misbehaviour"


def floods(completions: list[str], **_: Any) -> list[float]:
    for _line in range(100):
        print("x" * 2**20)
    return [1.0] * len(completions)


def reseeds(completions: list[str], **_: Any) -> list[float]:
    random.seed(0)
    np.random.seed(0)
    return [random.random() for _ in completions]


def numbers(completions: list[str], **_: Any) -> np.ndarray:
    kinds: list[Any] = [np.float32(0.5), np.int64(2), True, np.bool_(False), 3]
    return np.array(kinds[: len(completions)], dtype=object)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    names = ("floods", "reseeds", "numbers")
    options = RewardOptions(terms={name: RewardTerm(f"{HERE}.{name}") for name in names}, timeout_seconds=60.0)
    scorer = Scorer(options, tmp_path_factory.mktemp("printed") / "reward-0.txt")
    yield scorer
    scorer.stop()


def test_nobody_is_harmed(scorer: Scorer) -> None:
    random.seed(5)
    states = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    scores = scorer.score(ScoreRequest(["p"] * 5, ["c"] * 5))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # type: ignore[index]
    assert scores.failures == []
    assert scores.terms["floods"].tolist() == [1.0] * 5
    assert scores.terms["numbers"].tolist() == [0.5, 2.0, 1.0, 0.0, 3.0]
    printed: Path = scorer._process._printed.path  # type: ignore[union-attr]
    assert LIMIT_BYTES / 2 < printed.stat().st_size < 1.1 * LIMIT_BYTES  # of a hundred megabytes

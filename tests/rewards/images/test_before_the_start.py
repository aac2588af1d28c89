"""Missing weights end a run before anything is trained, and say what to do; what needs none is scored as ever."""

from __future__ import annotations

import numpy as np
import pytest

from rewards.options import RewardOptions, RewardTerm
from rewards.registry import RewardError
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import ScoreRequest
from tests.rewards.reading.drawing import drawn, prompt

pytestmark = pytest.mark.processes


def test_missing_weights_and_text_in_the_real_process(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    terms = {"text": RewardTerm(function="ocr"), "liked": RewardTerm(function="pick_score", weight=0.0)}
    scorer = Scorer(RewardOptions(terms=terms, timeout_seconds=60.0))
    chosen = ["harbor", "Station"]
    pictures = [drawn(word, 128, 24, centred=True) for word in chosen]
    request = ScoreRequest(prompts=[*map(prompt, chosen), "no text"], completions=[*pictures, pictures[0]], columns={})
    try:
        with pytest.raises(
            RewardError, match=r"reward.terms.liked: .*failed \(exception\): .*hf download yuvalkirstain/"
        ):
            scorer.try_out(request)
        scores = scorer.score(request)
    finally:
        scorer.stop()
    np.testing.assert_array_equal(scores.total, [1.0, 1.0, np.nan])
    kinds = {(failure.term, failure.index): failure.kind for failure in scores.failures}
    assert kinds == {("liked", 0): "exception", ("liked", 1): "exception", ("liked", 2): "exception"} | {
        ("text", 2): "not_applicable"
    }

"""Functions written for TRL plug in unchanged and give what TRL's trainer would get from them."""

import numpy as np

from rewards.options import RewardOptions, RewardTerm
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import ScoreRequest


def test_trl_functions_are_scored_together():
    scorer = Scorer(
        RewardOptions(
            terms={
                "accuracy": RewardTerm(function="trl.rewards.accuracy_reward", conversational=True),
                "format": RewardTerm(function="trl.rewards.think_format_reward", weight=0.1, conversational=True),
                "length": RewardTerm(function="tests.rewards.faulty_rewards.punish_length", weight=2.0),
            }
        )
    )
    completions = [r"<think>1/3</think> \boxed{\frac{1}{3}}", r"\boxed{\frac{1}{2}}", r"<think></think>\boxed{7}"]
    request = ScoreRequest(
        prompts=["What is a third?"] * 3,
        completions=completions,
        completion_ids=[[1], [1, 2, 3], [1] * 9],
        columns={"solution": [r"\frac{1}{3}", r"\frac{1}{3}", "nothing that parses"], "prompt": ["the same"] * 3},
    )
    try:
        scores = scorer.score(request)
    finally:
        scorer.stop()
    np.testing.assert_array_equal(scores.terms["accuracy"], [1.0, 0.0, np.nan])  # None: not applicable
    np.testing.assert_array_equal(scores.terms["format"], [1.0, 0.0, 1.0])
    np.testing.assert_array_equal(scores.terms["length"], [0.0, -0.5, -1.0])
    np.testing.assert_allclose(scores.total, [1.1, -1.0, 0.1 - 2.0])
    assert scores.failures == []

"""The worker as what it is for: a Ray actor that must outlive every function it runs."""

import numpy as np
import pytest
import ray

from rewards.options import RewardOptions, RewardTerm
from rewards.scoring.scores import ScoreRequest
from rewards.scoring.worker import RewardWorker
from tests.rewards.test_scorer import ended, wait_until

TIMEOUT = 1.0


def start_worker(**terms):
    options = RewardOptions(
        terms={name: RewardTerm(function=function) for name, function in terms.items()}, timeout_seconds=TIMEOUT
    )
    return ray.remote(RewardWorker).options(num_cpus=1).remote(options)


def test_bad_samples_cost_themselves_and_the_worker_stays(cluster):
    worker = start_worker(faulty="tests.rewards.faulty_rewards.faulty")
    ray.get(worker.ready.remote(), timeout=60)
    completions = ["good", "hang", "raise", "good", "nan", "kill", "good"]
    request = ScoreRequest(prompts=["p"] * 7, completions=completions)
    scores = ray.get(worker.score.remote(request), timeout=60)
    np.testing.assert_array_equal(scores.total, [1, np.nan, np.nan, 1, np.nan, np.nan, 1])
    assert [(failure.index, failure.kind, failure.completion) for failure in scores.failures] == [
        (1, "timeout", "hang"),
        (2, "exception", "raise"),
        (4, "not_finite", "nan"),
        (5, "crash", "kill"),
    ]
    again = ray.get(worker.score.remote(ScoreRequest(["p"] * 2, ["good", "nan"])), timeout=60)
    np.testing.assert_array_equal(again.total, [1, np.nan])
    counts = ray.get(worker.failure_counts.remote(), timeout=10)
    assert counts == {"timeout": 1, "exception": 1, "not_finite": 2, "crash": 1}
    ray.kill(worker)


def test_a_wrong_name_shows_before_training(cluster):
    worker = start_worker(task="reasoning_gim")
    with pytest.raises(ray.exceptions.RayTaskError, match="nearest registered names: reasoning_gym"):
        ray.get(worker.ready.remote(), timeout=60)
    ray.kill(worker)


def test_the_scoring_process_ends_with_a_killed_actor(cluster):
    worker = start_worker(pid="tests.rewards.faulty_rewards.process_id", faulty="tests.rewards.faulty_rewards.faulty")
    scores = ray.get(worker.score.remote(ScoreRequest(["p"], ["good"])), timeout=60)
    process_id = int(scores.terms["pid"][0])
    assert not ended(process_id)
    ray.kill(worker)
    wait_until(lambda: ended(process_id), 20)

"""Load, sample, score, advantages, log-probabilities: what each gives is what a run has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from configs.algorithm_options import AlgorithmOptions
from rl import advantages, compose, load_policy, log_probs, problems, sample, score
from rl.algorithm.advantages import AdvantageEstimator
from rl.api.policy import Policy
from rl.api.sampling import Samples
from rollout.options import SamplerOptions


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(compose("quickstart"), device="cpu")


@pytest.fixture(scope="module")
def samples(policy: Policy) -> Samples:
    return sample(policy, problems("quickstart", count=3), count=4, seed=1)


@pytest.fixture(scope="module")
def scenes() -> Policy:
    return load_policy(compose("quickstart_image", "rollout.denoising.steps=4"), device="cpu")


@pytest.fixture(scope="module")
def pictures(scenes: Policy) -> Samples:
    return sample(
        scenes, problems("quickstart_image", count=2), count=2, seed=1, sampler={"kernel": "precise"}, steps=True
    )


def test_a_checkpoint_a_configuration_and_an_embedded_name_are_one_policy(policy: Policy):
    embedded = load_policy("tiny/block", device="cpu")
    assert embedded.kind == "text"
    assert load_policy("tiny/scenes", device="cpu").kind == "image"
    for one, other in zip(policy.network.parameters(), embedded.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert (policy.version, policy.device.type) == (0, "cpu")
    with pytest.raises(ValueError, match="update=3 is for run folders"):
        load_policy("tiny/block", update=3)
    with pytest.raises(ValueError, match="choose fp32 or bf16"):
        load_policy("tiny/block", precision="fp8")
    with pytest.raises(ValueError, match="no such folder"):
        load_policy("no such/folder/there")
    with pytest.raises(ValueError, match="has no codec"):
        _ = policy.codec


def test_samples_are_a_function_of_their_arguments(policy: Policy, samples: Samples):
    again = sample(policy, problems("quickstart", count=3), count=4, seed=1)
    assert again.texts == samples.texts
    assert sample(policy, problems("quickstart", count=3), count=4, seed=2).texts != samples.texts
    fewer = sample(policy, problems("quickstart", count=2), count=4, seed=1)
    assert fewer.texts == samples.texts[:2]
    assert [len(group) for group in samples.texts] == [4, 4, 4]
    assert len(samples) == 3
    assert [t.group_size for t in samples.trajectories] == [4, 4, 4]


def test_any_sampler(policy: Policy):
    greedy = sample(policy, "1 2 3 4", count=2, sampler="greedy")
    assert greedy.texts[0][0] == greedy.texts[0][1]
    hot = sample(policy, ["1 2 3 4"], sampler={"temperature": 2.0, "count": "threshold", "max_new_tokens": 8})
    assert hot.sampler.temperature == 2.0
    assert hot.sampler.max_new_tokens == 8
    whole = SamplerOptions(max_new_tokens=4)
    assert sample(policy, "1", sampler=whole).sampler is whole
    for wrong, message in [("warm", "'greedy', a mapping"), ({"heat": 1}, "options of sampler: order"), (3, "not int")]:
        with pytest.raises(ValueError, match=message):
            sample(policy, "1", sampler=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at least one prompt|no prompt"):
        sample(policy, [])
    with pytest.raises(ValueError, match="count=0"):
        sample(policy, "1", count=0)


def test_a_replay_by_the_same_weights_is_the_record(policy: Policy, samples: Samples):
    scored = log_probs(policy, samples)
    assert scored.exact
    for grid, trajectory in zip(scored.per_decision(), samples.trajectories, strict=True):
        found = grid.detach().numpy()
        assert np.array_equal(found[trajectory.mask], trajectory.logp[trajectory.mask])
        assert np.isnan(found[~trajectory.mask]).all()
    sums = [
        trajectory.logp[sample][trajectory.mask[sample]].sum()
        for trajectory in samples.trajectories
        for sample in range(4)
    ]
    torch.testing.assert_close(torch.cat(scored.per_sample()), torch.tensor(np.array(sums)), rtol=1e-5, atol=1e-5)
    cut = log_probs(policy, samples, micro_batch_tokens=1)
    assert len(cut.batches) == len(cut.rows)
    torch.testing.assert_close(torch.cat(cut.per_sample()), torch.cat(scored.per_sample()), rtol=1e-5, atol=1e-5)
    trajectories = log_probs(policy, samples.trajectories)
    assert torch.equal(trajectories.values, scored.values)


def test_other_likelihoods_and_given_answers(policy: Policy, samples: Samples):
    averaged = log_probs(policy, samples, {"kind": "elbo", "draws": 2})
    with pytest.raises(ValueError, match="scores a decision more than once"):
        averaged.per_decision()
    assert [len(group) for group in averaged.per_sample()] == [4, 4, 4]
    answers = log_probs(policy, [["1 2 3 4", "4 3 2 1"], ["1"]], "elbo", prompts=["a", "b"])
    assert [len(group) for group in answers.per_sample()] == [2, 1]
    assert log_probs(policy, ["1 2"], "elbo", prompts="a").values.requires_grad
    with torch.no_grad():
        assert not log_probs(policy, ["1 2"], "elbo", prompts="a").values.requires_grad
    for arguments, message in [
        ({"samples": ["1 2"], "likelihood": "replay", "prompts": "a"}, "use likelihood='elbo'"),
        ({"samples": ["1 2"], "likelihood": "elbo"}, "need their prompts"),
        ({"samples": ["1 2"], "likelihood": "elbo", "prompts": ["a", "b"]}, "1 answers for 2 prompts"),
        ({"samples": samples, "likelihood": "reward_gradient"}, "use elbo"),
        ({"samples": samples, "likelihood": {"kind": "elbo", "draws": 0}}, "must be at least 1"),
        ({"samples": samples, "likelihood": "likely"}, "likelihood"),
        ({"samples": []}, "nothing to score"),
    ]:
        with pytest.raises(ValueError, match=message):
            log_probs(policy, **arguments)


def test_rewards_by_name_by_function_and_by_configuration(samples: Samples):
    def length(completions, log_metric, **kwargs):
        log_metric("seen", len(completions))
        return [float(len(completion)) for completion in completions]

    own = score(length, samples)
    assert own.metrics == {"seen": sum(map(len, samples.texts))}
    assert own.total.tolist() == [[float(len(text)) for text in group] for group in samples.texts]
    task = score(compose("quickstart"), samples)
    assert set(np.unique(task.total)) <= {0.0, 1.0}
    assert np.array_equal(task.solved, task.total)
    several = score({"reasoning_gym": 1.0, "tokens_per_round": 0.5}, samples)
    assert set(several.terms) == {"reasoning_gym", "tokens_per_round"}
    assert several.weights["tokens_per_round"] == 0.5
    alone = score("math", [r"\boxed{2}", "3"], columns={"answer": ["2", "2"]})
    assert alone.total.tolist() == [[1.0, 0.0]]
    assert alone.solved is None  # a bare name does not say what is solved
    with pytest.raises(ValueError, match="nearest registered names: math"):
        score("maths", samples)
    with pytest.raises(ValueError, match="2 values for 3 groups"):
        score(length, samples, columns={"answer": ["1", "2"]})


def test_a_failure_is_nan_and_teaches_nothing(samples: Samples):
    def strict(completions, **kwargs):
        if len(completions) > 1:
            raise ValueError("one at a time")
        return [1.0 / (completions[0] != samples_text)]

    samples_text = samples.texts[0][0]
    rewards = score(strict, samples)
    assert np.isnan(rewards.total[0, 0])
    assert rewards.failures[0].kind == "exception"
    worth = advantages(np.where(np.isnan(rewards.total), np.nan, np.arange(12.0).reshape(3, 4)))
    assert np.isnan(worth[0, 0])
    assert np.isfinite(worth[1:]).all()


def test_advantages_are_the_loops():
    rewards = np.array([[0.0, 1.0, 1.0, np.nan], [1.0, 1.0, 1.0, 1.0], [0.2, 0.4, 0.0, 1.0]])
    for options in ({}, {"advantage": "leave_one_out"}, {"advantage": "batch"}, {"advantage": "softmax"}):
        chosen = (
            AlgorithmOptions()
            if not options
            else compose("quickstart", f"algorithm.advantage={options['advantage']}").config.algorithm
        )
        expected = AdvantageEstimator(chosen)(list(rewards), ["a", "b", "c"])
        found = advantages(rewards, options)
        for row, (advantage, valid) in zip(found[[0, 2]], [expected[0], expected[2]], strict=True):
            assert np.array_equal(row[valid], advantage[valid])
            assert np.isnan(row[~valid]).all()
        if options.get("advantage") != "batch":
            assert np.isnan(found[1]).all()
    assert np.isfinite(advantages(rewards, {"filter_zero_variance": False})[1]).all()
    for wrong, message in [({"advantage": "siblings"}, "trees"), ({"advantage": "constant"}, "without rewards")]:
        with pytest.raises(ValueError, match=message):
            advantages(rewards, wrong)
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        advantages(rewards[0])
    with pytest.raises(ValueError, match=r"what rl.score returns"):
        advantages(rewards, {"normalise_terms": "zscore"})


def test_texts_are_shown_round_by_round(samples: Samples):
    states = samples.states(1, 2)
    assert set(states[0]) == {"░"}
    assert states[-1] == samples.texts[1][2]
    masks = [state.count("░") for state in states]
    assert masks[:-1] == sorted(masks[:-1], reverse=True)
    html = samples.animation(1, 2)._repr_html_()
    assert html.startswith("<img")
    assert "image/gif" in html
    with pytest.raises(ValueError, match="are texts"):
        _ = samples.images


def test_images_by_the_same_functions(scenes: Policy, pictures: Samples, tmp_path):
    assert pictures.images[0][0].shape == (32, 32, 3)
    assert len(pictures.states()) == 5
    assert np.array_equal(pictures.states()[-1], pictures.images[0][0])
    pictures.animation().save(tmp_path / "a.gif")
    assert (tmp_path / "a.gif").read_bytes()[:3] == b"GIF"
    rewards = score("scene", pictures)
    assert rewards.total.shape == (2, 2)
    replayed = log_probs(scenes, pictures, "replay")
    for grid, trajectory in zip(replayed.per_decision(), pictures.trajectories, strict=True):
        assert np.abs(grid.detach().numpy() - trajectory.logp)[trajectory.mask].max() <= 1e-5 * 3072**0.5
    other = sample(scenes, problems("quickstart_image", count=1), sampler={"kernel": "ddim", "eta": 1.0})
    log_probs(scenes, other, "replay")
    with pytest.raises(ValueError, match="several samplers"):
        log_probs(scenes, [*other.trajectories, *pictures.trajectories], "replay")
    elbo = log_probs(scenes, pictures)  # that of the recipe
    assert [len(group) for group in elbo.per_sample()] == [2, 2]
    assert elbo.trajectories[0].mask.shape == (2, 1)  # the finished image is the one decision
    answers = log_probs(scenes, [pictures.images[0]], "elbo", prompts=pictures.prompts[:1])
    assert answers.per_sample()[0].shape == (2,)
    with pytest.raises(ValueError, match="sample with steps=True"):
        other.states()
    with pytest.raises(ValueError, match="are images"):
        _ = pictures.texts

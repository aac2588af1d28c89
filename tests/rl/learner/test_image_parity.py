"""The log-probability recorded in a rollout is the one that the learner recomputes, for every kernel and prediction."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch

from configs.algorithm_options import KlEstimator, LikelihoodOptions, Ratio
from models.options import Precision
from rl.likelihood.image_replay import ImageReplay
from rollout.noise import Purpose, normal
from rollout.options import (
    DenoisingOptions,
    KernelKind,
    LatentPrecision,
    Reduction,
    WindowKind,
    WindowOptions,
)
from rollout.trajectory import TrajectoryError, contract, read_parquet, write_parquet
from tests.rl.support.image_rollouts import (
    ADAPTERS,
    CPU,
    largest_gap,
    pipeline_folder,
    replayed,
    roll_out,
    worker_of,
)

ETA = {
    KernelKind.ddim: 1.0,
    KernelKind.precise: 1.5,
    KernelKind.cps: 0.8,
    KernelKind.flow_sde: 0.7,
    KernelKind.dance_sde: 0.3,
}
POLICIES = {
    "epsilon": ("sd", "epsilon"),
    "v": ("sd", "v_prediction"),
    "flow": ("sd3", "epsilon"),
    "sdxl": ("sdxl", "epsilon"),
}
TOLERANCE = 1e-5
OPTIONS = DenoisingOptions(steps=5)
CHANGED = DenoisingOptions(steps=5, kernel=KernelKind.flow_sde, eta=0.7)


@pytest.fixture(scope="session")
def workers(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipelines")
    return {name: worker_of(pipeline_folder(root, *policy)) for name, policy in POLICIES.items()}


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("kernel", ETA)
@pytest.mark.parametrize("policy", POLICIES)
def test_replay_is_what_the_rollout_recorded(workers, policy, kernel, guidance):
    worker = workers[policy]
    options = DenoisingOptions(steps=5, kernel=kernel, eta=ETA[kernel], guidance=guidance)
    trajectories, _ = roll_out(worker, options)
    assert all(t.mask.sum() == 4 * 4 for t in trajectories)  # every step but the last, of four samples
    for max_tokens in (10**6, 200):
        assert largest_gap(trajectories, replayed(worker.policy, trajectories, options, max_tokens)) <= TOLERANCE


def test_embedded_guidance(tmp_path):
    folder = pipeline_folder(tmp_path, "flux")
    worker = worker_of(folder)
    options = DenoisingOptions(steps=3, guidance=3.5, height=32, width=32)
    trajectories, _ = roll_out(worker, options)
    assert largest_gap(trajectories, replayed(worker.policy, trajectories, options)) <= TOLERANCE
    other = replace(options, guidance=1.0)
    changed = [dataclasses.replace(t, sampler=contract(other)) for t in trajectories]
    assert largest_gap(changed, replayed(worker.policy, changed, other)) > 100 * TOLERANCE


@pytest.mark.parametrize("storage", LatentPrecision)
def test_latents_are_scored_after_rounding(workers, storage):
    worker, options = workers["flow"], replace(OPTIONS, storage=storage)
    trajectories, _ = roll_out(worker, options)
    assert largest_gap(trajectories, replayed(worker.policy, trajectories, options)) <= TOLERANCE


def test_bf16_network(tmp_path, record_property):
    """Both sides run the same bf16 network; what is left comes from the order of its sums."""
    worker = worker_of(pipeline_folder(tmp_path, "sd3"), precision=Precision.bf16)
    options = replace(OPTIONS, log_prob=Reduction.mean)
    trajectories, _ = roll_out(worker, options)
    gap = largest_gap(trajectories, replayed(worker.policy, trajectories, options, 200))
    record_property("bf16_gap_nats_per_element", gap)
    assert gap <= 5e-2


def test_adapters_and_gradient_checkpointing(tmp_path):
    worker = worker_of(pipeline_folder(tmp_path, "sd3"), lora=ADAPTERS, gradient_checkpointing=True)
    for name, parameter in worker.policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    trajectories, _ = roll_out(worker, OPTIONS)
    worker.policy.train()
    assert largest_gap(trajectories, replayed(worker.policy, trajectories, OPTIONS)) <= TOLERANCE


@pytest.mark.parametrize(
    "window",
    [
        WindowOptions(kind=WindowKind.fixed, start=1, size=2),
        WindowOptions(kind=WindowKind.random, size=2),
        WindowOptions(kind=WindowKind.sliding, size=1, every=1),
        WindowOptions(trained_fraction=0.5),
    ],
)
def test_windows(workers, window):
    worker, options = workers["flow"], replace(OPTIONS, window=window)
    trajectories, _ = roll_out(worker, options)
    size = 2 if window.kind is WindowKind.all else window.size
    masks = {t.mask.tobytes() for t in trajectories}
    assert len(masks) == 1  # one window for the whole ticket
    mask = trajectories[0].mask
    assert (mask.sum(1) == size).all()
    assert mask[:, [0, -1]].all()  # nothing is stored before the first or behind the last trained step
    assert trajectories[0].latents.shape[1] == mask.shape[1] + 1
    assert largest_gap(trajectories, replayed(worker.policy, trajectories, options)) <= TOLERANCE


def test_guidance_on_some_steps(workers):
    worker = workers["flow"]
    options = replace(OPTIONS, guidance=4.0, guidance_from=1, guidance_until=3)
    trajectories, _ = roll_out(worker, options)
    assert trajectories[0].guided.tolist() == [False, True, True, False]
    assert largest_gap(trajectories, replayed(worker.policy, trajectories, options)) <= TOLERANCE
    everywhere = [dataclasses.replace(t, guided=np.ones_like(t.guided)) for t in trajectories]
    assert largest_gap(everywhere, replayed(worker.policy, everywhere, options)) > 100 * TOLERANCE


def test_a_sample_does_not_depend_on_its_batch(workers):
    worker = workers["flow"]
    together, pictures = roll_out(worker, OPTIONS)
    apart, _ = roll_out(worker, replace(OPTIONS, samples_per_forward=3))
    alone, own = roll_out(worker, OPTIONS, captions=("a dog",))
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_array_equal(one.latents, other.latents)
    np.testing.assert_array_equal(together[0].latents, alone[0].latents)
    np.testing.assert_array_equal(pictures.outputs[:4], own.outputs)


def test_siblings_share_their_first_noise_only_if_asked(workers):
    worker = workers["flow"]
    (apart, _), _ = roll_out(worker, OPTIONS)
    (shared, other), _ = roll_out(worker, replace(OPTIONS, same_noise=True))
    assert (apart.latents[0, 0] != apart.latents[1, 0]).any()
    assert (shared.latents[:, 0] == shared.latents[0, 0]).all()
    assert (shared.latents[0, 1] != shared.latents[1, 1]).any()
    assert (shared.latents[0, 0] != other.latents[0, 0]).any()
    _, drawn = roll_out(worker, replace(OPTIONS, same_noise=True).greedy())
    assert (drawn.outputs[0] != drawn.outputs[1]).any()  # or an evaluation would see one image several times


def test_trajectories_survive_a_file(workers, tmp_path):
    trajectories, _ = roll_out(workers["flow"], replace(OPTIONS, guidance=2.0))
    write_parquet(trajectories, tmp_path / "t.parquet")
    again = read_parquet(tmp_path / "t.parquet")
    for one, other in zip(trajectories, again, strict=True):
        for name in one.array_fields():
            first, second = getattr(one, name), getattr(other, name)
            if first is None:
                assert second is None
            else:
                np.testing.assert_array_equal(first, second)
                assert first.dtype == second.dtype


# Controls: each defect breaks parity by far more than the tolerance.


def gap_under(worker, options: DenoisingOptions, **changes) -> float:
    """Replays under changed options what was recorded under the given ones, past the contract check."""
    trajectories, _ = roll_out(worker, options)
    other = replace(options, **changes)
    relabelled = [dataclasses.replace(t, sampler=contract(other)) for t in trajectories]
    return largest_gap(relabelled, replayed(worker.policy, relabelled, other))


@pytest.mark.parametrize(
    "changes",
    [{"eta": 1.4}, {"kernel": KernelKind.ddim, "eta": 1.0}, {"guidance": 1.5}, {"log_prob": Reduction.mean}],
    ids=str,
)
def test_another_law_breaks_parity(workers, changes):
    assert gap_under(workers["flow"], replace(OPTIONS, guidance=2.0), **changes) > 100 * TOLERANCE


def test_scoring_before_rounding_breaks_parity(workers, monkeypatch):
    from rollout.images.kernels.gaussian import GaussianSteps

    worker, options = workers["flow"], replace(OPTIONS, storage=LatentPrecision.bf16)
    kept = GaussianSteps.rounded
    trajectories, _ = roll_out(worker, options)
    monkeypatch.setattr(GaussianSteps, "rounded", lambda self, latents: latents)
    unrounded, _ = roll_out(worker, options)
    monkeypatch.setattr(GaussianSteps, "rounded", kept)
    first = dataclasses.replace(
        trajectories[0],
        latents=torch.from_numpy(unrounded[0].latents).bfloat16().float().numpy(),
        logp=unrounded[0].logp,
    )
    assert largest_gap([first], replayed(worker.policy, [first], options)) > 100 * TOLERANCE


def test_other_weights_break_parity(workers, tmp_path):
    worker = workers["flow"]
    trajectories, _ = roll_out(worker, OPTIONS)
    other = worker_of(pipeline_folder(tmp_path, "sd3")).policy
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    assert largest_gap(trajectories, replayed(other, trajectories, OPTIONS)) > 100 * TOLERANCE


def test_other_levels_are_refused(workers):
    worker = workers["flow"]
    trajectories, _ = roll_out(worker, OPTIONS)
    shifted = [dataclasses.replace(t, levels=t.levels * np.array([1.0, 1.0, 1.0 + 1e-12])) for t in trajectories]
    with pytest.raises(TrajectoryError, match="other noise levels"):
        replayed(worker.policy, shifted, OPTIONS)


def test_another_contract_is_refused(workers):
    worker = workers["flow"]
    trajectories, _ = roll_out(worker, OPTIONS)
    with pytest.raises(TrajectoryError, match="another contract"):
        replayed(worker.policy, trajectories, replace(OPTIONS, eta=1.4))


def test_latents_that_are_not_finite_are_named(workers):
    (trajectory, _), _ = roll_out(workers["flow"], OPTIONS)
    broken = trajectory.latents.copy()
    broken[0, 1, 0, 0, 0] = np.nan
    with pytest.raises(TrajectoryError, match=r"latents are not finite.*fp32"):
        dataclasses.replace(trajectory, latents=broken)


# Scores: ratio, KL and clip of Gaussian steps.


def scores_of(worker, trajectories, options: DenoisingOptions, policy=None):
    replay = ImageReplay(worker.policy.spec, options, LikelihoodOptions(), CPU)
    rows = replay.rows(trajectories, 0)
    recorded = torch.tensor([trajectories[r.trajectory].logp[r.sample, r.decision[0]] for r in rows])
    return replay.score(policy or worker.policy, rows), recorded


@pytest.fixture
def moved(workers, tmp_path):
    """A policy some way from the one that generated."""
    policy = worker_of(pipeline_folder(tmp_path, "sd3")).policy
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.empty_like(parameter).normal_(generator=generator))
    return policy


def test_before_the_first_update_the_ratio_is_one_and_the_kl_zero(workers):
    worker = workers["flow"]
    trajectories, _ = roll_out(worker, CHANGED)
    scores, recorded = scores_of(worker, trajectories, CHANGED)
    itself, _ = scores_of(worker, trajectories, CHANGED)
    assert scores.log_ratio(recorded, Ratio.element).abs().max() <= TOLERANCE
    assert scores.log_ratio(recorded, Ratio.guard).abs().max() <= 1e-3  # the old mean has the rounding of x' in it
    for estimator in set(KlEstimator) - {KlEstimator.output}:
        assert scores.kl(itself, estimator).abs().max() == 0


@pytest.mark.parametrize("reduction", Reduction)
def test_guard_takes_the_bias_out_of_the_ratio(workers, moved, reduction):
    """Its log-ratio is s (log ratio + KL(old || new)), computed here from the two means directly."""
    worker, options = workers["flow"], replace(CHANGED, log_prob=reduction)
    trajectories, _ = roll_out(worker, options)
    old, recorded = scores_of(worker, trajectories, options)
    new, _ = scores_of(worker, trajectories, options, moved)
    std = new.kernel.std(new.step)
    expected = std * (new.log_ratio(recorded, Ratio.element) + new.kl(old, KlEstimator.exact))
    torch.testing.assert_close(new.log_ratio(recorded, Ratio.guard), expected, rtol=2e-3, atol=2e-4)
    assert (new.kl(old, KlEstimator.exact) > 0).all()


def test_the_noise_of_a_step_is_not_stored_but_drawn_again(workers):
    """What Guard's old mean rests on."""
    worker = workers["flow"]
    trajectories, _ = roll_out(worker, CHANGED)
    scores, _ = scores_of(worker, trajectories, CHANGED)
    noise = normal(scores.uid, scores.mean.shape[1:], scores.step, Purpose.DIFFUSION)
    drawn = scores.mean + scores.kernel.std(scores.step).view(-1, 1, 1, 1).float() * noise
    torch.testing.assert_close(drawn, scores.following, rtol=0, atol=1e-6)


def test_a_clip_in_nats_means_the_same_for_sum_and_mean(workers, moved):
    """A step that moved k nats has a log-ratio of standard deviation sqrt(2 k), in either convention's units."""
    worker = workers["flow"]
    trajectories, _ = roll_out(worker, CHANGED)
    widths = {}
    for reduction in Reduction:
        options = replace(CHANGED, log_prob=reduction)
        relabelled = [dataclasses.replace(t, sampler=contract(options)) for t in trajectories]
        scores, _ = scores_of(worker, relabelled, options, moved)
        widths[reduction] = scores.clip_of(0.02, Ratio.element) / scores.log_ratio(
            scores_of(worker, relabelled, options)[0].log_prob, Ratio.element
        )
    torch.testing.assert_close(widths[Reduction.sum], widths[Reduction.mean])


def test_the_unconditional_half_can_be_kept_out_of_the_gradient(workers):
    worker, options = workers["flow"], replace(OPTIONS, guidance=3.0)
    trajectories, _ = roll_out(worker, options)
    gradients = {}
    parameter = worker.policy.network.proj_out.bias
    for both in (True, False):
        likelihood = LikelihoodOptions(unconditional_gradient=both)
        replay = ImageReplay(worker.policy.spec, options, likelihood, CPU)
        (gradients[both],) = torch.autograd.grad(
            replay.score(worker.policy, replay.rows(trajectories, 0)).log_prob.sum(), parameter
        )
    # The last bias enters both halves alike: u + 3 (c - u) moves by 3 with c alone, by 1 with both.
    torch.testing.assert_close(gradients[False], 3 * gradients[True], rtol=1e-4, atol=1e-5)

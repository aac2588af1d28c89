"""The denoising loss of real networks: of demonstrations, and of what their own rollouts ended with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.algorithm_options import LikelihoodOptions, LossWeight, NoiseLaw
from configs.compose import compose
from models.files import CheckpointError
from models.images.spec import Condition
from rl.data.tickets import TicketKind
from rl.likelihood.image_elbo import ImageElbo, recorded
from rl.likelihood.protocol import micro_batches
from rl.modality.image import ImageModality
from rollout.options import DenoisingOptions, KernelKind, WindowOptions
from rollout.trajectory import ImageTrajectory, TrajectoryError, read_parquet, write_parquet
from tests.rl.support.image_rollouts import CAPTIONS, CPU, GROUP, pipeline_folder, replayed, roll_out, worker_of
from tests.rl.support.training import SMALL_IMAGES

ODE = DenoisingOptions(steps=3, kernel=KernelKind.ode, height=32, width=32)
EVERY_OPTION = {"draws": 3, "noise_law": NoiseLaw.grid, "loss_weight": LossWeight.huber, "shared_noise": True}
INVERSION = {"noise_law": NoiseLaw.inversion, "inversion_steps": 4}
CLEAN = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def worker_folder(tmp_path: Path) -> Path:
    return pipeline_folder(tmp_path, "sd3")


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    return worker_of(worker_folder(tmp_path_factory.mktemp("elbo")))


def demonstrations(count: int) -> list[ImageTrajectory]:
    return [
        ImageTrajectory(
            ticket=0,
            update=0,
            version=0,
            seed=index,
            prompt_id=f"d{index}",
            sampler="demonstration",
            uid=np.array([index], np.int64),
            logp=np.zeros((1, 1)),
            mask=np.ones((1, 1), bool),
            caption="a dog",
            first_step=0,
            levels=np.zeros((0, 3)),
            guided=np.zeros(1, bool),
            final=CLEAN.numpy(),
        )
        for index in range(count)
    ]


def elbo_of(worker, **options) -> ImageElbo:
    def encode(trajectory: ImageTrajectory) -> tuple[torch.Tensor, Condition]:
        return torch.from_numpy(trajectory.final), worker.encoded(trajectory.caption)

    return ImageElbo(worker.policy.spec, DenoisingOptions(), LikelihoodOptions(**options), encode, CPU)


def perfect(latents, time, *_):
    """The velocity of the only image there is: eps - x0 = (x - x0) / sigma."""
    sigma = (time / 1000).view(-1, 1, 1, 1)
    return (latents - CLEAN) / sigma


def test_a_perfect_network_has_no_loss(worker):
    elbo = elbo_of(worker)
    rows = elbo.rows(demonstrations(20), 0)
    torch.testing.assert_close(elbo.score(perfect, rows).log_prob, torch.zeros(20), atol=1e-4, rtol=0)
    silent = elbo.score(lambda latents, *_: torch.zeros_like(latents), rows).log_prob
    # Of a network that says nothing: the mean square of eps - x0, which is 1 + the mean square of x0.
    assert silent.mean().item() == pytest.approx(-(1 + CLEAN.square().mean().item()), rel=0.05)


def test_noise_is_fresh_each_update_and_the_same_when_repeated(worker):
    elbo, trajectories = elbo_of(worker), demonstrations(4)
    with torch.no_grad():
        first, again, later = (
            elbo.score(worker.policy, elbo.rows(trajectories, update)).log_prob for update in (3, 3, 4)
        )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert (first != later).all()


def test_micro_batches_do_not_change_the_scores(worker):
    elbo = elbo_of(worker)
    rows = elbo.rows(demonstrations(9), 0)
    with torch.no_grad():
        whole = elbo.score(worker.policy, rows).log_prob
        parts = [elbo.score(worker.policy, batch).log_prob for batch in micro_batches(rows, 2 * rows[0].tokens)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0)


def elbo_of_rollouts(worker, options: DenoisingOptions = ODE, **likelihood) -> ImageElbo:
    return ImageElbo(worker.policy.spec, options, LikelihoodOptions(**likelihood), recorded, CPU)


def losses(elbo: ImageElbo, policy, trajectories, max_tokens: int = 10**6) -> dict[tuple[int, int, int], float]:
    """By trajectory, sample and draw."""
    found = {}
    with torch.no_grad():
        for batch in micro_batches(elbo.rows(trajectories, 5), max_tokens):
            elbo.prepare(policy, batch)
            for row, value in zip(batch, elbo.score(policy, batch).log_prob.tolist(), strict=True):
                found[row.trajectory, row.sample, int(row.step[0])] = value
    return found


NOTHING_TRAINED = DenoisingOptions(steps=3, window=WindowOptions(trained_fraction=0.0))


@pytest.mark.parametrize("options", [ODE, NOTHING_TRAINED], ids=["ode", "untrained"])
def test_a_rollout_without_recorded_steps_is_one_decision(worker, options, tmp_path):
    trajectories, completions = roll_out(worker, options)
    for index, trajectory in enumerate(trajectories):
        assert trajectory.logp.tolist() == [[0.0]] * GROUP
        assert trajectory.mask.tolist() == [[True]] * GROUP
        assert trajectory.latents is None
        assert trajectory.guided.tolist() == [False]
        shown = worker.codec.decode(torch.from_numpy(trajectory.final)).numpy()
        np.testing.assert_array_equal(shown, np.stack(completions.outputs[index * GROUP : (index + 1) * GROUP]))
    write_parquet(trajectories, tmp_path / "t.parquet")
    assert read_parquet(tmp_path / "t.parquet")[1].mask.shape == (GROUP, 1)
    with pytest.raises(TrajectoryError, match="no recorded steps to replay"):
        replayed(worker.policy, trajectories, options)


def test_nothing_recorded_leaves_the_samples_as_they_were(worker):
    kept, _ = roll_out(worker, replace(NOTHING_TRAINED, window=WindowOptions()))
    dropped, _ = roll_out(worker, NOTHING_TRAINED)
    assert kept[0].latents is not None
    np.testing.assert_array_equal(kept[0].final, dropped[0].final)
    assert (roll_out(worker, ODE)[0][0].final != dropped[0].final).any()  # the control: those drew noise


@pytest.mark.parametrize(
    ("family", "options"),
    [("sd", EVERY_OPTION), ("sd", INVERSION), ("sdxl", {}), ("sd3", EVERY_OPTION), ("sd3", INVERSION), ("flux", {})],
)
def test_rollouts_are_scored_the_same_however_the_batch_is_cut(family, options, tmp_path_factory):
    worker = worker_of(pipeline_folder(tmp_path_factory.getbasetemp(), family))
    sampler = replace(ODE, guidance=3.5)
    trajectories, _ = roll_out(worker, sampler)
    elbo = elbo_of_rollouts(worker, sampler, **options)
    whole = losses(elbo, worker.policy, trajectories)
    assert len(whole) == len(CAPTIONS) * GROUP * elbo.draws
    tokens = elbo.rows(trajectories, 5)[0].tokens
    assert losses(elbo, worker.policy, trajectories, 3 * tokens) == whole
    turned = losses(elbo, worker.policy, trajectories[::-1])
    assert {(1 - group, sample, draw): value for (group, sample, draw), value in turned.items()} == whole
    part = losses(elbo, worker.policy, [trajectories[0].take([2, 3])])
    assert part == {(0, sample - 2, draw): whole[0, sample, draw] for _, sample, draw in whole if sample >= 2}


def test_the_recorded_condition_is_the_encoded_caption(worker):
    """A rollout scores as the demonstration that shows its caption and its latents, without any text encoder."""
    trajectories, _ = roll_out(worker, ODE)
    from_record = losses(elbo_of_rollouts(worker), worker.policy, trajectories)
    assert losses(elbo_of(worker), worker.policy, trajectories) == from_record
    swapped = [replace(t, embeds=trajectories[0].embeds, pooled=trajectories[0].pooled) for t in trajectories]
    assert losses(elbo_of_rollouts(worker), worker.policy, swapped) != from_record


def test_scoring_leaves_the_random_state_alone(worker):
    trajectories, _ = roll_out(worker, ODE)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    losses(elbo_of_rollouts(worker, noise_law=NoiseLaw.inversion), worker.policy, trajectories)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)


FORWARD = ["algorithm.likelihood.kind=elbo", "algorithm.clip_kl=null", "algorithm.kl.coefficient=0"]


def modality_of(folder, *overrides: str) -> ImageModality:
    return ImageModality(compose([*SMALL_IMAGES, f"model.path={folder}", "run.name=x", *overrides]).config)


def test_learners_of_rollouts_need_no_text_encoder_and_no_autoencoder(worker, tmp_path):
    """Without these weights, only learners of demonstrations miss something."""
    folder = shutil.copytree(worker_folder(tmp_path), tmp_path / "network")
    for part in ("text_encoder", "text_encoder_2", "text_encoder_3", "vae"):
        for weights in (folder / part).glob("*.safetensors"):
            weights.unlink()
    modality = modality_of(folder, *FORWARD, "rollout.denoising.kernel=ode")
    policy = modality.policy(CPU)
    trajectories, _ = roll_out(worker, modality.sampler(TicketKind.train))
    found = losses(modality.likelihood(policy, CPU), worker.policy, trajectories)
    assert found == losses(elbo_of_rollouts(worker), worker.policy, trajectories)
    supervised = modality_of(folder, "algorithm=sft", "data.train.image=image")
    with pytest.raises(CheckpointError):
        supervised.likelihood(policy, CPU)


def test_a_denoising_loss_has_no_step_recorded_and_a_replay_has(worker, tmp_path):
    folder = worker_folder(tmp_path)
    forward, replay = modality_of(folder, *FORWARD), modality_of(folder)
    assert roll_out(worker, forward.sampler(TicketKind.train))[0][0].latents is None
    assert roll_out(worker, replay.sampler(TicketKind.train))[0][0].latents is not None
    for kind in (TicketKind.greedy, TicketKind.sampled):
        assert forward.sampler(kind) == replay.sampler(kind)


def test_what_is_no_rollout_is_named(worker):
    with pytest.raises(TrajectoryError, match="no embedded prompt"):
        elbo_of_rollouts(worker).rows(demonstrations(1), 0)

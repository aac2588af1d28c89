"""Candidates for each next latent: they share their state, are scored as the learner does it, and one goes on."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from models.images.spec import ImagePrompt
from rollout.images.worker import ImageRolloutWorker
from rollout.options import DenoisingOptions, Finish, KernelKind, StepCandidateOptions
from rollout.worker import Origin, RolloutRequest
from tests.rl.support.image_rollouts import CAPTIONS, largest_gap, pipeline_folder, replayed, worker_of

STEPS, FIRST, SIZE = 6, 2, 3
GROUPS = STEPS - 1 - FIRST
OPTIONS = DenoisingOptions(steps=STEPS, kernel=KernelKind.ddim, eta=1.0, guidance=2.0)


@pytest.fixture(scope="module")
def worker(tmp_path_factory) -> ImageRolloutWorker:
    return worker_of(pipeline_folder(tmp_path_factory.getbasetemp(), "sd"))


def run(worker, options: DenoisingOptions = OPTIONS, finish: Finish = Finish.estimate, first_uid: int = 500):
    uids = tuple(range(first_uid, first_uid + SIZE * len(CAPTIONS)))
    candidates = StepCandidateOptions(FIRST, finish)
    prompts = tuple(map(ImagePrompt, CAPTIONS))
    return worker.run(RolloutRequest(Origin(3, 1, 1, 77), ("a", "b"), prompts, uids, options, candidates=candidates))


@pytest.fixture(scope="module")
def drawn(worker):
    return run(worker)


def test_a_step_is_a_group_of_candidates_from_one_state(drawn):
    trajectories, completions, _ = drawn
    assert [(t.prompt_id, t.first_step) for t in trajectories] == [(p, FIRST + s) for p in "ab" for s in range(GROUPS)]
    assert len(completions.outputs) == len(trajectories) * SIZE
    for trajectory in trajectories:
        assert trajectory.logp.shape == (SIZE, 1)
        state, after = trajectory.latents[:, 0], trajectory.latents[:, 1]
        assert (state == state[0]).all()
        assert len({candidate.tobytes() for candidate in after}) == SIZE


def test_one_candidate_goes_on_and_it_is_drawn_at_random(worker):
    chosen = []
    for first_uid in range(0, 120, 10):
        trajectories, _, _ = run(worker, first_uid=first_uid)
        for before, after in pairwise(trajectories):
            if before.prompt_id == after.prompt_id:
                (which,) = (before.latents[:, 1] == after.latents[0, 0]).all(axis=(1, 2, 3)).nonzero()[0]
                chosen.append(int(which))
    assert np.bincount(chosen, minlength=SIZE).min() > len(chosen) / SIZE / 2


def test_the_learner_s_log_probabilities_are_the_recorded_ones(worker, drawn):
    trajectories, _, _ = drawn
    values = replayed(worker.policy, trajectories, OPTIONS)
    assert largest_gap(trajectories, values) * worker.policy.spec.image_size**-1 <= 1e-4
    mixed_up = [replace(t, first_step=FIRST) for t in trajectories]  # the control: the step of another group
    assert largest_gap(mixed_up, replayed(worker.policy, mixed_up, OPTIONS)) > 1


def test_images_are_those_of_the_clean_latents_and_both_ways_to_finish_agree_at_the_end(worker, drawn):
    trajectories, completions, _ = drawn
    finished, _, _ = run(worker, finish=Finish.ode)
    for index, (estimate, ode) in enumerate(zip(trajectories, finished, strict=True)):
        assert (estimate.latents == ode.latents).all()  # how candidates are judged does not change the chain
        same = np.allclose(estimate.final, ode.final, atol=1e-4)
        assert same is (estimate.first_step == STEPS - 2)
        images = worker.codec.decode(torch.from_numpy(estimate.final)).numpy()
        assert (images == np.stack(completions.outputs[index * SIZE : (index + 1) * SIZE])).all()


def test_what_it_costs(worker, drawn):
    trajectories, _, statistics = drawn
    per_prompt = FIRST + 1 + GROUPS * SIZE
    assert sum(t.counters["nfe"] for t in trajectories) == 2 * per_prompt
    assert statistics["forwards"] == 2 * 2 * per_prompt  # with guidance
    _, _, by_ode = run(worker, finish=Finish.ode)
    assert by_ode["forwards"] == 2 * 2 * (FIRST + 1 + SIZE * sum(range(1, GROUPS + 1)))

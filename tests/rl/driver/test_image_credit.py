"""Advantages of single denoising steps on images: the clean estimate of every step is rewarded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from models.images.spec import ImagePrompt
from rollout.branching import Tree
from rollout.options import DenoisingOptions, KernelKind
from rollout.worker import Origin, Recording, RolloutRequest
from tests.models.pipelines import tiny_pipeline
from tests.rl.recipes.test_image_recipes import redness
from tests.rl.support.image_learning import Training, configuration
from tests.rl.support.image_rollouts import pipeline_folder, worker_of
from tests.rl.support.learning_effect import assert_learned, effect_of_training

pytestmark = pytest.mark.usefixtures("rank")

STEPS = 5


@pytest.mark.parametrize("samples_per_forward", [64, 2])
def test_estimates_are_the_clean_images_that_each_step_foresees(tmp_path_factory, samples_per_forward: int) -> None:
    worker = worker_of(pipeline_folder(tmp_path_factory.mktemp("models"), "sd3"))
    options = DenoisingOptions(steps=STEPS, kernel=KernelKind.precise, samples_per_forward=samples_per_forward)
    request = RolloutRequest(
        origin=Origin(0, 0, 0, 7),
        prompt_ids=("a",),
        prompts=(ImagePrompt("a dog"),),
        uids=(1, 2, 3),
        sampler=options,
        recording=Recording(estimates=True),
    )
    seen = {}
    _, completions, _ = worker.run(request, lambda first, step, latents: seen.update({(first, step): latents.cpu()}))
    drawn = STEPS - 1  # the last step draws no noise, and leads to what it estimates
    assert completions.estimates.counts == [drawn - 1] * 3
    images = iter(completions.estimates.outputs)
    for sample in range(3):
        first = sample // samples_per_forward * samples_per_forward
        foreseen = [worker.codec.decode(seen[first, step][[sample - first]])[0].numpy() for step in range(STEPS)]
        for step in range(drawn - 1):
            np.testing.assert_array_equal(next(images), foreseen[step + 1])
        np.testing.assert_array_equal(completions.outputs[sample], foreseen[-1])  # what the last noise led to
        assert (foreseen[0] != foreseen[-1]).any()
    _, plain, _ = worker.run(dataclasses.replace(request, recording=Recording()))
    assert plain.estimates is None
    np.testing.assert_array_equal(plain.outputs, completions.outputs)


def test_a_step_is_credited_with_what_its_own_noise_led_to(tmp_path_factory) -> None:
    """Siblings that part at step 2 are told apart by that step's estimate, and not before."""
    worker = worker_of(pipeline_folder(tmp_path_factory.mktemp("models"), "sd3"))
    options = DenoisingOptions(steps=STEPS, kernel=KernelKind.precise)
    prompts, uids = (ImagePrompt("a dog"),), (1, 2, 3, 4)
    tree = Tree((2,), (4,), STEPS)
    request = RolloutRequest(Origin(0, 0, 0, 7), ("a",), prompts, uids, options, Recording(estimates=True), tree)
    _, completions, _ = worker.run(request)
    assert completions.estimates is not None
    by_step = np.stack(completions.estimates.outputs).reshape(4, -1, *completions.outputs[0].shape)
    differs = [bool(np.ptp(by_step[:, step].astype(float), axis=0).any()) for step in range(by_step.shape[1])]
    assert differs == [step >= 2 for step in range(by_step.shape[1])]


@pytest.mark.slow
def test_flow_grpo_learns_with_advantages_of_steps(tmp_path) -> None:
    """MDPO's credit beside Flow-GRPO's likelihood."""
    tiny_pipeline("sd3", sample_size=4).save_pretrained(tmp_path)
    config = configuration(
        tmp_path,
        "algorithm=flow_grpo",
        "algorithm.advantage=per_step",
        "algorithm.optimizer.learning_rate=1e-3",
        "algorithm.optimizer.betas=[0,0.99]",
        "algorithm.kl.coefficient=0",
        "algorithm.clip_kl=0.5",
    )
    training = Training(config, redness)
    groups, _ = training.roll_out(0)
    for group in groups:
        assert group.advantage.shape == (8, STEPS - 1)
        assert group.valid.all()
        spread = group.trained().advantage
        assert (np.ptp(spread, axis=1) > 0).all()  # the steps of a sample are worth different things
    first = []

    def train(of_seed: Training) -> None:
        metrics = [of_seed.update(update, prompts=16)[0] for update in range(6)]
        first.append(metrics[0])

    assert_learned(effect_of_training(lambda seed: Training(config, redness, seed=seed), train, drift=0.4, samples=64))
    assert all(metrics["ratio/max_error"] <= 1e-5 for metrics in first)

"""TextCraftor: the gradient reaches the text encoders alone, and everyone encodes by their present weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cluster.weights import pack_weights
from configs.errors import UserError
from models.images.spec import ImagePrompt
from models.lora import trainable_parameters
from rl.data.tickets import TicketKind
from rl.learner.engine import Engine
from rl.learner.learner import Learner
from rl.likelihood.image_reward_gradient import ImageRewardGradient, undrawn
from rl.modality.image import ImageModality
from rollout.worker import Origin, RolloutRequest
from tests.documentation import ROOT
from tests.rl.support.image_learning import assert_same_updates, configuration, undrawn_groups

CPU = torch.device("cpu")
RECIPE = ["algorithm=text_craftor", "reward.terms.a.function=brightness"]
SMALL = [*RECIPE, "rollout.denoising.steps=4", "algorithm.reward_gradient.last_steps=2", "rollout.denoising.guidance=2"]
GROUPS = [undrawn("a", "red", {}, [3, 4], 0), undrawn("b", "blue cat", {}, [5, 6], 0)]


class Tuning:
    def __init__(self, unet: Path, *overrides: str) -> None:
        self.config = configuration(unet, *SMALL, *overrides)
        self.modality = ImageModality(self.config)
        self.modality.check()
        self.policy = self.modality.policy(CPU)
        scorer = self.modality.likelihood(self.policy, CPU)
        assert isinstance(scorer, ImageRewardGradient)
        self.scorer = scorer

    def reward(self, samples: slice = slice(None)) -> Tensor:
        return self.scorer.score(self.policy, self.scorer.rows(GROUPS, 0)[samples]).log_prob.sum() / 4

    def gradient(self, *batches: slice) -> dict[str, Tensor]:
        self.policy.zero_grad()
        for samples in batches or (slice(None),):
            self.reward(samples).backward()
        found = trainable_parameters(self.policy)
        return {name: p.grad.clone() for name, p in found.items() if p.grad is not None}


@pytest.mark.parametrize("guidance", [1, 2])
def test_the_gradient_is_that_of_finite_differences(unet, guidance):
    """Through all steps, so that moving the weights moves nothing that the gradient leaves out."""
    tuning = Tuning(unet, "algorithm.reward_gradient.last_steps=4", f"rollout.denoising.guidance={guidance}")
    found = tuning.gradient()
    norm = math.sqrt(sum(float(g.square().sum()) for g in found.values()))
    parameters = trainable_parameters(tuning.policy)

    def reward_at(length: float) -> float:
        with torch.no_grad():
            for name, g in found.items():
                parameters[name].add_(length * g / norm)
            value = float(tuning.reward())
            for name, g in found.items():
                parameters[name].sub_(length * g / norm)
        return value

    assert norm > 1e-4
    assert (reward_at(3e-3) - reward_at(-3e-3)) / 6e-3 == pytest.approx(norm, rel=1e-2)


def test_earlier_steps_carry_no_gradient(unet):
    two, four = (Tuning(unet, f"algorithm.reward_gradient.last_steps={steps}").gradient() for steps in (2, 4))
    assert any((two[name] - four[name]).abs().max() > 1e-2 * four[name].abs().max() for name in four)


def test_the_empty_prompt_is_encoded_by_the_tuned_encoders_too(unet):
    """As the stock pipeline does it; its half is differentiated unless the options say otherwise."""
    whole = Tuning(unet).gradient()
    half = Tuning(unet, "algorithm.likelihood.unconditional_gradient=false").gradient()
    assert any((whole[name] - half[name]).abs().max() > 1e-2 * whole[name].abs().max() for name in whole)


def test_neither_checkpointing_nor_micro_batches_change_the_gradient(unet):
    whole = Tuning(unet).gradient()
    plain = Tuning(unet, "algorithm.reward_gradient.checkpointing=false").gradient()
    pieces = Tuning(unet).gradient(slice(0, 1), slice(1, 3), slice(3, 4))
    recomputing = Tuning(unet, "model.gradient_checkpointing=true")
    recomputing.policy.train()
    recomputed = recomputing.gradient()
    for name, gradient in whole.items():
        for other in (plain, pieces, recomputed):
            torch.testing.assert_close(other[name], gradient, rtol=1e-3, atol=1e-7)


def test_a_caption_is_encoded_once_in_a_micro_batch(unet, monkeypatch):
    tuning = Tuning(unet)
    captions = []
    encode = tuning.scorer.encode
    monkeypatch.setattr(tuning.scorer, "encode", lambda caption: captions.append(caption) or encode(caption))
    tuning.reward()
    assert sorted(captions) == ["", "blue cat", "red"]


def test_share_zero_draws_the_pictures_of_the_untuned_model(unet):
    def pictures(*overrides: str, moved: bool) -> np.ndarray:
        config = configuration(unet, *SMALL, *overrides)
        worker = ImageModality(config).rollout_worker(CPU)
        if moved:
            disturb(worker.policy)
        return np.stack(worker.run(request(config))[1].outputs)

    base = pictures(moved=False)
    assert np.array_equal(pictures("model.text_encoder_share=0", moved=True), base)
    assert np.array_equal(pictures("model.train=network", moved=False), base)
    assert not np.array_equal(pictures(moved=True), base)
    assert not np.array_equal(pictures("model.text_encoder_share=0.5", moved=True), base)


def test_workers_encode_by_new_weights(unet):
    config = configuration(unet, *SMALL)
    worker = ImageModality(config).rollout_worker(CPU)
    before = worker.run(request(config))[0][0].embeds
    cached = worker.encoded("red").embeds
    disturb(worker.policy)
    assert torch.equal(worker.encoded("red").embeds, cached)  # what a cache would go on to say
    after = worker.run(request(config))[0][0].embeds
    assert np.abs(after - before).max() > 1e-2
    assert torch.equal(worker.encoded("red").embeds, worker.encoder.encode(["red"]).embeds)


def test_mixed_encodings_are_not_exported(unet, tmp_path):
    modality = ImageModality(configuration(unet, *SMALL, "model.text_encoder_share=0.5"))
    weights = pack_weights(0, trainable_parameters(modality.policy(CPU)))
    with pytest.raises(UserError, match=r"text_encoder_share=0.5 mixes .* set it to 1"):
        modality.export(weights, tmp_path / "out", adapter_only=False, half=False)
    assert not (tmp_path / "out").exists()
    whole = ImageModality(configuration(unet, *SMALL))
    whole.export(weights, tmp_path / "out", adapter_only=False, half=False)
    assert (tmp_path / "out/text_encoder/model.safetensors").is_file()


def request(config: Any) -> RolloutRequest:
    sampler = ImageModality(config).sampler(TicketKind.greedy)
    return RolloutRequest(Origin(0, 0, 0, 0), ("a",), (ImagePrompt("red"),), (3, 4), sampler)


def disturb(policy: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable_parameters(policy).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


# Training.


def learner_of(unet: Path, *overrides: str, zero_stage: int = 0) -> Learner:
    tuning = Tuning(unet, *overrides)
    engine = Engine(tuning.policy, tuning.config.algorithm.optimizer, zero_stage=zero_stage, bf16=False)
    return Learner(engine, tuning.scorer, None, None, tuning.config.algorithm, 100, CPU)


@pytest.mark.parametrize("lora", [False, True])
def test_tuning_the_encoders_alone_makes_brighter_pictures(rank, lora):
    """Of the embedded digits, whose network has learned to listen to its prompts."""
    adapters = ["model.lora.rank=4", "model.lora.target_modules=[q_proj,k_proj,v_proj,out_proj,fc1,fc2]"]
    rate = f"algorithm.optimizer.learning_rate={1e-2 if lora else 3e-3}"
    learner = learner_of(ROOT / "models/tiny/digits", rate, *(adapters if lora else []))
    start = {name: tensor.clone() for name, tensor in learner.engine.module.state_dict().items()}
    rewards = [
        -learner.step(update, [undrawn_groups(update, "a handwritten three")], False)["learner/loss"]
        for update in range(5)
    ]
    assert rewards[-1] > rewards[0] + 0.05
    state = learner.engine.module.state_dict()
    moved = {name for name, tensor in state.items() if not torch.equal(tensor, start[name])}
    assert moved
    assert all(name.startswith("text_encoders.") for name in moved)
    assert all(".lora_" in name for name in moved) == lora


@pytest.mark.parametrize("zero_stage", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_sharded_weights_get_the_same_update(rank, unet, zero_stage):
    options = ["algorithm.optimizer.learning_rate=1e-3", "algorithm.optimizer.eps=1e-5"]
    assert_same_updates(learner_of(unet, *options), learner_of(unet, *options, zero_stage=zero_stage))

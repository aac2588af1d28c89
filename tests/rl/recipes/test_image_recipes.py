"""Every image recipe learns, and the start-up gate names what makes a replay differ from its rollout."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from rl.driver.learners import GATE
from rl.learner.report import LearnerError
from tests.models.pipelines import tiny_pipeline
from tests.rl.support.image_learning import Training, configuration
from tests.rl.support.learning_effect import assert_learned, effect_of_training

pytestmark = pytest.mark.usefixtures("rank")


class Size(NamedTuple):
    """Of the training that shows that a recipe learns: large enough for several standard errors."""

    family: str
    drift: float
    """Standard deviation over seeds of the effect of as many updates without a signal (`permute_rewards`), in those of
    a sample."""
    learning_rate: float = 1e-3
    prompts: int = 16
    updates: int = 6
    seeds: int = 2
    minibatches: int = 2


RECIPES = {
    # Of these a second step of an update would meet the clip, so there is none.
    "ddpo": Size("sd", 0.15, prompts=32, seeds=4, minibatches=1),
    "ddpo_sf": Size("sd", 0.15, prompts=32, seeds=4, minibatches=1),
    "flow_grpo": Size("sd3", 0.36),
    "flow_grpo_fast": Size("sd3", 1.4, learning_rate=5e-3, prompts=32, updates=4, seeds=4),
    "dance_grpo": Size("sd3", 1.45),
    "mix_grpo": Size("sd3", 0.3),
    "grpo_guard": Size("sd3", 0.5),
    "precise_grpo": Size("sd3", 0.6, learning_rate=5e-3, prompts=32, updates=4),
    "flow_dppo": Size("sd3", 0.36),
    "dpok": Size("sd", 0.15, prompts=32, seeds=4, minibatches=1),
    "branch_grpo": Size("sd3", 0.85, prompts=8),
    "b2_diffu_rl": Size("sd", 0.15, learning_rate=2e-3, prompts=32, updates=8, seeds=4),
    "spo": Size("sd", 0.05, prompts=8),
    "tracerl_value": Size("sd3", 2.1, learning_rate=5e-3, prompts=32, updates=4, seeds=6),
}
SMALLER_TREES = {
    "branch_grpo": ("group_size=8", "branching.forks=[0,1,3]", "branching.factors=[2,2,2]"),
    "spo": ("step_candidates.first_step=2", "denoising.guidance=1"),
    "b2_diffu_rl": ("branching.forks=[1]", "branching.moving_updates=1", "denoising.guidance=1"),
}
"""Options of the rollout that go with six steps."""
UNTRAINED = "rollout.denoising.window.untrained"
OF_TEXTS = {
    "tracerl_value": [
        "algorithm.denominator=step",
        "algorithm.kl.estimator=exact",
        "algorithm.solved_band=null",
        "algorithm.minibatches=2",
    ]
}
"""What a recipe for texts needs on images: the KL of Gaussian steps, rewards that are not right or wrong."""
OFTEN = ("branch_grpo", "flow_grpo", "spo")
"""One of each kind; the others are run with the slow tests."""
ADAPTERS = ["model.lora.rank=4", "model.lora.target_modules=[to_q,to_k,to_v,to_out.0]"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Pipelines; the small ones have 4 x 4 latents, in which a sample's noise says more about its reward."""
    root = tmp_path_factory.mktemp("models")
    for family in ("sd", "sd3"):
        tiny_pipeline(family).save_pretrained(root / family)
        tiny_pipeline(family, sample_size=4).save_pretrained(root / "small" / family)
    return root


def redness(image: np.ndarray) -> float:
    return float(image[..., 0].mean() / max(image.sum(-1).mean(), 1.0))


def standardised(image: np.ndarray) -> float:
    """About 0 on average and 1 in spread, as the model rewards that DPOK's raw ones come from."""
    return 700 * (redness(image) - 0.346)


@pytest.mark.parametrize(
    "recipe", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_every_recipe_learns(folders, recipe):
    """As published but for the learning rate and a clip in nats: published widths are for latents 100 times larger."""
    size = RECIPES[recipe]
    config = configuration(
        folders / "small" / size.family,
        f"algorithm={recipe}",
        f"algorithm.optimizer.learning_rate={size.learning_rate}",
        "algorithm.optimizer.betas=[0,0.99]",  # or the noise of the first update would go on in the next ten
        f"algorithm.minibatches={size.minibatches}",
        "algorithm.kl.coefficient=0",
        "rollout.denoising.steps=6",
        "algorithm.clip_kl=0.5",
        "rollout.denoising.window.size=2",
        *(["algorithm.clip=0.2"] if recipe in ("ddpo", "dpok") else []),
        *(f"rollout.{option}" for option in SMALLER_TREES.get(recipe, ())),
        *OF_TEXTS.get(recipe, []),
    )
    of_seeds = []

    def train(training: Training) -> None:
        of_seeds.append([training.update(update, size.prompts)[0] for update in range(size.updates)])
        assert training.learner.engine.updates == size.updates * config.algorithm.minibatches

    def begin(seed: int) -> Training:
        return Training(config, standardised if recipe == "dpok" else redness, seed=seed)

    found = effect_of_training(begin, train, range(size.seeds), size.drift, samples=64)
    for metrics in of_seeds:
        assert metrics[0]["logp/max_error"] <= 1e-5
        if recipe != "spo":  # which has no ratio
            assert metrics[0]["ratio/max_error"] <= (1e-3 if recipe == "grpo_guard" else 1e-5)
        assert all(of_update["learner/gradient_norm"] > 0 for of_update in metrics)
    assert_learned(found)


def test_pruned_branches_are_not_scored(folders):
    """Of 2 + 4 + 4 + 8 + 8 branches of a tree pruning in width leaves out four at the last step, in depth the third
    step."""
    scored = {}
    in_depth = (f"{UNTRAINED}.size=1", f"{UNTRAINED}.start=2", f"{UNTRAINED}.final_start=2")
    for pruning in ((), ("algorithm.extreme_samples=2",), in_depth):
        config = configuration(
            folders / "sd3",
            "algorithm=branch_grpo",
            "rollout.denoising.steps=6",
            "rollout.denoising.window.trained_fraction=1",
            *(f"rollout.{option}" for option in SMALLER_TREES["branch_grpo"]),
            *pruning,
        )
        scored[pruning] = Training(config, redness).update(0)[0]["learner/decisions"]
    assert list(scored.values()) == [2 * 26, 2 * 22, 2 * 22]


@pytest.mark.parametrize(
    ("recipe", "estimator"),
    [
        ("flow_grpo", "flow_grpo"),
        pytest.param("flow_grpo", "exact", marks=pytest.mark.slow),
        pytest.param("ddpo", "exact", marks=pytest.mark.slow),
    ],
)
def test_kl_holds_the_policy_back(folders, recipe, estimator):
    """The same run with and without the term: with it, the policy ends nearer to the reference."""
    distance = {}
    for coefficient in (0.001, 1000.0):
        config = configuration(
            folders / RECIPES[recipe].family,
            f"algorithm={recipe}",
            f"algorithm.kl.estimator={estimator}",
            f"algorithm.kl.coefficient={coefficient}",
            "algorithm.optimizer.learning_rate=5e-3",
            "algorithm.clip_kl=0.5",
            *ADAPTERS,
        )
        training = Training(config, redness)
        metrics = [training.update(update)[0] for update in range(4)]
        distance[coefficient] = metrics[-1]["kl/reference"]
        if config.algorithm.minibatches == 1:
            assert metrics[0]["kl/reference"] == pytest.approx(0, abs=1e-9)
    assert distance[1000.0] < 0.7 * distance[0.001]


# The gate.


def gap_and_cause(training: Training) -> tuple[float, str]:
    groups, _ = training.roll_out(0)
    parity = training.parity(groups)
    return parity.gap, training.likely_cause(groups)


@pytest.fixture
def training(folders):
    return Training(configuration(folders / "sd3", "algorithm=precise_grpo", *ADAPTERS), redness)


def test_the_gate_measures_every_step(training):
    groups, _ = training.roll_out(0)
    parity = training.parity(groups)
    assert parity.gap <= 1e-5
    assert list(parity.by_step) == [0, 1, 2, 3]


def test_the_gate_names_dropout(training):
    training.policy.network.proj_out = nn.Sequential(training.policy.network.proj_out, nn.Dropout(0.1))
    gap, cause = gap_and_cause(training)
    assert gap > 1e-2
    assert "dropout" in cause


def test_the_gate_names_the_batch_shape(training, monkeypatch):
    forward = type(training.policy).forward

    def depends_on_batch(self, latents, *rest):
        return forward(self, latents, *rest) * (1 + 1e-3 * (len(latents) > 1))

    groups, _ = training.roll_out(0, prompts=1, group_size=1)
    monkeypatch.setattr(type(training.policy), "forward", depends_on_batch)
    assert training.parity(groups).gap > 1e-2
    assert "depends on its batch" in training.likely_cause(groups)


def test_the_gate_names_missing_adapters(training):
    groups, _ = training.roll_out(0)
    for name, parameter in training.policy.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    assert training.parity(groups).gap > 1e-2
    assert "adapters" in training.likely_cause(groups)


def test_the_gate_names_other_weights(training):
    groups, _ = training.roll_out(0)
    with torch.no_grad():
        for parameter in training.policy.parameters():
            parameter.mul_(1.01)
    assert training.parity(groups).gap > 1e-2
    assert "different weights" in training.likely_cause(groups)


def test_rewards_that_are_all_equal_teach_nothing_and_break_nothing(folders):
    training = Training(configuration(folders / "sd3", "algorithm=precise_grpo"), lambda image: 0.5)
    groups, _ = training.roll_out(0)
    before = {name: p.detach().clone() for name, p in training.policy.named_parameters()}
    metrics = training.learner.step(0, [groups], fresh=True)
    assert metrics["learner/gradient_norm"] == 0
    for name, parameter in training.policy.named_parameters():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(training):
    groups, _ = training.roll_out(0)
    adapted = next(p for n, p in training.policy.named_parameters() if "lora_B" in n)
    adapted.register_hook(lambda gradient: gradient * float("nan"))
    before = adapted.detach().clone()
    with pytest.raises(LearnerError, match="the gradient norm is nan"):
        training.learner.step(0, [groups], fresh=True)
    torch.testing.assert_close(adapted, before, rtol=0, atol=0)


def test_the_gate_does_not_let_nan_pass(training, monkeypatch):
    groups, _ = training.roll_out(0)
    forward = type(training.policy).forward
    monkeypatch.setattr(type(training.policy), "forward", lambda self, *a: forward(self, *a) * float("nan"))
    assert training.parity(groups).gap == float("inf")


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_gate_is_as_strict_with_means_as_with_sums(folders, reduction):
    """Adapters that the rollout did not have are far above the limit of a bf16 run in either convention."""
    overrides = ["algorithm=precise_grpo", f"rollout.denoising.log_prob={reduction}", *ADAPTERS]
    training = Training(configuration(folders / "sd3", *overrides), redness)
    groups, _ = training.roll_out(0)
    assert training.parity(groups).gap <= 1e-5
    for name, parameter in training.policy.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    assert training.parity(groups).gap > GATE["bf16"]


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(training):
    groups, _ = training.roll_out(0)
    groups[0].advantage[0] = np.nan
    with pytest.raises(LearnerError, match="the loss is nan"):
        training.learner.step(0, [groups], fresh=True)

"""Every image recipe learns, and the start-up gate names what makes a replay differ from its rollout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rl.driver.learners import GATE
from rl.learner.report import LearnerError
from tests.models.pipelines import tiny_pipeline
from tests.rl.support.image_learning import Training, configuration, process_group

RECIPES = {
    "ddpo": ("sd", 5e-4),  # larger steps run into its clip
    "ddpo_sf": ("sd", 5e-3),
    "flow_grpo": ("sd3", 5e-3),
    "flow_grpo_fast": ("sd3", 5e-3),
    "dance_grpo": ("sd3", 5e-3),
    "mix_grpo": ("sd3", 5e-3),
    "grpo_guard": ("sd3", 5e-3),
    "precise_grpo": ("sd3", 5e-3),
    "flow_dppo": ("sd3", 5e-3),
    "dpok": ("sd", 5e-4),
    "branch_grpo": ("sd3", 5e-3),
    "b2_diffu_rl": ("sd", 2e-3),
    "spo": ("sd", 1e-3),
    "tracerl_value": ("sd3", 5e-3),
}
"""Model and learning rate."""
SMALLER_TREES = {
    "branch_grpo": ("group_size=8", "branching.forks=[0,1,3]", "branching.factors=[2,2,2]"),
    "spo": ("step_candidates.first_step=2", "denoising.guidance=1"),
    "b2_diffu_rl": ("branching.forks=[3]", "branching.moving_updates=4", "denoising.guidance=1"),
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
OFTEN = ("branch_grpo", "dpok", "flow_grpo", "spo")
"""One of each kind; the others are run with the slow tests."""
UPDATES = 8
ADAPTERS = ["model.lora.rank=4", "model.lora.target_modules=[to_q,to_k,to_v,to_out.0]"]


@pytest.fixture(scope="module", autouse=True)
def rank():
    with process_group():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for family in ("sd", "sd3"):
        tiny_pipeline(family).save_pretrained(root / family)
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
    family, learning_rate = RECIPES[recipe]
    config = configuration(
        folders / family,
        f"algorithm={recipe}",
        f"algorithm.optimizer.learning_rate={learning_rate}",
        "algorithm.kl.coefficient=0",
        "rollout.denoising.steps=6",
        "algorithm.clip_kl=0.5",
        "rollout.denoising.window.size=2",
        *(f"rollout.{option}" for option in SMALLER_TREES.get(recipe, ())),
        *OF_TEXTS.get(recipe, []),
    )
    training = Training(config, standardised if recipe == "dpok" else redness)
    results = [training.update(update) for update in range(UPDATES)]
    rewards = [reward for _, reward in results]
    assert np.mean(rewards[-2:]) > np.mean(rewards[:2]) + 0.5 * training.spread
    first = results[0][0]
    assert first["logp/max_error"] <= 1e-5
    if recipe != "spo":  # which has no ratio
        assert first["ratio/max_error"] <= (1e-3 if recipe == "grpo_guard" else 1e-5)
    assert all(metrics["learner/gradient_norm"] > 0 for metrics, _ in results)
    assert training.learner.engine.updates == UPDATES * min(config.algorithm.minibatches, 2)


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
            folders / RECIPES[recipe][0],
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

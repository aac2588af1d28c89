"""Image options that cannot work are refused before anything starts, each with the reason and the way out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from configs.compose import compose
from configs.errors import ConfigError
from models.images.prediction import Prediction
from models.images.spec import Guidance, ImageSpec
from rl.compatibility import check
from tests.rl.support.gaussian_images import FLOW

DDIM = {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "clip_sample": False, "steps_offset": 1}
SPEC = replace(FLOW, largest_size=64)
BASE = [
    "algorithm=precise_grpo",
    "model.modality=image",
    "model.path=somewhere",
    "data.train.name=leg_counting",
    "data.train.size=10",
    "evaluation.every=0",
    "reward.terms.a.function=jpeg_compressibility",
    "run.name=x",
]


DRAFT = ["algorithm=draft"]
FORWARD = [
    "algorithm.likelihood.kind=elbo",
    "algorithm.clip_kl=null",
    "algorithm.kl.estimator=output",
    "rollout.denoising.kernel=ode",
]
"""A denoising loss of rollouts by the ODE, as DiffusionNFT, AWM and DGPO have it."""
REWARD_GRADIENTS = ["draft", "draft_lv", "align_prop", "refl", "long_align", "r0", "text_craftor"]
TEXT_ENCODER = ["algorithm=text_craftor"]
UNTRAINED = "rollout.denoising.window.untrained"
SUPERVISED = ["algorithm=sft", "data.train.image=picture"]


def checked(*overrides: str, spec: ImageSpec | None = SPEC) -> None:
    check(compose([*BASE, *overrides]).config, spec)


@pytest.mark.parametrize(
    "algorithm",
    ["ddpo", "ddpo_sf", "flow_grpo", "flow_grpo_fast", "dance_grpo", "mix_grpo", "grpo_guard", "precise_grpo"],
)
def test_every_recipe_suits_flow_and_noise_predicting_models(algorithm):
    checked(f"algorithm={algorithm}")
    checked(f"algorithm={algorithm}", spec=replace(SPEC, prediction=Prediction.epsilon, scheduler=DDIM))


@pytest.mark.parametrize("algorithm", REWARD_GRADIENTS)
@pytest.mark.parametrize("kernel", ["ode", "ddim", "cps"])
def test_reward_gradients_suit_every_kernel(algorithm, kernel):
    constant = ["algorithm.reward_gradient.least_eta=null"] if kernel == "ode" else []
    checked(f"algorithm={algorithm}", f"rollout.denoising.kernel={kernel}", "rollout.denoising.eta=1", *constant)


def test_distilled_models_take_reward_gradients_through_the_ode_only():
    spec = replace(SPEC, family="flux", guidance=Guidance.none, distilled=True)
    checked(*DRAFT, spec=spec)
    with pytest.raises(ConfigError, match="needs: use kernel=ode, or train its base model"):
        checked(*DRAFT, "rollout.denoising.kernel=ddim", "rollout.denoising.eta=1", spec=spec)


@pytest.mark.parametrize("algorithm", ["nft", "early_awm", "sft"])
def test_distilled_models_take_no_denoising_loss(algorithm):
    """It would be refused with noise and accepted without, for the same reason."""
    spec = replace(SPEC, family="flux", guidance=Guidance.none, distilled=True)
    demonstrations = SUPERVISED[1:] if algorithm == "sft" else []
    with pytest.raises(ConfigError, match=r"likelihood.kind=elbo: this flux model was distilled .*FLUX.1-dev"):
        checked(f"algorithm={algorithm}", *demonstrations, spec=spec)


def test_reward_gradients_are_not_for_text():
    with pytest.raises(ConfigError, match="tokens of a text have no such derivative"):
        check(compose(["recipe=quickstart", "algorithm.likelihood.kind=reward_gradient"]).config, None)


def test_texts_have_no_text_encoder():
    with pytest.raises(ConfigError, match="train=text_encoder is a part of image models"):
        check(compose(["recipe=quickstart", "model.train=text_encoder"]).config, None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.denoising.steps=0"], "rollout.denoising.steps=0: must be at least 1"),
        (["rollout.denoising.kernel=ode"], "kernel=ode draws no noise"),
        (["rollout.denoising.guidance_until=11"], "guidance_until=11"),
        (["rollout.denoising.window.kind=fixed", "rollout.denoising.window.start=8"], "outside the 9 steps"),
        (["rollout.denoising.window.kind=random", "rollout.denoising.window.stop=12"], "outside the 9 steps"),
        (["rollout.denoising.window.kind=sliding", "rollout.denoising.window.size=0"], "must be at least 1"),
        (["rollout.denoising.window.trained_fraction=0"], "trained_fraction=0"),
        (["algorithm=branch_grpo", f"{UNTRAINED}.size=0"], "size and every must be at least 1"),
        (["algorithm=branch_grpo", f"{UNTRAINED}.start=3"], "start at least final_start"),
        (["algorithm=branch_grpo", f"{UNTRAINED}.start=16"], "4 steps from 16 are not within the 19 steps"),
        (["algorithm=mix_grpo", f"{UNTRAINED}.size=4"], "window.kind=sliding chooses few; use kind=all"),
        (["algorithm=nft", f"{UNTRAINED}.size=4"], "window.untrained is for a replay of steps"),
        (["algorithm=dpok", f"{UNTRAINED}.size=4"], "leaves steps out; use trained_fraction=1 and untrained=null"),
        (["rollout.denoising.height=30"], "multiple of 4"),
        (["rollout.denoising.height=128"], "beyond the 64"),
        (["rollout.denoising.kernel=ddim"], "eta=1.5"),
        (["algorithm.kl.estimator=flow_grpo"], "use estimator=exact"),
        (["algorithm.likelihood.partition=shrink"], "partition=shrink groups rounds of a text"),
        (["algorithm.denominator=canvas"], "counts the positions of a text"),
        (["algorithm.ratio=guard", "rollout.denoising.storage=bf16"], "needs rollout.denoising.storage=fp32"),
        (["algorithm.clip_kl=0"], "clip_kl=0"),
        (["algorithm=sft"], "set data.train.image"),
        (["algorithm=dpo"], "set data.train.chosen_image and data.train.rejected_im"),
        ([*DRAFT, "algorithm.value.passes=1"], "needs a recorded trace, .* likelihood.kind=reward_gradient has none"),
        ([*DRAFT, "algorithm.advantage=zscore"], "use advantage=none, or algorithm=draft"),
        (
            [*DRAFT, "algorithm.objective=ppo_clip", "algorithm.ratio=element"],
            "needs objective=weighted and ratio=none",
        ),
        (["algorithm.advantage=none"], "advantage=none is for reward gradients"),
        ([*DRAFT, "algorithm.epochs=2"], "every optimizer update draws its own samples"),
        ([*DRAFT, "algorithm.minibatches=2"], "every optimizer update draws its own samples"),
        ([*DRAFT, "algorithm.kl.coefficient=1", "algorithm.kl.estimator=exact"], "base_pull to stay near"),
        ([*DRAFT, "rollout.denoising.window.kind=fixed"], "choose steps by algorithm.reward_gradient.last_steps"),
        ([*DRAFT, "algorithm.reward_gradient.last_steps=11"], "last_steps=11: must lie between 1 and .*steps=10"),
        ([*DRAFT, "algorithm.reward_gradient.last_steps=0"], "last_steps=0"),
        ([*DRAFT, "algorithm.reward_gradient.earliest_stop=10"], "earliest_stop=10: must be a step .* 0 to 9"),
        ([*DRAFT, "algorithm.reward_gradient.cut=gaussian", "algorithm.reward_gradient.cut_std=0"], "use cut=fixed"),
        ([*DRAFT, "algorithm.reward_gradient.renoise=-1"], "renoise=-1: must be at least 0"),
        (["algorithm.reward_gradient.renoise=2"], "does nothing with likelihood.kind=replay; leave it out"),
        ([*DRAFT, "algorithm.reward_gradient.cut_std=2"], "cut_std=2.0 does nothing with cut=fixed"),
        ([*DRAFT, "algorithm.reward_gradient.every=0"], "every=0: must be at least 1"),
        ([*DRAFT, "algorithm.reward_gradient.base_pull=-1"], "base_pull=-1.0: must be at least 0"),
        (["algorithm=r0", "algorithm.reward_gradient.least_eta=1"], "least_eta=1.0: must be at least 0 and below"),
        (["algorithm=r0", "algorithm.reward_gradient.least_eta=-1"], "least_eta=-1.0: must be at least 0"),
        ([*DRAFT, "algorithm.reward_gradient.least_eta=0"], "least_eta=0.0: kernel=ode draws no noise"),
        (["model.train=text_encoder"], "likelihood.kind=replay scores the network under encoded prompts"),
        ([*FORWARD, "model.train=text_encoder"], "likelihood.kind=elbo scores the network under encoded prompts"),
        ([*TEXT_ENCODER, "model.text_encoder_share=1.5"], "text_encoder_share=1.5: must lie in"),
        ([*DRAFT, "model.text_encoder_share=0.5"], "model.train=network tunes none"),
        (["model.prompt_segments=2"], "of family sd3, which reads a prompt whole, .* use prompt_segments=1"),
        ([*TEXT_ENCODER, "cluster.zero_stage=3"], "whole text encoders .* use a lower stage"),
        (
            [*DRAFT, "algorithm.reward_gradient.base_pull=1", "cluster.zero_stage=3"],
            "base_pull needs whole weights .* use a lower stage",
        ),
        (
            ["algorithm=draft_lv", "algorithm.reward_gradient.last_steps=2"],
            "repeats the last step of the schedule and no other",
        ),
    ],
)
def test_options_that_cannot_work(overrides, message):
    with pytest.raises(ConfigError, match=message):
        checked(*overrides)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheduler": DDIM}, "predicts flow, but its DDIMScheduler is configured for epsilon"),
        ({"prediction": Prediction.epsilon}, "predicts epsilon"),
        ({"scheduler": {"_class_name": "UniPCMultistepScheduler"}}, "unknown scheduler"),
        ({"family": "flux", "guidance": Guidance.none, "distilled": True}, "distilled to a few steps.*FLUX.1-dev"),
    ],
)
def test_checkpoints_that_cannot_be_trained_so(changes, message):
    with pytest.raises(ConfigError, match=message):
        checked(spec=replace(SPEC, **changes))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["rollout.denoising.kernel=precise", "rollout.denoising.window.kind=random"],
        ["noise_law=grid", "draws=4", "shared_noise=true", "level_range=[0.0,0.9]", "loss_weight=huber"],
        ["noise_law=inversion", "inversion_steps=5"],
    ],
)
@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, prediction=Prediction.epsilon, scheduler=DDIM)])
def test_denoising_losses_of_rollouts(overrides, spec):
    likelihood = [text if "." in text.split("=")[0] else f"algorithm.likelihood.{text}" for text in overrides]
    checked(*FORWARD, *likelihood, spec=spec)


@pytest.mark.parametrize("law", ["uniform", "logit_normal", "grid", "inversion"])
def test_demonstrations_have_every_law(law):
    """The grid is that of the schedule that evaluations sample with."""
    checked(*SUPERVISED, f"algorithm.likelihood.noise_law={law}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm.kl.estimator=exact"], "estimator=exact compares log-probabilities.*use estimator=output"),
        (["algorithm.clip_kl=0.1"], "clip_kl=0.1 is in nats"),
        (["algorithm.kl.to=old"], "kl.to=old keeps no outputs"),
        (["algorithm.ratio=guard"], "ratio=guard is made of Gaussian steps"),
        (["algorithm.likelihood.draws=0"], "draws=0: must be at least 1"),
        (["algorithm.likelihood.inversion_steps=5"], "inversion_steps=5 is for noise_law=inversion, not for uniform"),
        (["algorithm.likelihood.noise_law=inversion", "algorithm.likelihood.inversion_steps=0"], "must be at least 1"),
        (["algorithm.likelihood.noise_law=inversion", "algorithm.likelihood.inversion_steps=2000"], "2000 steps"),
        (["algorithm.likelihood.level_range=[0.5,0.2]"], "0 <= low < high <= 1"),
        (["algorithm.likelihood.level_range=[-0.5,0.2]"], "0 <= low < high <= 1"),
        (["algorithm.likelihood.level_range=[0,2]"], "0 <= low < high <= 1"),
        (["algorithm.likelihood.noise_law=grid", "algorithm.likelihood.level_range=[0,0.01]"], "none of the 10 levels"),
        (
            ["algorithm.likelihood.unconditional_gradient=false"],
            "unconditional_gradient=False does nothing with kind=elbo",
        ),
        (["rollout.denoising.window.trained_fraction=0.5"], "window.trained_fraction is for a replay"),
        (["rollout.denoising.log_prob=mean"], "log_prob is for a replay"),
        (
            [
                "rollout.denoising.kernel=precise",
                "rollout.denoising.window.kind=fixed",
                "rollout.denoising.window.size=12",
            ],
            "outside the 9 steps",
        ),
    ],
)
def test_options_that_a_denoising_loss_has_not(overrides, message):
    with pytest.raises(ConfigError, match=message):
        checked(*FORWARD, *overrides)


@pytest.mark.parametrize(
    "option",
    ["draws=2", "noise_law=grid", "level_range=[0,0.5]", "loss_weight=huber", "shared_noise=true", "inversion_steps=5"],
)
def test_options_that_a_replay_would_not_read(option):
    name = option.split("=")[0]
    with pytest.raises(ConfigError, match=f"algorithm.likelihood.{name}=.* does nothing with kind=replay"):
        checked(f"algorithm.likelihood.{option}")


def test_a_demonstration_shares_its_noise_with_nobody():
    with pytest.raises(ConfigError, match="a demonstration is alone"):
        checked(*SUPERVISED, "algorithm.likelihood.shared_noise=true")


@pytest.mark.parametrize("option", ["noise_law=grid", "loss_weight=time", "shared_noise=true", "inversion_steps=5"])
def test_noise_levels_are_not_for_text(option):
    with pytest.raises(ConfigError, match="does nothing for a model of texts"):
        check(
            compose(["recipe=quickstart", "algorithm.likelihood.kind=elbo", f"algorithm.likelihood.{option}"]).config,
            None,
        )


def test_outputs_are_not_compared_in_a_replay_or_for_text():
    with pytest.raises(ConfigError, match="with a replay use estimator=exact"):
        checked("algorithm.kl.estimator=output")
    with pytest.raises(ConfigError, match="compares outputs of image models"):
        check(compose(["recipe=quickstart", "algorithm.kl.estimator=output"]).config, None)


def test_guidance_of_a_model_that_takes_none():
    spec = replace(SPEC, family="flux", guidance=Guidance.none)
    with pytest.raises(ConfigError, match="takes none"):
        checked("rollout.denoising.guidance=3.5", spec=spec)


def test_gaussian_options_are_not_for_text():
    text = ["recipe=quickstart"]
    for option in ("algorithm.ratio=guard", "algorithm.kl.estimator=exact", "algorithm.kl.estimator=flow_grpo"):
        with pytest.raises(ConfigError, match="Gaussian"):
            check(compose([*text, option]).config, None)

"""Every scheduler that a pipeline may be shipped with: its own levels, whatever its options, or a refusal by name."""

from __future__ import annotations

from itertools import product
from typing import Any

import diffusers
import pytest
from diffusers.schedulers import KarrasDiffusionSchedulers

from models.images.prediction import Prediction
from rollout.images.kernels.corruption import ForwardProcess
from rollout.images.kernels.errors import KernelError
from rollout.images.kernels.levels import Level, levels, start_scale
from rollout.images.kernels.schedulers import scheduler_of

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
EULER = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
NAMES = ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", *EULER)
OTHERS = sorted({member.name for member in KarrasDiffusionSchedulers} - set(NAMES))
FLOW = "FlowMatchEulerDiscreteScheduler"
STEPS = 7

SPACINGS: list[dict[str, Any]] = [
    {},
    {"timestep_spacing": "leading"},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace"},
]
# One of these at a time, whether or not the class reads it.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"use_karras_sigmas": True},
    {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"use_lu_lambdas": True},
    {"use_flow_sigmas": True},
    {"interpolation_type": "log_linear"},
    {"final_sigmas_type": "sigma_min"},
    {"final_sigmas_type": "sigma_min", "use_karras_sigmas": True},
    {"timestep_type": "continuous"},
    {"set_alpha_to_one": False},
    {"set_alpha_to_one": True},
    {"rescale_betas_zero_snr": True},
    {"trained_betas": [0.001 + 0.00001 * step for step in range(1000)]},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "sigmoid"},
    {"skip_prk_steps": True},
    {"num_train_timesteps": 500},
]


def stock_levels(config: dict[str, Any], steps: int) -> tuple[list[float], list[float]]:
    """Times, and noise / signal at each and at the end, from the named class alone."""
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.tolist()
    if "Euler" in config["_class_name"]:
        return times, scheduler.sigmas.double().tolist()[: steps + 1]  # log_linear makes one that no step uses
    times = sorted(set(times), reverse=True)  # PNDM evaluates one twice
    powers = [scheduler.alphas_cumprod[time].item() for time in times]
    if config["_class_name"] == "DDPMScheduler":
        below = scheduler.previous_timestep(times[-1])
        assert below == -1  # where its step takes the clean image
    else:
        below = times[-1] - scheduler.config.num_train_timesteps // steps
    final = scheduler.alphas_cumprod[below] if below >= 0 else getattr(scheduler, "final_alpha_cumprod", 1.0)
    powers.append(float(final))
    return times, [((1 - power) / power) ** 0.5 if power else float("inf") for power in powers]


def levels_or_refusal(config: dict[str, Any], prediction: Prediction) -> tuple[Level, ...] | str:
    try:
        return levels(config, STEPS, 0, prediction)
    except KernelError as error:
        return str(error)


def ratio(level: Level) -> float:
    return level.noise / level.signal if level.signal else float("inf")


@pytest.mark.filterwarnings("ignore")  # diffusers takes the logarithm of an infinite sigma
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", NAMES)
def test_levels_are_the_named_scheduler_s_or_the_option_is_refused(name, prediction):
    """Diffusers' `set_timesteps` of the class itself, with that class's defaults for what the file leaves out."""
    ours = Prediction.v if prediction == "v_prediction" else Prediction.epsilon
    read: set[str] = set()
    for spacing, options in product(SPACINGS, OPTIONS):
        config = {"_class_name": name, **BETAS, "skip_prk_steps": True, "prediction_type": prediction}
        config |= {**spacing, **options}
        found = levels_or_refusal(config, ours)
        if isinstance(found, str):
            # sigmoid is a beta_schedule, which diffusers' own words do not name
            named = [*options, "set_alpha_to_one", "sigmoid is not implemented"]
            assert any(option in found for option in named), (config, found)
            continue
        times, sigmas = stock_levels(config, STEPS)
        assert [level.time for level in found[:-1]] == times, config
        assert [ratio(level) for level in found] == pytest.approx(sigmas, rel=2e-6), config
        assert all(abs(level.signal**2 + level.noise**2 - 1) < 1e-12 for level in found[:-1])
        read |= options.keys()
    assert {"trained_betas", "num_train_timesteps"} <= read
    if name == "EulerDiscreteScheduler":
        wanted = {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "interpolation_type"}
        assert wanted | {"final_sigmas_type"} <= read


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"use_beta_sigmas": True},
        {"shift_terminal": 0.02},
        {"use_dynamic_shifting": True, "time_shift_type": "linear"},
        {"num_train_timesteps": 500},
        {"stochastic_sampling": True},
    ],
)
def test_levels_of_flows_are_the_scheduler_s(options):
    config = {"_class_name": FLOW, "shift": 3.0, **options}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(STEPS, mu=0.5 if "use_dynamic_shifting" in options else None)  # of 256 tokens
    found = levels(config, STEPS, 256, Prediction.flow)
    assert [level.time for level in found] == [*scheduler.timesteps.tolist(), 0]
    assert [level.noise for level in found] == scheduler.sigmas.tolist()


@pytest.mark.parametrize("name", EULER)
def test_an_euler_scheduler_without_a_spacing_is_evenly_spaced(name):
    config = {"_class_name": name, **BETAS}
    assert levels(config, 10, 0, Prediction.epsilon) == levels(
        {**config, "timestep_spacing": "linspace"}, 10, 0, Prediction.epsilon
    )
    assert levels(config, 10, 0, Prediction.epsilon)[0].time == 999


def test_a_pndm_scheduler_ends_as_its_own_default_says():
    """DDIM's default is the clean image, PNDM's the first trained level."""
    config = {"_class_name": "PNDMScheduler", **BETAS, "steps_offset": 1}
    first_trained = scheduler_of(config).alphas_cumprod[0].item()
    assert levels(config, 10, 0, Prediction.epsilon)[-1].signal == first_trained**0.5


@pytest.mark.parametrize("name", [*OTHERS, "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"])
def test_other_schedulers_are_refused_by_name(name):
    assert hasattr(diffusers, name)
    with pytest.raises(KernelError, match=f"unknown scheduler '{name}'"):
        levels({"_class_name": name, **BETAS}, STEPS, 0, Prediction.epsilon)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("EulerDiscreteScheduler", {"use_karras_sigma": True}, "says use_karras_sigma=True, which neither Euler"),
        (FLOW, {"shfit": 3.0}, "says shfit=3.0, which neither FlowMatch"),
        ("DDIMScheduler", {"use_karras_sigmas": True}, "use_karras_sigmas=True, which DDIMScheduler does not read"),
        ("EulerDiscreteScheduler", {"use_lu_lambdas": True}, "use_lu_lambdas=True, which Euler.* does not read"),
        (FLOW, {"use_flow_sigmas": True}, "use_flow_sigmas=True, which FlowMatch.* does not read"),
        ("PNDMScheduler", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True, which PNDM.* does not read"),
        (
            "EulerDiscreteScheduler",
            {"timestep_type": "continuous", "prediction_type": "v_prediction"},
            "timestep_type=continuous",
        ),
        ("EulerDiscreteScheduler", {"timestep_spacing": "even"}, "makes no schedule .*even is not supported"),
        ("EulerDiscreteScheduler", {"beta_schedule": "cosine"}, "makes no schedule .*cosine is not implemented"),
        (
            "EulerDiscreteScheduler",
            {"use_karras_sigmas": True, "use_beta_sigmas": True},
            "makes no schedule .*Only one of",
        ),
        ("DDIMScheduler", {"trained_betas": [0.01] * 999}, "lists 999 trained_betas and .*num_train_timesteps=1000"),
        ("EulerDiscreteScheduler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, "no signal"),
        (FLOW, {"use_dynamic_shifting": True, "max_image_seq_len": 256}, "makes no schedule .*division by zero"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(name, options, message):
    config = {"_class_name": name, **({"shift": 3.0} if name == FLOW else BETAS), **options}
    prediction = {FLOW: Prediction.flow}.get(name, Prediction.epsilon)
    prediction = Prediction.v if "prediction_type" in options else prediction
    with pytest.raises(KernelError, match=message):
        levels(config, STEPS, 16, prediction)


def test_what_a_conversion_left_over_is_ignored_as_the_stock_pipeline_ignores_it():
    """Stable Diffusion XL's published file has options of four other schedulers."""
    config = {"_class_name": "EulerDiscreteScheduler", **BETAS, "timestep_spacing": "leading", "steps_offset": 1}
    published = {"set_alpha_to_one": False, "skip_prk_steps": True, "sample_max_value": 1.0, "trained_betas": None}
    published |= {"interpolation_type": "linear", "use_karras_sigmas": False, "_diffusers_version": "0.19.0.dev0"}
    found = levels({**config, **published, "solver_order": 2}, STEPS, 0, Prediction.epsilon)
    assert found == levels(config, STEPS, 0, Prediction.epsilon)
    assert (found[-1].signal, found[-1].noise) == (1, 0)


@pytest.mark.parametrize(
    ("name", "options", "advice"),
    [
        ("DDIMScheduler", {"set_alpha_to_one": False}, {"set_alpha_to_one": True}),
        ("DDIMScheduler", {"set_alpha_to_one": False}, {"steps_offset": 1}),
        ("DDIMScheduler", {"set_alpha_to_one": False, "timestep_spacing": "linspace"}, {"set_alpha_to_one": True}),
        ("PNDMScheduler", {"timestep_spacing": "linspace", "steps_offset": 1}, {"set_alpha_to_one": True}),
        ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}, {"final_sigmas_type": "zero"}),
    ],
)
def test_the_advice_for_a_last_step_that_leads_nowhere_helps(name, options, advice):
    config = {"_class_name": name, **BETAS, **options}
    for steps in (4, 25):
        with pytest.raises(KernelError) as refused:
            levels(config, steps, 0, Prediction.epsilon)
        ((option, value),) = advice.items()
        assert option in str(refused.value)
        assert f"to {str(value).lower()}" in str(refused.value)
        assert "change their number" not in str(refused.value)
        assert len(levels({**config, **advice}, steps, 0, Prediction.epsilon)) == steps + 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DDPMScheduler", {"beta_schedule": "sigmoid"}),
        ("EulerDiscreteScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ],
)
def test_denoising_losses_have_the_named_scheduler_s_trained_levels(name, options):
    config = {"_class_name": name, **BETAS, **options}
    prediction = Prediction.v if "prediction_type" in options else Prediction.epsilon
    trained = getattr(diffusers, name).from_config(config).alphas_cumprod
    process = ForwardProcess(config, prediction)
    for step in (0, 500, 999):
        assert process.level((step + 0.5) / 1000).signal == trained[step].item() ** 0.5


@pytest.mark.parametrize(
    ("name", "spacing", "pure"),
    [
        ("EulerDiscreteScheduler", "leading", True),
        ("EulerDiscreteScheduler", "linspace", False),
        ("EulerAncestralDiscreteScheduler", "trailing", False),
        ("DDIMScheduler", "linspace", True),
    ],
)
def test_a_chain_starts_at_the_scheduler_s_own_scale(name, spacing, pure):
    config = {"_class_name": name, **BETAS, "timestep_spacing": spacing, "steps_offset": 1}
    scheduler = getattr(diffusers, name).from_config(config)
    scheduler.set_timesteps(STEPS)
    first = levels(config, STEPS, 0, Prediction.epsilon)[0]
    in_their_units = 1.0 if name == "DDIMScheduler" else 1 / first.signal
    assert start_scale(config, first) * in_their_units == pytest.approx(float(scheduler.init_noise_sigma), rel=1e-6)
    assert (start_scale(config, first) == 1) is pure

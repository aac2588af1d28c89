"""Levels against the stock schedulers: their timesteps, their noise, and their own deterministic step."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from models.images.prediction import Prediction
from rollout.images.kernels.errors import KernelError
from rollout.images.kernels.gaussian import GaussianSteps
from rollout.images.kernels.levels import levels, start_scale
from rollout.options import KernelKind

LATENT_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SD15 = {
    "_class_name": "PNDMScheduler",
    **LATENT_BETAS,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "clip_sample": False,
}
SDXL = {**SD15, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
SD21 = {**SD15, "_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
ZERO_SNR = {**SD21, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "set_alpha_to_one": True}
SD3 = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
FLUX_DEV = {**SD3, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
FLUX_SCHNELL = {**SD3, "shift": 1.0}

VARIANCE_PRESERVING = {"SD15": SD15, "SDXL": SDXL, "SD21": SD21, "ZERO_SNR": ZERO_SNR}


def prediction_of(config: dict) -> Prediction:
    if "FlowMatch" in config["_class_name"]:
        return Prediction.flow
    return Prediction.v if config.get("prediction_type") == "v_prediction" else Prediction.epsilon


def network(x: torch.Tensor, time: float) -> torch.Tensor:
    """A random linear network that looks at the time: wrong times would show."""
    matrix = torch.randn(x.shape[-1], x.shape[-1], generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    return x @ matrix * 0.3 + torch.sin(torch.tensor(time) / 200)


def our_chain(
    config: dict, steps: int, x: torch.Tensor, image_tokens: int = 0, even_sigmas: bool = False
) -> torch.Tensor:
    schedule = levels(config, steps, image_tokens, prediction_of(config), even_sigmas=even_sigmas)
    kernel = GaussianSteps(prediction_of(config), schedule, KernelKind.ode, 0.0)
    for step, level in enumerate(schedule[:-1]):
        x = kernel.advance(x, network(x, level.time), step, noise=None)
    return x


def stock_chain(scheduler, x: torch.Tensor) -> torch.Tensor:
    for time in scheduler.timesteps:
        told = x if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) else scheduler.scale_model_input(x, time)
        x = scheduler.step(network(told, float(time)), time, x, return_dict=False)[0]
    return x


def relative_gap(ours: torch.Tensor, stock: torch.Tensor) -> float:
    return float((ours - stock).abs().max() / stock.abs().max())


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("steps", [4, 7, 20, 50])
@pytest.mark.parametrize("name", ["SD15", "SD21"])
def test_ode_equals_ddim(name, steps, x):
    config = VARIANCE_PRESERVING[name]
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    assert relative_gap(our_chain(config, steps, x), stock_chain(scheduler, x)) < 2e-6


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"timestep_spacing": "linspace"},
        {"timestep_spacing": "trailing", "use_karras_sigmas": True},
        {"interpolation_type": "log_linear"},
        {"final_sigmas_type": "sigma_min", "prediction_type": "v_prediction"},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "published",
)
def test_ode_equals_euler(options, steps, x):
    """Stable Diffusion XL's scheduler walks along noise / signal, ours along the circle: one path, from one start."""
    config = {**SDXL, **options}
    scheduler = EulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    schedule = levels(config, steps, 0, prediction_of(config))
    ours = our_chain(config, steps, x * start_scale(config, schedule[0]))
    assert relative_gap(ours, stock_chain(scheduler, x * scheduler.init_noise_sigma)) < 1e-5


@pytest.mark.parametrize("steps", [4, 20, 50])
def test_ode_equals_ddim_from_pure_noise(steps, x):
    """Zero terminal signal-to-noise: the first level holds no signal, which v-prediction can start from."""
    scheduler = DDIMScheduler.from_config(ZERO_SNR)
    scheduler.set_timesteps(steps)
    schedule = levels(ZERO_SNR, steps, 0, Prediction.v)
    assert (schedule[0].time, schedule[0].signal, schedule[0].noise) == (999.0, 0.0, 1.0)
    assert relative_gap(our_chain(ZERO_SNR, steps, x), stock_chain(scheduler, x)) < 2e-6


@pytest.mark.parametrize("steps", [4, 10, 28])
@pytest.mark.parametrize(
    "config",
    [SD3, {**SD3, "shift_terminal": 0.02}, {**SD3, "use_karras_sigmas": True}],
    ids=["plain", "terminal", "karras"],
)
def test_ode_equals_flow_matching(config, steps, x):
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    assert relative_gap(our_chain(config, steps, x), stock_chain(scheduler, x)) < 2e-6


@pytest.mark.parametrize("config", [FLUX_DEV, FLUX_SCHNELL], ids=["dev", "schnell"])
@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_ode_equals_flux(config, tokens, x):
    steps = 4
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    mu = calculate_shift(tokens) if config is FLUX_DEV else None
    scheduler.set_timesteps(steps, sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    ours = our_chain(config, steps, x, image_tokens=tokens, even_sigmas=True)
    assert relative_gap(ours, stock_chain(scheduler, x)) < 2e-6
    assert relative_gap(our_chain(config, steps, x, image_tokens=tokens), ours) > 1e-3  # the other pipelines' sigmas


def test_dynamic_shifting_looks_at_the_size_of_the_image():
    few, many = (levels(FLUX_DEV, 10, tokens, Prediction.flow, even_sigmas=True)[5].noise for tokens in (256, 4096))
    assert few < many


@pytest.mark.parametrize("config", [SD3, FLUX_DEV], ids=["sd3", "flux"])
@pytest.mark.parametrize("steps", [1, 10, 28])
def test_flow_times_are_the_scheduler_s_to_the_bit(config, steps):
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(steps, mu=calculate_shift(1024))
    schedule = levels(config, steps, 1024, Prediction.flow)
    assert [level.time for level in schedule[:-1]] == scheduler.timesteps.tolist()
    assert [level.noise for level in schedule] == scheduler.sigmas.tolist()
    assert schedule[-1].noise == 0
    assert all(level.signal + level.noise == 1 for level in schedule)
    if steps > 1:
        assert any(level.time % 1 for level in schedule), "no time is fractional: truncation would go unseen"


@pytest.mark.parametrize("steps", [1, 10, 28, 50, 400])
@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_variance_preserving_levels_are_the_scheduler_s_to_the_bit(name, steps):
    config = VARIANCE_PRESERVING[name]
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    schedule = levels(config, steps, 0, prediction_of(config))
    assert [level.time for level in schedule[:-1]] == scheduler.timesteps.tolist()
    for level in schedule[:-1]:
        power = float(scheduler.alphas_cumprod[int(level.time)])
        assert (level.signal, level.noise) == (power**0.5, (1 - power) ** 0.5)
    assert all(level.noise > following.noise for level, following in pairwise(schedule))


def test_final_level():
    last = float(DDIMScheduler.from_config(SD15).alphas_cumprod[0])
    assert levels(SD15, 20, 0, Prediction.epsilon)[-1].signal ** 2 == pytest.approx(last, abs=1e-12)
    clean = levels({**SD15, "set_alpha_to_one": True}, 20, 0, Prediction.epsilon)[-1]
    assert (clean.signal, clean.noise) == (1, 0)


def test_steps_lead_to_the_level_of_the_next_evaluation(x):
    """Where diffusers' DDIM step leads elsewhere. If this fails, diffusers was mended: drop the docstring's remark."""
    config = {**SD15, "timestep_spacing": "linspace", "set_alpha_to_one": True, "steps_offset": 0}
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(10)
    assert [level.time for level in levels(config, 10, 0, Prediction.epsilon)[:-1]] == scheduler.timesteps.tolist()
    assert relative_gap(our_chain(config, 10, x), stock_chain(scheduler, x)) > 1e-3


@pytest.mark.filterwarnings("ignore:invalid value")  # diffusers divides 0 by 0 for one step with shift_terminal
@pytest.mark.parametrize(
    ("config", "steps", "prediction", "message"),
    [
        ({**SD15, "_class_name": "UniPCMultistepScheduler"}, 10, Prediction.epsilon, "unknown scheduler"),
        ({}, 10, Prediction.epsilon, "unknown scheduler None"),
        (SD15, 10, Prediction.flow, "configured for epsilon"),
        (SD15, 10, Prediction.v, "configured for epsilon"),
        (SD21, 10, Prediction.epsilon, "configured for v"),
        (SD3, 10, Prediction.epsilon, "configured for flow"),
        ({**SD15, "prediction_type": "sample"}, 10, Prediction.epsilon, "prediction_type 'sample'"),
        ({**ZERO_SNR, "prediction_type": "epsilon"}, 10, Prediction.epsilon, "no signal"),
        (SD15, 0, Prediction.epsilon, "takes 1 to 1000"),
        (SD3, 0, Prediction.flow, "takes 1 to 1000"),
        (SD15, 1001, Prediction.epsilon, "takes 1 to 1000"),
        (SD15, 1000, Prediction.epsilon, "start at timestep 1000"),
        ({**SD15, "steps_offset": 1000}, 10, Prediction.epsilon, "correct steps_offset"),
        ({**SD15, "steps_offset": -1}, 10, Prediction.epsilon, "correct steps_offset"),
        (ZERO_SNR, 499, Prediction.v, "does not fall"),  # diffusers adds a timestep -1
        ({**SD21, "clip_sample": True}, 10, Prediction.v, "clip_sample"),
        ({"_class_name": "DDPMScheduler"}, 10, Prediction.epsilon, "clip_sample"),
        ({**SD3, "invert_sigmas": True}, 10, Prediction.flow, "invert_sigmas"),
        ({**SD3, "shift_terminal": 0.1}, 1, Prediction.flow, "does not fall"),
    ],
)
def test_errors(config, steps, prediction, message):
    with pytest.raises(KernelError, match=message):
        levels(config, steps, 0, prediction)


STANDS = {**SD15, "_class_name": "DDIMScheduler", "steps_offset": 0}


@pytest.mark.parametrize(
    ("config", "steps", "advice"),
    [
        (STANDS, 10, "set_alpha_to_one=false ends at timestep 0, .*: set it to true, or steps_offset to 1$"),
        (
            {**STANDS, "timestep_spacing": "linspace"},
            10,
            "set_alpha_to_one=false ends at timestep 0.*: set it to true$",
        ),
        ({**ZERO_SNR, "set_alpha_to_one": False}, 499, "does not fall at every one of 499 steps: change their number$"),
    ],
)
def test_what_makes_the_last_step_stand_still_is_named(config, steps, advice):
    with pytest.raises(KernelError, match=advice):
        levels(config, steps, 0, prediction_of(config))


def test_ddpm_ends_in_the_clean_image_wherever_its_last_step_begins():
    config = {**SD15, "_class_name": "DDPMScheduler", "steps_offset": 30}
    assert levels(config, 300, 0, Prediction.epsilon)[-1].noise == 0


def test_little_signal_is_enough_for_predicted_noise_where_the_schedule_was_not_made_to_have_none():
    config = {**SD15, "_class_name": "DDIMScheduler", "beta_end": 0.07}
    assert 0 < levels(config, 10, 0, Prediction.epsilon)[0].signal < 2.0**-12

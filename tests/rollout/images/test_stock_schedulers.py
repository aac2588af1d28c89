"""Our sampler draws what the stock pipeline draws with the scheduler that it was shipped with."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline

from configs.compose import compose
from models.images.checkpoint import read_image_spec
from models.images.policy import ImagePolicy
from models.images.spec import Condition
from rollout.images.guidance import Conditions
from rollout.images.sampler import ImageSampler, Schedule
from rollout.noise import Purpose, normal
from rollout.options import DenoisingOptions, KernelKind
from rollout.trajectory import contract
from tests.models.pipelines import image_options, tiny_pipeline
from tests.rl.support.gaussian_images import FLOW

KEYS = torch.tensor([5, 6])
OPTIONS = DenoisingOptions(steps=4, height=32, width=48, guidance=1.0, kernel=KernelKind.ode)

SETTINGS = {"sd": {"requires_safety_checker": False}, "sdxl": {"add_watermarker": False}}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> tuple[StableDiffusionXLPipeline, ImagePolicy]:
    """A tiny SDXL, and our policy around its network."""
    folder = tmp_path_factory.mktemp("sdxl")
    stock = tiny_pipeline("sdxl")
    stock.save_pretrained(folder)
    return stock, ImagePolicy(stock.unet, read_image_spec(image_options(folder)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_karras_sigmas": True},
        {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False},  # as SDXL is published
        {"timestep_spacing": "trailing", "use_exponential_sigmas": True, "final_sigmas_type": "sigma_min"},
    ],
    ids=lambda options: "-".join(options) or "defaults",
)
def test_final_latents_of_an_euler_scheduler(pipeline, options):
    """Without a spacing it is evenly spaced: taken for DDIM's, the finished latents were off by 43 %."""
    stock, policy = pipeline
    config = {**options, "_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear"}
    config |= {"beta_start": 0.00085, "beta_end": 0.012}
    stock.scheduler = EulerDiscreteScheduler.from_config(config)
    spec = replace(policy.spec, scheduler=config)
    embeds, _, pooled, _ = stock.encode_prompt(["red cat"] * 2, device="cpu", do_classifier_free_guidance=False)
    expected = stock(
        prompt_embeds=embeds,
        pooled_prompt_embeds=pooled,
        height=32,
        width=48,
        latents=normal(KEYS, spec.latent_shape(32, 48), 0, Purpose.INITIAL),
        num_inference_steps=OPTIONS.steps,
        guidance_scale=1.0,
        output_type="latent",
    ).images
    sampler = ImageSampler(policy, Schedule(spec, OPTIONS), torch.device("cpu"))
    conditions = Conditions(Condition(embeds, pooled), None, None)
    keys = KEYS[:, None].expand(-1, OPTIONS.steps)
    final = torch.from_numpy(sampler.sample(conditions, keys, KEYS, (), range(0)).final)
    assert (final - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("family", "times"), [("sd", [751, 501, 251, 1]), ("sdxl", [750, 500, 250, 0])])
def test_what_a_pipeline_writes_over_its_scheduler_is_read(tmp_path: Path, family: str, times: list[int]) -> None:
    """Stable Diffusion's sets steps_offset=1 and clip_sample=false and warns; others leave their schedulers alone."""
    pipeline = tiny_pipeline(family)
    pipeline.save_pretrained(tmp_path)
    outdated = DDIMScheduler(beta_schedule="scaled_linear", steps_offset=0, clip_sample=family == "sd")
    outdated.save_pretrained(tmp_path / "scheduler")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        loaded = type(pipeline)(**{**pipeline.components, "scheduler": outdated, **SETTINGS[family]}).scheduler
    assert any("steps_offset" in str(each.message) for each in warned) is (family == "sd")
    loaded.set_timesteps(OPTIONS.steps)
    schedule = Schedule(read_image_spec(image_options(tmp_path)), OPTIONS)
    assert [level.time for level in schedule.levels[:-1]] == loaded.timesteps.tolist() == times


@pytest.mark.parametrize(("said", "last"), [(None, 0.008929), (False, 0.008929), (True, 0.5)])
def test_even_sigmas_can_be_asked_for(said: bool | None, last: float) -> None:
    """Stable Diffusion 3 leaves its scheduler sigmas that end near 0; DanceGRPO walks 1, 3/4, 2/4, 1/4 on it too."""
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    spec = replace(FLOW, scheduler=scheduler, even_sigmas=False)
    schedule = Schedule(spec, replace(OPTIONS, steps=4, height=None, width=None, even_sigmas=said))
    assert schedule.levels[-2].noise == pytest.approx(last, rel=1e-4)
    assert ("even_sigmas" in contract(schedule.options)) is (said is not None)


def test_dance_grpo_walks_even_sigmas() -> None:
    assert compose(["recipe=quickstart_image", "algorithm=dance_grpo"]).config.rollout.denoising.even_sigmas is True

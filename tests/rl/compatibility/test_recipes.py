"""Every packaged recipe passes, with what its checkpoint is and before that is known."""

from __future__ import annotations

import pytest

from configs.compose import PACKAGE
from models.images.prediction import Prediction
from models.images.spec import Guidance, ImageSpec
from models.text.spec import TextSpec
from tests.rl.compatibility.test_compatibility import BLOCK, FULL, problems, spec

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False, "steps_offset": 1}


def image_spec(
    family: str, size: int, cell: int, patch: int, guidance: Guidance = Guidance.classifier_free
) -> ImageSpec:
    flow = family in ("sd3", "flux")
    return ImageSpec(
        family=family,
        prediction=Prediction.flow if flow else Prediction.epsilon,
        guidance=guidance,
        distilled=False,
        latent_channels=4,
        pixels_per_cell=cell,
        patch=patch,
        image_size=size,
        largest_size=None,
        even_sigmas=family == "flux",
        scheduler=FLOW if flow else DDIM,
    )


OWN_FILES = ["data.train.name=train.jsonl", "data.evaluation.name=test.jsonl"]
NEEDED = dict.fromkeys(("sd15_jpeg", "sd35_medium_flow_grpo", "flux_dev_mix_grpo"), OWN_FILES)
SPECS: dict[str, TextSpec | ImageSpec] = {
    "quickstart_image": image_spec("sd3", 32, 4, 2),
    "sft_tiny_scenes": image_spec("sd3", 32, 4, 2),
    "sft_tiny_digits": image_spec("sd", 32, 4, 1),
    "digits_jpeg": image_spec("sd", 32, 4, 1),
    "digits_draft": image_spec("sd", 32, 4, 1),
    "sd15_jpeg": image_spec("sd", 512, 8, 1),
    "sd35_medium_flow_grpo": image_spec("sd3", 1024, 8, 2),
    "flux_dev_mix_grpo": image_spec("flux", 1024, 8, 2, Guidance.embedded),
    "quickstart": BLOCK,
    "sft_tiny_block": BLOCK,
    "sft_tiny_full": FULL,
    "sdar_8b_math": spec("sdar", 4, 32768),
    "trado_4b_math": spec("sdar", 4, 32768),
    "llada_8b_gsm8k": spec("llada", None, 4096),
    "dream_7b_gsm8k": spec("dream", None, 2048),
}


@pytest.mark.parametrize("recipe", sorted(file.stem for file in (PACKAGE / "recipe").glob("*.yaml")))
def test_packaged_recipes_pass(recipe: str) -> None:
    needed = NEEDED.get(recipe, [])
    assert problems(needed, SPECS[recipe], recipe) == []
    assert problems(needed, None, recipe) == []

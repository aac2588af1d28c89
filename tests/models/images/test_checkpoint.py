"""Loading image pipelines: what is read, and one clear error for everything that can be wrong with a folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file

from models.files import CheckpointError
from models.images.checkpoint import (
    check_image_weights,
    load_image_codec,
    load_image_policy,
    load_prompt_encoder,
    read_image_spec,
    read_prompt_limits,
)
from models.images.policy import Guidance, Prediction
from tests.models.pipelines import CLIP_TOKENS, NAMES, ddim, image_options, tiny_pipeline

NETWORK, ENCODER = "diffusion_pytorch_model.safetensors", "model.safetensors"


@pytest.fixture
def copy(pipelines: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a pipeline's folder, to be damaged."""
    return lambda name: shutil.copytree(pipelines[name], tmp_path / name)


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | changes))


def edit_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "prediction", "guidance", "patch", "image_size", "largest_size"),
    [
        ("sd", Prediction.epsilon, Guidance.classifier_free, 1, 32, None),
        ("sdxl", Prediction.epsilon, Guidance.classifier_free, 1, 32, None),
        ("sd3", Prediction.flow, Guidance.classifier_free, 2, 32, 64),
        ("flux", Prediction.flow, Guidance.embedded, 2, 256, None),
    ],
)
def test_spec(pipelines: dict[str, Path], name: str, prediction, guidance, patch, image_size, largest_size) -> None:
    policy = load_image_policy(image_options(pipelines[name]))
    spec = read_image_spec(image_options(pipelines[name]))
    check_image_weights(image_options(pipelines[name]))
    assert spec == policy.spec
    assert (spec.family, spec.prediction, spec.guidance, spec.patch) == (name, prediction, guidance, patch)
    assert (spec.image_size, spec.largest_size, spec.distilled) == (image_size, largest_size, False)
    assert (spec.latent_channels, spec.pixels_per_cell) == (4, 2)
    assert spec.latent_shape(64, 32) == (4, 32, 16)
    assert spec.scheduler["_class_name"].endswith("Scheduler")
    assert not policy.training
    assert all(parameter.requires_grad for parameter in policy.parameters())


def test_schnell_is_recognised_by_its_missing_guidance_input(tmp_path: Path) -> None:
    tiny_pipeline("flux", guidance_embeds=False).save_pretrained(tmp_path)
    spec = read_image_spec(image_options(tmp_path))
    assert (spec.guidance, spec.distilled) == (Guidance.none, True)


def test_v_prediction_is_read_from_the_scheduler(copy: Callable[[str], Path]) -> None:
    folder = copy("sd")
    ddim(prediction_type="v_prediction").save_pretrained(folder / "scheduler")
    assert read_image_spec(image_options(folder)).prediction is Prediction.v


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("sd", (33, 32), "height of 33 pixels .* multiple of 2 .* such as 32"),
        ("sd3", (32, 34), "width of 34 pixels .* multiple of 4 "),
        ("flux", (32, 0), "width of 0 pixels"),
        ("sd3", (68, 32), "height of 68 pixels is beyond the 64"),
    ],
)
def test_impossible_image_sizes(pipelines: dict[str, Path], name: str, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_image_spec(image_options(pipelines[name])).latent_shape(*size)


def test_files_of_older_versions_are_read(copy: Callable[[str], Path]) -> None:
    """Stable Diffusion 1.5 on the hub: other names in the VAE's attention, and a table of positions in the encoder."""
    folder = copy("sd")
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    condition = load_prompt_encoder(image_options(folder)).encode(["cat"]).embeds
    images = load_image_codec(image_options(folder)).decode(latents)

    old_names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = load_file(folder / "vae" / NETWORK)
    for new, old in old_names.items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, folder / "vae" / NETWORK, metadata={"format": "pt"})
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(folder / "text_encoder" / ENCODER).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(CLIP_TOKENS)[None]
    save_file(tensors, folder / "text_encoder" / ENCODER, metadata={"format": "pt"})

    assert torch.equal(load_prompt_encoder(image_options(folder)).encode(["cat"]).embeds, condition)
    assert torch.equal(load_image_codec(image_options(folder)).decode(latents), images)


@pytest.mark.parametrize("name", NAMES)
def test_loading_reads_and_changes_no_global_random_state(pipelines: dict[str, Path], name: str) -> None:
    before = torch.get_rng_state()
    load_image_policy(image_options(pipelines[name]))
    load_prompt_encoder(image_options(pipelines[name]))
    load_image_codec(image_options(pipelines[name]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "file", "changes", "message"),
    [
        ("sd", "model_index.json", {"_class_name": "PixArtAlphaPipeline"}, "'PixArt.*StableDiffusion3Pipeline, Flux"),
        ("sd", "model_index.json", {"unet": ["my_code", "Net"]}, "takes unet from 'my_code'"),
        ("sd", "model_index.json", {"unet": ["diffusers", "UNet2DModel"]}, "UNet2DConditionModel only"),
        ("sd", "model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "only AutoencoderKL"),
        ("sd", "model_index.json", {"text_encoder": [None, None]}, "names no text_encoder"),
        (
            "sd",
            "model_index.json",
            {"text_encoder": ["transformers", "Clip"]},
            "Clip, which transformers does not have",
        ),
        ("sd", "unet/config.json", {"in_channels": 9}, "in_channels=9, but the VAE's 4 latent channels need 4"),
        ("sd", "unet/config.json", {"out_channels": 8}, "out_channels=8"),
        (
            "sd",
            "unet/config.json",
            {"cross_attention_dim": 64},
            "cross_attention_dim=64, but the text encoders give 32",
        ),
        ("sd", "unet/config.json", {"time_cond_proj_dim": 256}, "time_cond_proj_dim=256; .* None only"),
        ("sd", "unet/config.json", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("sd", "unet/config.json", {"sample_size": [16, 24]}, "sample_size"),
        ("sdxl", "unet/config.json", {"addition_embed_type": None}, "'text_time' only"),
        ("sdxl", "unet/config.json", {"projection_class_embeddings_input_dim": 64}, "give 72"),
        ("sd3", "transformer/config.json", {"pooled_projection_dim": 48}, "pooled_projection_dim=48.*give 44"),
        ("sd3", "transformer/config.json", {"joint_attention_dim": 96}, "joint_attention_dim=96.*give 64"),
        ("sd3", "transformer/config.json", {"joint_attention_dim": 48}, "joint_attention_dim=48.*CLIP encoders' .* 64"),
        ("flux", "transformer/config.json", {"in_channels": 4}, "in_channels=4.* need 16"),
        ("flux", "transformer/config.json", {"joint_attention_dim": 96}, "joint_attention_dim=96.*give 64"),
        ("flux", "transformer/config.json", {"pooled_projection_dim": 48}, "pooled_projection_dim=48.*give 32"),
        ("flux", "vae/config.json", {"latent_channels": 16}, "in_channels=16.* need 64"),
        ("sd", "scheduler/scheduler_config.json", {"prediction_type": "sample"}, "'sample'.*epsilon or v_prediction"),
    ],
)
def test_contradictory_descriptions(
    copy: Callable[[str], Path], name: str, file: str, changes: dict[str, Any], message: str
) -> None:
    folder = copy(name)
    edit(folder / file, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_image_spec(image_options(folder))
    assert str(folder) in str(caught.value)


def test_a_scheduler_of_the_other_kind_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("sd")
    FlowMatchEulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    with pytest.raises(CheckpointError, match=r"FlowMatchEulerDiscreteScheduler.*sd predict epsilon or v_prediction"):
        read_image_spec(image_options(folder))
    folder = copy("sd3")
    EulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    with pytest.raises(CheckpointError, match=r"EulerDiscreteScheduler.*'epsilon'.*sd3 predict flow_prediction"):
        read_image_spec(image_options(folder))


@pytest.mark.parametrize("missing", ["model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_missing_parts(copy: Callable[[str], Path], missing: str) -> None:
    folder = copy("sd")
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=f"{path}: no such f"):
        read_image_spec(image_options(folder))


def test_missing_folder() -> None:
    with pytest.raises(CheckpointError, match="there is no such folder"):
        read_image_spec(image_options(Path("not/a/folder")))


COMPONENTS = [
    ("sd", "unet", NETWORK, load_image_policy),
    ("sd3", "transformer", NETWORK, load_image_policy),
    ("sd", "vae", NETWORK, load_image_codec),
    ("sd", "text_encoder", ENCODER, load_prompt_encoder),
    ("sd3", "text_encoder_3", ENCODER, load_prompt_encoder),
]


@pytest.mark.parametrize(("name", "component", "weights", "load"), COMPONENTS)
def test_missing_and_truncated_weights(copy: Callable[[str], Path], name: str, component: str, weights, load) -> None:
    folder = copy(name)
    file = folder / component / weights
    os.truncate(file, file.stat().st_size - 10)
    for action in (load, check_image_weights):
        with pytest.raises(CheckpointError, match=f"{file}: truncated"):
            action(image_options(folder))
    file.unlink()
    for action in (load, check_image_weights):
        with pytest.raises(CheckpointError, match=f"{file}: no such file"):
            action(image_options(folder))


@pytest.mark.parametrize(("name", "component", "weights", "load"), COMPONENTS)
def test_wrong_tensors(copy: Callable[[str], Path], name: str, component: str, weights, load) -> None:
    """The libraries only warn, and go on with random values."""
    folder = copy(name)
    file = folder / component / weights
    lost = next(key for key in load_file(file) if "norm" in key and key.endswith(".weight"))
    edit_tensors(file, lambda tensors: tensors.update({"extra.weight": torch.ones(2)}))
    with pytest.raises(CheckpointError, match=f"{file.parent}: unexpected tensor extra.weight"):
        load(image_options(folder))
    edit_tensors(file, lambda tensors: tensors.update({lost: torch.ones(3)}))
    with pytest.raises(CheckpointError, match=f"{file.parent}: tensor of another shape .* {lost}"):
        load(image_options(folder))
    edit_tensors(file, lambda tensors: tensors.pop(lost))
    with pytest.raises(CheckpointError, match=f"{file.parent}: no tensor {lost}"):
        load(image_options(folder))


def test_a_folder_without_tokenizer_files_is_refused(copy: Callable[[str], Path]) -> None:
    """Transformers would make a tokenizer of two words."""
    folder = copy("sd")
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=f"{folder / 'tokenizer'}: unreadable tokenizer"):
        read_prompt_limits(image_options(folder))
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=f"{folder / 'tokenizer'}: no tokenizer: vocab.json with merges.txt"):
        load_prompt_encoder(image_options(folder))


def test_a_tokenizer_of_another_encoder_is_refused(copy: Callable[[str], Path]) -> None:
    folder = copy("sd")
    edit(folder / "tokenizer" / "tokenizer_config.json", model_max_length=77)
    with pytest.raises(CheckpointError, match=r"model_max_length=77, .* positions for 16 tokens"):
        read_prompt_limits(image_options(folder))
    edit(folder / "text_encoder" / "config.json", vocab_size=30)
    with pytest.raises(CheckpointError, match=r"ids up to 53, .* 30 rows"):
        read_prompt_limits(image_options(folder))

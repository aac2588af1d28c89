"""Mistakes with image models, as their user makes them: one clear message each, before work is lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFile
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors.torch import load_file, save_file

from models.tiny.create import main as create
from rl.run.metrics import read_rows
from tests.models.pipelines import tiny_pipeline
from tests.rl.support.bad_rewards import always_raises
from tests.rl.support.command_line import CommandLine
from tests.rl.support.training import SMALL, SMALL_IMAGES

ROOT = Path(__file__).parents[3]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Tiny pipelines by family, made once."""
    root = tmp_path_factory.mktemp("models")

    def folder(family: str, **changes: object) -> Path:
        path = root / "-".join([family, *changes])
        if not path.exists():
            tiny_pipeline(family, **changes).save_pretrained(path)
        return path

    return folder


@pytest.fixture
def damaged(folders: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of a Stable Diffusion 3 folder, for a test to damage."""
    return Path(shutil.copytree(folders("sd3"), tmp_path / "damaged"))


def training(model: Path, folder: Path, *overrides: str) -> list[str]:
    return ["train", *SMALL_IMAGES, f"model.path={model}", f"run.folder={folder}", "run.name=bad", *overrides]


def refused(denoiserl: CommandLine, model: Path, folder: Path, *overrides: str) -> str:
    message = denoiserl.refuses(*training(model, folder, *overrides))
    assert not (folder / "bad").exists()  # no run folder that a later run would go on from
    return message


# The pipeline folder


@pytest.mark.parametrize("missing", ["transformer", "scheduler", "tokenizer_2", "text_encoder_3"])
def test_missing_component(denoiserl: CommandLine, damaged: Path, tmp_path: Path, missing: str) -> None:
    shutil.rmtree(damaged / missing)
    message = refused(denoiserl, damaged, tmp_path)
    assert f"{damaged / missing}" in message
    assert "no such f" in message


def test_weights_of_a_component_that_only_the_workers_would_load(
    denoiserl: CommandLine, damaged: Path, tmp_path: Path
) -> None:
    (damaged / "vae" / WEIGHTS).unlink()
    assert f"{damaged / 'vae' / WEIGHTS}: no such file" in refused(denoiserl, damaged, tmp_path)


def test_a_checkpoint_of_the_other_modality(
    denoiserl: CommandLine, folders: Callable[..., Path], tmp_path: Path
) -> None:
    create("block", str(tmp_path / "text"))
    message = refused(denoiserl, tmp_path / "text", tmp_path)
    assert f"{tmp_path}/text/model_index.json: no such file" in message
    text = ["train", *SMALL, f"model.path={folders('sd3')}", f"run.folder={tmp_path}", "run.name=bad"]
    message = denoiserl.refuses(*text)
    assert f"checkpoint {folders('sd3')} is a diffusers pipeline: set model.modality=image" in message


@pytest.mark.parametrize(("family", "scheduler"), [("sd", FlowMatchEulerDiscreteScheduler()), ("sd3", DDIMScheduler())])
def test_scheduler_that_does_not_fit_the_prediction(
    denoiserl: CommandLine, folders: Callable[..., Path], tmp_path: Path, family: str, scheduler: object
) -> None:
    folder = Path(shutil.copytree(folders(family), tmp_path / "model"))
    scheduler.save_pretrained(folder / "scheduler")  # type: ignore[attr-defined]
    message = refused(denoiserl, folder, tmp_path)
    assert type(scheduler).__name__ in message
    assert f"{family} predict" in message


# Options that the model cannot have


def test_noise_in_a_model_that_was_distilled_without_guidance(
    denoiserl: CommandLine, folders: Callable[..., Path], tmp_path: Path
) -> None:
    schnell = folders("flux", guidance_embeds=False)
    for kernel in ("precise", "flow_sde"):
        eta = {"precise": 1.5, "flow_sde": 0.7}[kernel]
        options = [f"rollout.denoising.kernel={kernel}", f"rollout.denoising.eta={eta}"]
        message = refused(denoiserl, schnell, tmp_path, *options)
        assert f"rollout.denoising.kernel={kernel}: this flux model was distilled to a few steps" in message
        assert "FLUX.1-dev" in message
    assert "takes none; use guidance=1" in refused(denoiserl, schnell, tmp_path, "rollout.denoising.guidance=3.5")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["window.kind=fixed", "window.start=2", "window.size=2"], "2 steps from 2, up to 3, are outside the 3 steps"),
        (["window.kind=sliding", "window.size=4"], "outside the 3 steps that draw noise"),
        (["height=30"], "multiple of 4"),
        (["height=128", "width=128"], "beyond the 64"),
    ],
)
def test_window_and_size(
    denoiserl: CommandLine, folders: Callable[..., Path], tmp_path: Path, overrides: list[str], expected: str
) -> None:
    options = [f"rollout.denoising.{override}" for override in overrides]
    assert expected in refused(denoiserl, folders("sd3"), tmp_path, *options)


# The data


def rows_of(path: Path, rows: list[dict[str, object]]) -> list[str]:
    """Overrides that train on these rows."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = [f"data.train.name={path}", "data.train.size=null", "data.train.prompt='{{ prompt }}'"]
    return ["data=captions", *source, "data.evaluation=null"]


def test_a_prompt_beyond_the_encoder_is_named(
    denoiserl: CommandLine, folders: Callable[..., Path], tmp_path: Path
) -> None:
    rows: list[dict[str, object]] = [{"prompt": "red"}] * 3 + [{"prompt": "a dog that runs far"}]
    message = refused(denoiserl, folders("sd3"), tmp_path, *rows_of(tmp_path / "rows.jsonl", rows))
    assert "rows.jsonl/3: prompt 'a dog that runs far' has 17 tokens with the special ones" in message
    assert "but its tokenizer allows 16" in message
    options = [*rows_of(tmp_path / "rows.jsonl", rows[:3]), "model.max_sequence_length=4"]
    message = refused(denoiserl, folders("sd3"), tmp_path, *options)
    assert "model.max_sequence_length allows 4" in message


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (Image.new("RGB", (16, 24)), "(24, 16, 3)"),
        (Image.new("L", (32, 32)), "(32, 32)"),
        (Image.new("RGBA", (32, 32)), "(32, 32, 4)"),
    ],
)
def test_a_demonstration_of_another_size_or_kind_is_named(
    denoiserl: CommandLine, folders: Callable[..., Path], tmp_path: Path, last: Image.Image, expected: str
) -> None:
    """In a data set of image files, all of which but one are as they should be."""
    pictures = [Image.new("RGB", (32, 32))] * 3 + [last]
    features = Features({"prompt": Value("string"), "picture": ImageFile()})
    Dataset.from_dict({"prompt": ["red"] * 4, "picture": pictures}, features).save_to_disk(str(tmp_path / "data"))
    options = ["data=captions", "data.train.kind=dataset", f"data.train.name={tmp_path / 'data'}"]
    options += ["data.train.image=picture", "data.train.size=null", "data.evaluation=null", "algorithm=sft"]
    message = refused(denoiserl, folders("sd3"), tmp_path, *options)
    assert f"the image of data/3 is uint8 of shape {expected}; this model is trained on uint8" in message


def test_demonstrations_of_another_size_than_the_configured_one(
    denoiserl: CommandLine, folders: Callable[..., Path], tmp_path: Path
) -> None:
    options = ["algorithm=sft", "rollout.denoising.height=64", "rollout.denoising.width=64"]
    message = refused(denoiserl, folders("sd3"), tmp_path, *options)
    assert "is uint8 of shape (32, 32, 3); this model is trained on uint8 of shape (64, 64, 3)" in message
    assert "(rollout.denoising.height and width): convert or resize the data" in message


# The reward


def test_a_reward_of_the_other_modality(denoiserl: CommandLine, folders: Callable[..., Path], tmp_path: Path) -> None:
    message = refused(denoiserl, folders("sd3"), tmp_path, "reward.terms.answer.function=math")
    assert "reward.terms.answer.function=math is a reward of texts, but model.modality=image" in message
    create("block", str(tmp_path / "text"))
    text = ["train", *SMALL, f"model.path={tmp_path / 'text'}", f"run.folder={tmp_path}", "run.name=bad"]
    message = denoiserl.refuses(*text, "reward.terms.jpeg.function=jpeg_compressibility")
    assert "reward.terms.jpeg.function=jpeg_compressibility is a reward of images, but model.modality=text" in message


@pytest.mark.slow
def test_a_measure_that_always_fails_costs_nothing(
    denoiserl: CommandLine, folders: Callable[..., Path], tmp_path: Path, cluster: None
) -> None:
    """With no failed samples allowed; and in an evaluation too."""
    function = f"tests.rl.support.bad_rewards.{always_raises.__name__}"
    measure = [f"reward.terms.broken.function={function}", "reward.terms.broken.weight=0"]
    options = [
        *measure,
        "reward.try_first=false",
        "reward.max_failed_fraction=0",
        "run.updates=1",
        "evaluation.every=1",
        "evaluation.samples=0",
    ]
    held_out = ["data.evaluation.size=2", "data.evaluation.prompt=red"]
    finished = denoiserl(*training(folders("sd3"), tmp_path, *options, *held_out))
    assert finished.code == 0, finished.output
    told = "the measure broken (weight 0) has no value for {} of {} samples, which keep their reward; first: broken: "
    assert "update 0: " + told.format(16, 16) + "exception: KeyError" in finished.output
    assert "evaluation after update 1: " + told.format(2, 2) in finished.output
    assert "(32, 32, 3)" in finished.output  # the image, in short
    assert "could not be scored" not in finished.output
    (row,) = read_rows(tmp_path / "bad/metrics.jsonl")
    assert row["reward/unscored"] == 0
    assert "reward/broken" not in row
    assert row["reward/mean"] == row["reward/redness"] > 0
    failures = read_rows(tmp_path / "bad/failures.jsonl")
    assert [row["term"] for row in failures] == ["broken"] * (2 + 16 + 2)


# Numbers


def test_weights_with_nan(denoiserl: CommandLine, damaged: Path, tmp_path: Path, cluster: None) -> None:
    file = damaged / "transformer" / WEIGHTS
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("to_q.weight"))
    tensors[name][0, 0] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    message = denoiserl.fails(*training(damaged, tmp_path))
    assert "trajectory of prompt 'scenes/" in message
    assert "latents are not finite. Before the first update: the checkpoint's weights are damaged" in message
    assert "model.precision=fp32" in message
    run = tmp_path / "bad"
    assert read_rows(run / "metrics.jsonl") == []
    assert not list(run.rglob("*.parquet"))
    assert not list(run.rglob("*.png"))
    assert not list((run / "checkpoints").glob("*"))

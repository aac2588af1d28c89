"""`denoiserl sample`, `eval`, `export` and `config` for image models, on tiny random pipelines and a short real run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from rl.drawing.pictures import KEPT, kept_images
from rl.run.metrics import read_rows
from tests.documentation import blocks as documented
from tests.documentation import commands, run_command
from tests.models.pipelines import T5_TOKENS
from tests.rl.support.command_line import CommandLine
from tests.rl.support.rewards import redness
from tests.rl.support.training import SMALL_IMAGES, small_run

ROOT = Path(__file__).parents[3]
PAGE = "docs/images.md"
SHORT_PROMPTS = ["data.train.prompt='{{ prompt[:7] }}'", "data.evaluation.prompt='{{ prompt[:7] }}'"]
"""The test's text encoders have a token for each letter."""
SOLVED_AT = 0.374
"""Redness of about half of the untrained pipeline's images."""
TERMS = ("objects", "colours", "counts", "positions")


@pytest.fixture(scope="module")
def finished(flow: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters, trained for two updates and evaluated before and after, with two samples of each problem."""
    folder = tmp_path_factory.mktemp("runs")
    small_run(
        flow,
        folder,
        "run.name=lora",
        "model.lora.rank=2",
        "model.lora.target_modules=[to_q,to_k,to_v,to_out.0]",
        "algorithm.optimizer.learning_rate=1e-2",
        f"reward.solved_at={SOLVED_AT}",
        "run.updates=2",
        "evaluation.every=2",
        "evaluation.samples=2",
        "evaluation.images_per_prompt=2",
        "data.evaluation.size=12",
        base=[*SMALL_IMAGES, *SHORT_PROMPTS],
    )
    return folder / "lora"


def fresh(flow: Path, *overrides: str) -> list[str]:
    """Overrides of a configuration that has no run."""
    return [*SMALL_IMAGES, *SHORT_PROMPTS, "reward=scene", f"model.path={flow}", "run.name=x", *overrides]


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def blocks(page: np.ndarray) -> int:
    """Images on a page of noisy 32-pixel images: connected stretches without white, along the lines that have them."""
    filled = (page < 250).any(-1)
    count = 0
    for band in _stretches(filled.mean(1) > 0.2):
        count += len(_stretches(filled[band].mean(0) > 0.9))
    return count


def _stretches(marked: np.ndarray) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(int)))
    return [slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 30]


# config


def test_config_of_an_image_recipe(denoiserl: CommandLine) -> None:
    recipe = ["recipe=quickstart_image", "algorithm=dance_grpo"]
    output = denoiserl("config", *recipe).output
    assert "modality: image" in output
    assert "kernel: dance_sde" in output
    message = denoiserl.refuses("config", *recipe, "rollout.denoising.kernel=ode")
    assert "kernel=ode draws no noise" in message


# sample


def test_sample_of_a_configuration(denoiserl: CommandLine, flow: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    finished = denoiserl("sample", *fresh(flow), "--prompt", "a red dog")
    assert finished.code == 0, finished.output
    assert not finished.used_ray
    assert finished.output.startswith("a red dog sample 1: not scored: scene: ")  # it says what the prompt must have
    assert "1 image written to samples.png" in finished.output
    one = read(tmp_path / "samples.png")
    assert blocks(one) == 1
    again = denoiserl("sample", *fresh(flow), "--prompt", "a red dog", "--output", "again.png")
    assert again.code == 0
    assert np.array_equal(read(tmp_path / "again.png"), one)  # the same whenever it is asked for
    denoiserl("sample", *fresh(flow, "run.seed=1"), "--prompt", "a red dog", "--output", "other.png")
    assert not np.array_equal(read(tmp_path / "other.png"), one)


def test_sample_several_of_several_problems(denoiserl: CommandLine, flow: Path, tmp_path: Path) -> None:
    target = tmp_path / "grid.png"
    finished = denoiserl("sample", *fresh(flow), "--problems", "3", "--count", "4", "--output", target)
    assert finished.code == 0, finished.output
    assert f"12 images written to {target}" in finished.output
    assert blocks(read(target)) == 12


def test_strips_have_an_image_for_each_step_and_the_result(denoiserl: CommandLine, flow: Path, tmp_path: Path) -> None:
    """The last estimate of a flow without noise is the image itself."""
    target = tmp_path / "strip.png"
    options = ["--problems", "2", "--count", "2", "--steps", "--output", target]
    assert denoiserl("sample", *fresh(flow), *options).code == 0
    assert blocks(read(target)) == 4 * (4 + 1)
    assert denoiserl("sample", *fresh(flow), "--greedy", "--steps", "--prompt", "red", "--output", target).code == 0
    page = read(target)
    assert blocks(page) == 5
    (band,) = _stretches((page < 250).any(-1).mean(1) > 0.6)
    columns = _stretches((page[band] < 250).any(-1).mean(0) > 0.9)
    first, *_, last, image = (page[band, column].astype(int) for column in columns)
    assert np.abs(last - image).max() <= 1
    assert np.abs(first - image).max() > 1


def test_sample_without_noise_on_the_way(denoiserl: CommandLine, flow: Path, tmp_path: Path) -> None:
    for name, options in (("a", ["--greedy"]), ("b", ["--greedy"]), ("c", [])):
        kernel = "rollout.denoising.eta=1.2" if name == "b" else "rollout.denoising.eta=0.5"
        arguments = ["--prompt", "red", "--output", tmp_path / f"{name}.png", *options]
        assert denoiserl("sample", *fresh(flow, kernel), *arguments).code == 0
    greedy, same, sampled = (read(tmp_path / f"{name}.png") for name in "abc")
    assert np.array_equal(greedy, same)  # eta plays no part
    assert not np.array_equal(greedy, sampled)


def test_sample_of_a_run(denoiserl: CommandLine, flow: Path, finished: Path, tmp_path: Path) -> None:
    """Its newest weights, and older ones when asked for; options can be changed."""
    target = tmp_path / "run.png"
    arguments = ["--run", finished, "--prompt", "red", "--output", target]
    assert denoiserl("sample", *arguments, "rollout.denoising.steps=3", "--steps").code == 0
    assert blocks(read(target)) == 4
    assert denoiserl("sample", *arguments, "--greedy").code == 0
    trained = read(target)
    untrained = [*fresh(flow), "--prompt", "red", "--output", target, "--greedy"]
    assert denoiserl("sample", *untrained).code == 0
    assert not np.array_equal(read(target), trained)


def test_sample_refuses(denoiserl: CommandLine, flow: Path, finished: Path, tmp_path: Path) -> None:
    sample = ["sample", *fresh(flow)]
    missing = tmp_path / "none" / "x.png"
    assert f"--output {missing}: its folder does not exist; create it first" in denoiserl.refuses(
        *sample, "--output", missing
    )
    assert "images are written as PNG" in denoiserl.refuses(*sample, "--output", tmp_path / "x.jpg")
    message = denoiserl.refuses(*sample, "--prompt", "a very long prompt indeed", "--output", tmp_path / "x.png")
    assert "--prompt: prompt 'a very long prompt indeed' has 23 tokens" in message
    assert "but its tokenizer allows 16" in message
    assert not (tmp_path / "x.png").exists()
    longer = denoiserl.refuses("sample", "--run", finished, "--prompt", "a very long prompt indeed")
    assert "but its tokenizer allows 16" in longer
    for options in (["--steps"], ["--output", tmp_path / "x.png"]):
        text = denoiserl.refuses("sample", "recipe=quickstart", "--prompt", "1", *options)
        assert "--steps and --output are for image models" in text


# eval


def test_eval_reports_every_criterion_with_intervals(
    denoiserl: CommandLine, flow: Path, cluster: None, tmp_path: Path
) -> None:
    written = tmp_path / "evaluation.json"
    finished = denoiserl(
        "eval",
        *fresh(flow, "data.evaluation.size=24", "evaluation.images_per_prompt=2", "reward.terms.redness.weight=0"),
        "--output",
        written,
    )
    assert finished.code == 0, finished.output
    assert "24 held-out problems, after 0 updates: greedy 0.000 [0.000, " in finished.output
    row = json.loads(written.read_text())
    for kind in ("greedy", "sampled"):
        assert np.array(row[f"solved/{kind}"]).shape == (24, 2 if kind == "greedy" else 1)
        for term in ("scene", "redness", *TERMS):
            name = f"evaluation/{kind}/term/{term}"
            assert 0 <= row[name] <= 1
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
            told = f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"
            assert told in finished.output
        assert row[f"evaluation/{kind}/term/redness_low"] < row[f"evaluation/{kind}/term/redness_high"]
        assert row[f"evaluation/{kind}/reward"] == pytest.approx(row[f"evaluation/{kind}/term/scene"])


def test_eval_refuses_before_it_starts(denoiserl: CommandLine, flow: Path, tmp_path: Path) -> None:
    message = denoiserl.refuses("eval", *fresh(flow), "--output", tmp_path / "none" / "x.json")
    assert "its folder does not exist" in message
    long = denoiserl.refuses("eval", *fresh(flow), "data.evaluation.prompt='{{ prompt }}'")
    assert "tokens with the special ones, but its tokenizer allows 16" in long


# What a run keeps


def test_a_run_keeps_pictures_of_the_first_sample_of_each_problem(finished: Path) -> None:
    rows = read_rows(finished / "evaluations.jsonl")
    assert [row["update"] for row in rows] == [0, 2]
    for kind in ("greedy", "sampled"):
        for update in (0, 2):
            prompts, images = kept_images(finished / "pictures" / kind / f"u{update:06d}")
            assert len(prompts) == len(images) == 12 <= KEPT
            assert len(set(prompts)) > 3  # problems, not samples of a few of them
            assert all(image.shape == (32, 32, 3) for image in images)
        assert blocks(read(finished / f"before_after_{kind}.png")) == 24


def test_verdicts_of_the_kept_pictures_are_those_of_their_frames(finished: Path) -> None:
    """Of two samples of each problem the first is kept, and the first's verdict is its frame."""
    second = []
    for row in read_rows(finished / "evaluations.jsonl"):
        for kind in ("greedy", "sampled"):
            _, images = kept_images(finished / "pictures" / kind / f"u{row['update']:06d}")
            verdicts = (np.array(redness(images)) >= SOLVED_AT).tolist()
            assert {True, False} == set(verdicts)
            solved = np.array(row[f"solved/{kind}"]) == 1
            assert solved[:, 0].tolist() == verdicts
            second.append(solved[:, -1].tolist() == verdicts)
    assert not all(second)  # the other samples' verdicts are others


# export


def drawn(pipeline: StableDiffusion3Pipeline) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return pipeline(
        "red",
        latents=latents,
        num_inference_steps=3,
        guidance_scale=1.0,
        output_type="latent",
        max_sequence_length=T5_TOKENS,
    ).images


def test_diffusers_loads_both_exports(denoiserl: CommandLine, flow: Path, finished: Path, tmp_path: Path) -> None:
    whole, adapter = tmp_path / "whole", tmp_path / "adapter"
    output = denoiserl("export", finished, whole).output
    assert f"sd3 pipeline for diffusers after 2 updates written to {whole}" in output
    output = denoiserl("export", finished, adapter, "--adapter-only").output
    assert f"LoRA weights for diffusers after 2 updates written to {adapter}" in output
    base = StableDiffusion3Pipeline.from_pretrained(flow)
    before = drawn(base)
    base.load_lora_weights(adapter)
    adapted, merged = drawn(base), drawn(StableDiffusion3Pipeline.from_pretrained(whole))
    torch.testing.assert_close(adapted, merged, rtol=0, atol=1e-4)
    assert (adapted - before).abs().max() > 1e-3


def test_an_exported_pipeline_is_a_model_path(
    denoiserl: CommandLine, flow: Path, finished: Path, tmp_path: Path
) -> None:
    """What `sample` draws from it is what it draws from the run."""
    whole = tmp_path / "whole"
    assert denoiserl("export", finished, whole).code == 0
    for name, source in (("run", ["--run", finished]), ("exported", fresh(whole))):
        arguments = ["--greedy", "--prompt", "red", "--output", tmp_path / f"{name}.png"]
        assert denoiserl("sample", *source, *arguments).code == 0
    one, other = (read(tmp_path / f"{name}.png").astype(int) for name in ("run", "exported"))
    assert np.abs(one - other).max() <= 1


def test_export_refuses(denoiserl: CommandLine, flow: Path, finished: Path, tmp_path: Path) -> None:
    assert "would be overwritten; choose another" in denoiserl.refuses("export", finished, flow, "--overwrite")
    (tmp_path / "file").write_text("")
    assert f"{tmp_path}/file/x cannot be written" in denoiserl.refuses("export", finished, tmp_path / "file/x")
    damaged = Path(shutil.copytree(finished, tmp_path / "damaged"))
    shutil.rmtree(damaged / "checkpoints")
    assert "holds no checkpoint" in denoiserl.refuses("export", damaged, tmp_path / "target")
    assert not (tmp_path / "target").exists()


# docs/images.md


@pytest.mark.parametrize("command", [line for line in commands(PAGE) if " train " in line])
def test_documented_trainings_are_configurations_that_can_work(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "modality: image" in run_command(command.replace(" train ", " config "), monkeypatch, capsys)


@pytest.mark.slow
def test_documented_commands_run_on_a_run_folder(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, as they stand, and then the code that loads what the last one wrote."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, "runs/quickstart-image")
    for command in commands(PAGE):
        if " train " not in command:
            run_command(command, monkeypatch, capsys)
    assert blocks(read(tmp_path / "grid.png")) == 16
    assert blocks(read(tmp_path / "strip.png")) == 5
    assert "evaluation/greedy/solve_rate" in json.loads((tmp_path / "evaluation.json").read_text())
    (code,) = documented(PAGE, "python")
    names: dict[str, object] = {}
    exec(compile(code, PAGE, "exec"), names)
    assert isinstance(names["image"], Image.Image)

"""Exceptions of libraries, raised by the libraries themselves, as the command line tells them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import RUN_FOLDER
from rl import cli
from rl.commands.foreign import is_ours, told
from tests.rl.support.command_line import CommandLine


def damaged(folder: Path, name: str) -> Path:
    (folder / name).write_bytes(b"\x00\xffgarbage" * 100)
    return folder / name


def read_weights(folder: Path) -> None:
    from safetensors.torch import load_file

    load_file(damaged(folder, "w.safetensors"))


def read_parquet(folder: Path) -> None:
    from pyarrow import parquet

    parquet.read_table(damaged(folder, "w.parquet"))


def read_dataset(folder: Path) -> None:
    from datasets import load_dataset

    load_dataset("json", data_files=str(damaged(folder, "rows.jsonl")), cache_dir=str(folder / "cache"))


def read_pipeline(folder: Path) -> None:
    from diffusers import DiffusionPipeline

    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline", "vae": ["diffusers", "Nothing"]}')
    DiffusionPipeline.from_pretrained(str(folder))


def read_model(folder: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.from_pretrained(str(folder))


def take_all_memory(folder: Path) -> None:
    import torch

    torch.empty(1 << 60, dtype=torch.uint8)


def shards_of_nothing(folder: Path) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    DeepSpeedConfig({"train_batch_size": -1})


def ask_a_stopped_ray(folder: Path) -> None:
    import ray

    raise ray.exceptions.ObjectStoreFullError("full")


def fault_of_ours(folder: Path) -> None:
    raise ZeroDivisionError("a red word \x1b[31m")


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (read_weights, "SafetensorError: Error while deserializing header: header too large (from safetensors"),
        (read_weights, "A weight file is damaged, cut short or not safetensors: copy it again"),
        (read_parquet, "The file is no whole Parquet file"),
        (read_dataset, "The dataset cannot be read"),
        (read_pipeline, "The pipeline's folder is not as diffusers expects"),
        (read_model, "The model's folder is not as transformers expects"),
        (take_all_memory, "This machine's memory is full. Lower rollout.prompts_per_ticket"),
        (shards_of_nothing, "DeepSpeed refused the optimizer's settings or state"),
        (ask_a_stopped_ray, "Ray ran out of memory or disk on a node"),
        (fault_of_ours, "DenoiseRL does not know this one: if options and files are right, the fault is ours"),
    ],
)
def test_a_foreign_exception_is_told_with_a_way_out_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: Callable[[Path], None], expected: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(Exception) as caught:
        mistake(tmp_path)
    assert not is_ours(caught.value)
    message = told(caught.value)
    assert expected in message
    (kept,) = tmp_path.glob("denoiserl-error-*.log")
    assert message.endswith(f"The whole traceback is in {kept}")
    assert "Traceback (most recent call last)" in kept.read_text()


def test_the_original_is_kept_with_the_run_that_it_ended(tmp_path: Path) -> None:
    error = KeyError("x")
    error.add_note(f"{RUN_FOLDER}{tmp_path}")
    assert f"The whole traceback is in {tmp_path}/error-" in told(error)


def test_the_command_line_prints_it_without_a_traceback(
    denoiserl: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cli, "app", lambda: fault_of_ours(tmp_path))
    finished = denoiserl("train")
    assert finished.code == 1
    assert finished.output.startswith("error: ZeroDivisionError: a red word \\x1b[31m")
    assert "Traceback" not in finished.output

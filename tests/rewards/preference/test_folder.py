"""The reward `preference_model` refuses folders that are not what was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewards.model_folder import RECORD, ModelFolderError, checked_if_ours, seal
from rewards.preference.reward import preference_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"0123456789")
    seal(tmp_path, {"kind": "text", "form": {"segments": "none", "max_tokens": 8}, "centre": 0.0})
    return tmp_path


def truncated(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"01234")


def changed(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"9876543210")


def missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def unfinished(folder: Path) -> None:
    (folder / RECORD).unlink()


def torn(folder: Path) -> None:
    (folder / RECORD).write_text('{"format": 1, ')


def of_pictures(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, "kind": "image"}))


def later(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, "format": 99}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "model.safetensors has 5 bytes of 10: it is incomplete"),
        (changed, "model.safetensors is not what was written"),
        (missing, "model.safetensors: no such file"),
        (unfinished, f"has no {RECORD}"),
        (torn, f"{RECORD} is damaged"),
        (of_pictures, "the reward `text_image_similarity` reads it"),
        (later, "has format 99"),
    ],
)
def test_damage_is_named(folder: Path, damage, message: str) -> None:
    damage(folder)
    with pytest.raises(ModelFolderError, match=message):
        preference_model(["a"], ["b"], path=str(folder))


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    checked_if_ours(str(tmp_path), "image")
    checked_if_ours("openai/clip-vit-large-patch14", "image")


def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs args\.path"):
        preference_model(["a"], ["b"])
    with pytest.raises(ValueError, match="batch_size=0"):
        preference_model(["a"], ["b"], path=str(tmp_path), batch_size=0)
    with pytest.raises(ModelFolderError, match="there is no such folder"):
        preference_model(["a"], ["b"], path=str(tmp_path / "nowhere"))

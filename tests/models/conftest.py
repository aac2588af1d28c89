from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from models.options import ModelOptions
from models.text.checkpoint import load_text_policy
from models.text.policy import TextPolicy
from tests.models.pipelines import NAMES, tiny_pipeline
from tests.models.text.published import PUBLISHED, write_checkpoint


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], tuple[TextPolicy, dict[str, Tensor]]]:
    """Writes a tiny published checkpoint and loads it; returns the policy and the published tensors."""

    def write_and_load(name: str) -> tuple[TextPolicy, dict[str, Tensor]]:
        folder = tmp_path / name
        tensors = write_checkpoint(folder, PUBLISHED[name])
        return load_text_policy(ModelOptions(path=str(folder)))[0], tensors

    return write_and_load


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of tiny random pipelines by the family's name; tests leave them as they are."""
    folders = {name: tmp_path_factory.mktemp(name) for name in NAMES}
    for name, folder in folders.items():
        tiny_pipeline(name).save_pretrained(folder)
    return folders

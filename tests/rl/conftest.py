from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rl.support.command_line import CommandLine


@pytest.fixture
def denoiserl(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> CommandLine:
    monkeypatch.setenv("COLUMNS", "500")
    return CommandLine(monkeypatch, capfd)


# Models to read: a test that damages one copies it before. Most tests import neither torch's engines nor diffusers.


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained block-diffusion language model."""
    from models.tiny.create import main as create

    folder = tmp_path_factory.mktemp("models") / "block"
    create("block", str(folder))
    return folder


@pytest.fixture(scope="session")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained Stable Diffusion."""
    from tests.models.pipelines import tiny_pipeline

    folder = tmp_path_factory.mktemp("models") / "sd"
    tiny_pipeline("sd").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained Stable Diffusion 3."""
    from tests.models.pipelines import tiny_pipeline

    folder = tmp_path_factory.mktemp("models") / "sd3"
    tiny_pipeline("sd3").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rank() -> Iterator[None]:
    """One rank that DeepSpeed can train in."""
    from rl.driver.in_process import process_group

    with process_group():
        yield

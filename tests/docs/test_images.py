"""docs/images.md: its tables name every kernel, window and algorithm, with what their files set; its numbers are right.

Its commands and code are run by test_image_commands.py.
"""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from configs.algorithm_options import LossWeight, NoiseLaw
from configs.compose import compose
from rl.drawing.pictures import KEPT
from rollout.images.kernels.gaussian import clip_from_kl
from rollout.options import KernelKind, Reduction, WindowKind
from tests.documentation import ROOT

TEXT = (ROOT / "docs/images.md").read_text()
BASE = ["model=tiny_scenes", "data=scenes", "reward=scene", "run.name=x"]
"""Not a recipe, whose own options would win over the algorithm's."""
SECTIONS = ("", "algorithm.", "rollout.denoising.")


def table(header: str) -> dict[str, list[str]]:
    """First cell of each row -> the others."""
    (rows,) = re.findall(rf"^\| `{re.escape(header)}` \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows.splitlines()]
    return {first.strip("` "): rest for first, *rest in cells}


KINDS = [("kernel", KernelKind), ("window.kind", WindowKind), ("noise_law", NoiseLaw), ("loss_weight", LossWeight)]


@pytest.mark.parametrize(("header", "kinds"), KINDS)
def test_every_kind_has_a_row(header: str, kinds: type[Enum]) -> None:
    assert set(table(header)) == {kind.name for kind in kinds}


def image_algorithms() -> set[str]:
    files = {path.stem: path.read_text() for path in Path(ROOT / "configs/algorithm").glob("*.yaml")}
    named = {name for name, text in files.items() if "denoising" in (yaml.safe_load(text).get("rollout") or {})}
    return named | {"precise_grpo", "sft"}  # which leave the sampler its defaults


def test_every_algorithm_for_images_has_a_row() -> None:
    assert set(table("algorithm")) == image_algorithms()


@pytest.mark.parametrize("algorithm", sorted(image_algorithms()))
def test_an_algorithm_sets_what_its_row_says(algorithm: str) -> None:
    tree = compose([*BASE, f"algorithm={algorithm}"]).resolved
    settings = [setting.partition("=") for setting in re.findall(r"`([^`]+)`", table("algorithm")[algorithm][1])]
    assert settings
    for name, _, value in settings:
        found = [OmegaConf.select(tree, section + name) for section in SECTIONS]
        (actual,) = [each for each in found if each is not None]
        assert plain(actual) == plain(yaml.safe_load(value)), name


def plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name
    try:
        return float(value)  # YAML reads 1e-4 as a text
    except (TypeError, ValueError):
        return value


def test_etas_are_those_of_the_files() -> None:
    etas = {name: cells[0] for name, cells in table("kernel").items()}
    for algorithm in image_algorithms():
        config = compose([*BASE, f"algorithm={algorithm}"]).config
        denoising = config.rollout.denoising
        if config.algorithm.advantage.offline or denoising.kernel is KernelKind.ode:
            continue
        low, _, high = etas[denoising.kernel.name].partition(" to ")
        assert float(low) <= denoising.eta <= float(high or low)


def test_numbers_in_the_text() -> None:
    for elements, nats in ((4 * 64 * 64, 1.3), (16 * 128 * 128, 344)):
        assert clip_from_kl(nats, elements, Reduction.mean) == pytest.approx(1e-4, rel=0.02)
        assert f"{nats} nats" in TEXT
    assert f"the first {KEPT} held-out prompts" in TEXT

"""What docs/picture_rewards.md says of weights and options is what the code has."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from rewards.geneval.reward import MASK2FORMER
from rewards.images.aesthetic import REVISION
from rewards.images.image_reward import BERT, IMAGE_REWARD
from rewards.images.preferences import CLIP_L, HPS, PICK_SCORE
from rewards.options import RewardOptions
from rewards.registry import COMPLETIONS, REGISTERED, resolve
from tests.documentation import ROOT, blocks

PAGE = "docs/picture_rewards.md"
TEXT = Path(ROOT / PAGE).read_text(encoding="utf-8")
ELSEWHERE = {"scene", "digit_probability", "digit_log_probability", "brightness", "text_image_similarity"}
"""In docs/rewards.md, with those of the size of a file."""


def test_every_reward_has_its_rows():
    ours = {
        name
        for name, kind in COMPLETIONS.items()
        if kind == "image"
        and name not in ELSEWHERE
        and REGISTERED[name].split(".")[1] in ("images", "reading", "geneval")
    }
    for name in ours - {"jpeg_compressibility", "jpeg_incompressibility"}:
        assert TEXT.count(f"\n| `{name}` |") >= 2, name


@pytest.mark.parametrize("checkpoint", [CLIP_L, PICK_SCORE, HPS, IMAGE_REWARD, BERT])
def test_commits_are_those_of_the_code(checkpoint):
    assert f"| {checkpoint.repository} | `{checkpoint.revision}` |" in TEXT


def test_sizes_and_files_are_those_of_the_code():
    for checkpoint in (CLIP_L, PICK_SCORE, IMAGE_REWARD, MASK2FORMER):
        assert f"{checkpoint.gigabytes:g}" in TEXT
    assert REVISION in TEXT
    assert MASK2FORMER.repository in TEXT


@pytest.mark.parametrize("text", blocks(PAGE, "yaml"))
def test_configurations_are_valid_and_name_real_functions(text):
    reward = yaml.safe_load(text)["reward"]
    options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RewardOptions), reward))
    assert all(callable(resolve(term.function)) for term in options.terms.values())

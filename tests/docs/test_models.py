"""docs/models.md: its command composes, its families and entry points are the code's, its vocabulary the file's."""

from __future__ import annotations

import re
import shlex

from configs.compose import compose
from models.options import ModelOptions
from models.text.description import read_text_spec, read_tokenizer
from models.text.families import FAMILIES
from rl.compatibility import check
from tests.documentation import ROOT, commands

PAGE = "docs/models.md"
TEXT = (ROOT / PAGE).read_text()


def test_the_way_in_for_a_plain_model_composes() -> None:
    (command,) = commands(PAGE)
    config = compose(shlex.split(command)[2:]).config
    check(config, None)
    assert config.model.family in FAMILIES


def test_families_and_entry_points_are_those_of_the_code() -> None:
    table = TEXT.partition("| family |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([\w-]+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:])))
    assert named == {*FAMILIES, "sd", "sdxl", "sd3", "flux"}
    for group, module in (("text_families", "text"), ("image_families", "images")):
        assert f'"denoiserl.{group}"' in TEXT
        assert f'"denoiserl.{group}"' in (ROOT / "models" / module / "families.py").read_text()


def test_the_embedded_vocabulary_is_as_it_says() -> None:
    tokenizer = read_tokenizer(ModelOptions(path="tiny/block"))
    assert len(tokenizer) == 288
    assert tokenizer("é").input_ids == tokenizer("?").input_ids
    assert tokenizer.all_special_tokens
    assert {"<|pad|>", "<|mask|>", "<|end|>", "<|answer|>", " ", "\n", "a", " a", "\na"} <= tokenizer.get_vocab().keys()
    for path in ("tiny/block", "tiny/full"):
        assert read_text_spec(ModelOptions(path=path)).max_length == 256

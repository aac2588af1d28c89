"""Pairs of files: each bad row by name, and prompts on one side only."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import UserError
from models.options import Modality
from rl.data.rows import DataError
from rl.preference.options import check
from rl.preference.pairs import LEAST_HELD_OUT, check_apart, pair_file, read_pairs, split
from tests.rl.preference.trained_here import rows, text_options, write

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("changed", "column", "why"),
    [
        ({"prompt": None}, "prompt", "it is null"),
        ({"prompt": " "}, "prompt", "it is empty"),
        ({"prompt": 3}, "prompt", "it is of type int"),
        ({"prompt": [{"role": "user", "content": 3}]}, "prompt", ""),
        ({"chosen": ["a"]}, "chosen", "it is of type list"),
        ({"rejected": "a"}, "rejected", "it is the same as `chosen`"),
        ({"rejected": "\ud800"}, "rejected", "half a character"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, changed: dict, column: str, why: str) -> None:
    file = write(tmp_path / "pairs.jsonl", [GOOD, {**GOOD, **changed}])
    with pytest.raises(DataError) as caught:
        read_pairs(file, Modality.text)
    assert "1 of 2 rows" in str(caught.value)
    assert f"row 1, column {column}: " in str(caught.value)
    assert why in str(caught.value)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", [{"prompt": "p", "chosen": "a", "worse": "b"}])
    with pytest.raises(DataError, match="row 0, column rejected: there is none; the row has prompt, chosen, worse"):
        read_pairs(file, Modality.text)


def test_all_bad_rows_are_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", [{**GOOD, "chosen": None}] * 30)
    with pytest.raises(DataError, match=r"(?s)30 of 30 rows.*row 19.*and 10 more"):
        read_pairs(file, Modality.text)


def test_pictures_must_be_rgb_and_differ(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "grey.png")
    bad = [("a.png", "a.png"), ("a.png", "grey.png"), ("nowhere.png", "a.png")]
    file = write(tmp_path / "pairs.jsonl", [{"prompt": "p", "chosen": a, "rejected": b} for a, b in bad])
    with pytest.raises(DataError) as caught:
        read_pairs(file, Modality.image)
    for named in ("row 0, column rejected", "row 1, column rejected", "row 2, column chosen"):
        assert named in str(caught.value)


def test_no_prompt_is_on_both_sides(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.jsonl", [*rows(), *rows()])
    pairs = read_pairs(file, Modality.text)
    training, held = split(pairs, 0.5, 0)
    assert {pair.key for pair in training}.isdisjoint(pair.key for pair in held)
    assert (len(training), len(held)) == (64, 64)
    assert [pair.row for pair in split(pairs, 0.5, 0)[1]] == [pair.row for pair in held]
    assert [pair.row for pair in split(pairs, 0.5, 1)[1]] != [pair.row for pair in held]


def test_too_few_held_out_prompts_are_refused(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path / "pairs.jsonl", rows(40)), Modality.text)
    with pytest.raises(UserError, match=f"are 20, too few for an interval of the accuracy: {LEAST_HELD_OUT}"):
        split(pairs, 0.5, 0)
    with pytest.raises(UserError, match="leaves none to train on"):
        split(pairs, 0.999, 0)
    with pytest.raises(UserError, match="held_out_pairs has 20 prompts"):
        check_apart(pairs[20:], pairs[:20])
    with pytest.raises(UserError, match="row 5 of held_out_pairs has the prompt of row 5 of pairs, and 1 rows"):
        check_apart(pairs[5:6], pairs[:35])


def test_a_folder_stands_for_its_file(tmp_path: Path) -> None:
    pictures = tmp_path / "pairs"
    pictures.mkdir()
    with pytest.raises(UserError, match="it has none"):
        pair_file(str(pictures))
    beside = write(tmp_path / "pairs.jsonl", [GOOD])
    assert pair_file(str(pictures)) == beside == pair_file(str(beside))
    inside = write(pictures / "own.jsonl", [GOOD])
    assert pair_file(str(pictures)) == inside
    write(pictures / "other.jsonl", [GOOD])
    with pytest.raises(UserError, match=r"it has other\.jsonl, own\.jsonl"):
        pair_file(str(pictures))
    with pytest.raises(UserError, match=r"held_out_pairs=.*there is no such file"):
        pair_file(str(tmp_path / "nowhere"), "held_out_pairs")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *itertools.product(["held_out"], [0.0, 1.0]),
        ("max_tokens", 1),
        *itertools.product(["epochs", "batch_size", "learning_rate"], [0]),
        ("weight_decay", -1.0),
        ("centre_coefficient", 0.0),
        ("seed", -1),
        ("device", "cuda:1"),
    ],
)
def test_values_outside_of_their_ranges(tmp_path: Path, option: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{option}={value} is not possible: choose"):
        check(replace(text_options(tmp_path), **{option: value}))


def test_options_of_texts_are_refused_for_pictures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max_tokens is an option of texts"):
        check(text_options(tmp_path, modality=Modality.image, max_tokens=8))

"""`denoiserl train-reward` of texts: what it learns, writes and repeats, and what it refuses."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import UserError
from models.tiny.create import main as create
from rewards.model_folder import RECORD, sha256
from rewards.preference.form import Segments
from rewards.preference.reward import preference_model
from rl.data.rows import DataError
from rl.preference.training import PICTURE, REPORT, train_reward
from tests.rl.preference.trained_here import PROMPTS, causal_base, rows, text_options, write


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preference")
    causal_base(folder / "base")
    write(folder / "pairs.jsonl", rows())
    judged = train_reward(text_options(folder))
    assert judged.accuracy.value == 1.0
    return folder


def test_the_report_has_the_numbers_and_the_record_says_of_what(root: Path) -> None:
    report, record = (json.loads((root / "model" / name).read_text()) for name in (REPORT, RECORD))
    held = report["held_out"]
    assert (held["pairs"], held["prompts"], held["ties"], record["pairs"]["trained_on"]) == (32, 32, 0, 32)
    assert held["accuracy"] == {"value": 1.0, "low": pytest.approx(0.8928, abs=1e-3), "high": 1.0}  # Wilson of 32
    assert sum(each["pairs"] for each in held["calibration"]) == 32
    assert report["losses"][-1]["loss"] < report["losses"][0]["loss"]
    assert record["pairs"]["sha256"] == sha256(root / "pairs.jsonl")
    assert {"torch", "transformers", "trl"} < set(record["versions"])
    assert {PICTURE, REPORT, "model.safetensors", "tokenizer.json"} < set(record["files"])


def test_the_model_is_a_reward_at_once(root: Path) -> None:
    path = str(root / "model")
    yes, no = np.array(preference_model([PROMPTS[0]] * 2, ["yes", "no"], path=path))
    good, bad = np.array(preference_model([PROMPTS[0]] * 2, ["yes", "no"], path=path, centred=True, batch_size=1))
    assert yes > no
    assert good - bad == pytest.approx(yes - no, abs=1e-4)
    assert bad < 0 < good


def test_the_same_again_is_the_same_to_the_bit_and_draws_nothing_of_others(root: Path) -> None:
    (root / "again").mkdir()
    random.random()  # another state than the first time
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index, union-attr]
    train_reward(text_options(root, output=str(root / "again" / "model")))
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])
    first, second = (json.loads((folder / "model" / RECORD).read_text()) for folder in (root, root / "again"))
    assert first == second


def test_a_model_that_is_trained_anew_is_read_anew(root: Path) -> None:
    output = str(root / "anew")
    scores = []
    for seed in (1, 2):
        train_reward(text_options(root, output=output, seed=seed, epochs=1))
        scores.append(preference_model(PROMPTS[:1], ["yes"], path=output))
    assert scores[0] != scores[1]


@pytest.mark.parametrize("kind", ["block", "full"])
def test_a_text_policy_is_a_base(root: Path, tmp_path: Path, kind: str) -> None:
    create(kind, str(tmp_path / "policy"))
    judged = train_reward(text_options(root, base=str(tmp_path / "policy"), output=str(tmp_path / "model"), epochs=1))
    assert judged.pairs == 32
    assert preference_model([[{"role": "user", "content": "say a1"}]], ["yes"], path=str(tmp_path / "model"))[0]


def test_segments_are_scored_by_themselves(root: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "model")
    train_reward(text_options(root, segments=Segments.answer, output=path))
    one, two, both = np.array(preference_model([PROMPTS[0]] * 3, ["yes.", "no.", "yes. no."], path=path))
    assert both == pytest.approx((one + two) / 2, abs=1e-5)


def test_every_bad_row_is_named_and_nothing_is_written(root: Path, tmp_path: Path) -> None:
    bad = rows()
    bad[3]["chosen"] = "y" * 60
    bad[5]["prompt"] = "say <|end|>"
    bad[60]["rejected"] = "n" * 60
    write(tmp_path / "pairs.jsonl", bad)
    with pytest.raises(DataError) as caught:
        train_reward(text_options(root, pairs=str(tmp_path / "pairs.jsonl"), output=str(tmp_path / "model")))
    lines = str(caught.value).splitlines()
    assert "3 of 64 rows" in lines[0]  # of both parts
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "row 3, column chosen",
        "row 5, column chosen",
        "row 60, column rejected",
    ]
    assert not (tmp_path / "model").exists()


def test_a_base_is_not_written_over(root: Path) -> None:
    with pytest.raises(UserError, match="is the base"):
        train_reward(text_options(root, output=str(root / "base")))


def test_a_rate_that_breaks_the_model_is_told(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lower learning_rate"):
        train_reward(text_options(root, learning_rate=1e38, output=str(tmp_path / "model")))
    assert not (tmp_path / "model").exists()

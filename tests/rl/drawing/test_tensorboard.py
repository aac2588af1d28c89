"""TensorBoard has what a run folder has: read back with its own reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_ndarray

from rl.drawing import tensorboard
from rl.drawing.tensorboard import CHARACTERS, EDGE, SAMPLES, TensorBoard, shortened

ROW = {
    "update": 10,
    "evaluation/greedy/solve_rate": 0.5,
    "evaluation/greedy/solve_rate_low": 0.4,
    "evaluation/greedy/solve_rate_high": 0.6,
    "evaluation/greedy/tokens_mean": 12.0,
    "evaluation/greedy/unknown": None,
    "solved/greedy": [[1], [0]],
    "texts/greedy": [
        {"prompt": "1 + 1\n# no heading", "completion": "2", "reward": 1.0},
        {"prompt": "2 + 2", "completion": "<b>5</b>", "reward": None},
    ],
}


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    return accumulator.Reload()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures" / "greedy" / "u000010"
    folder.mkdir(parents=True)
    for index in range(6):
        Image.fromarray(np.full((300, 600, 3), 40 * index, np.uint8)).save(folder / f"{index:02d}.png")
    return tmp_path / "pictures"


def shown(tmp_path: Path, pictures: Path) -> EventAccumulator:
    board = TensorBoard(EventFileWriter(str(tmp_path / "board")))
    board.options({"algorithm.clip": 0.2, "model.path": "tiny/block", "run.resume": True, "reward.terms": ["a"]})
    board.evaluation(ROW, "texts/", pictures)
    board.evaluation({**ROW, "update": 20}, "texts/", pictures)
    board.close()
    return read(tmp_path / "board")


def test_evaluations_have_their_intervals_as_numbers_and_as_one_chart(tmp_path: Path, pictures: Path) -> None:
    board = shown(tmp_path, pictures)
    for name in ("solve_rate", "solve_rate_low", "solve_rate_high", "tokens_mean"):
        tag = f"evaluation/greedy/{name}"
        assert [(each.step, each.value) for each in board.Scalars(tag)] == [
            (10, pytest.approx(ROW[tag])),
            (20, pytest.approx(ROW[tag])),
        ]
    assert not any("unknown" in tag or "solved" in tag for tag in board.Tags()["scalars"])
    (event,) = board.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(make_ndarray(event.tensor_proto).item())
    (series,) = layout.category[0].chart[0].margin.series
    assert (series.value, series.lower, series.upper) == tuple(
        f"evaluation/greedy/solve_rate{end}" for end in ("", "_low", "_high")
    )


def test_samples_options_and_pictures(tmp_path: Path, pictures: Path) -> None:
    board = shown(tmp_path, pictures)
    text = make_ndarray(board.Tensors("samples/greedy")[0].tensor_proto).item().decode()
    assert "**prompt**\n\n    1 + 1\n    # no heading" in text
    assert "**completion, reward 1**\n\n    2" in text
    assert "**completion, not scored**\n\n    <b>5</b>" in text
    metadata = board.SummaryMetadata("_hparams_/session_start_info").plugin_data
    said = plugin_data_pb2.HParamsPluginData.FromString(metadata.content).session_start_info.hparams
    assert said["algorithm.clip"].number_value == 0.2
    assert said["model.path"].string_value == "tiny/block"
    assert said["run.resume"].bool_value
    images = board.Tags()["images"]
    assert images == [f"pictures/greedy/{index:02d}" for index in range(SAMPLES)]
    (first,) = board.Images(images[1])
    assert (first.step, first.width, first.height) == (10, EDGE, EDGE // 2)


def test_texts_and_the_whole_are_bounded(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shortened("a" * (CHARACTERS + 5)) == "a" * CHARACTERS + " … and 5 characters more"
    assert shortened("short") == "short"
    monkeypatch.setattr(tensorboard, "BUDGET", 100)
    board = shown(tmp_path, pictures)
    assert board.Tags()["images"] == []
    assert "samples/greedy" not in board.Tags()["tensors"]
    assert len(board.Scalars("evaluation/greedy/solve_rate")) == 2  # numbers are few

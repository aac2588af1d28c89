"""Answers out of a data set as a group: what is padded, what is trained on, and that samples stay apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rollout.text.offline import offline_group
from rollout.trajectory import TextTrajectory, read_parquet, write_parquet
from tests.tiny import tiny_policy

STOP = 7
PROMPT = np.array([1, 2, 3, 4, 5, 6], np.int32)
SHORT = np.array([1, STOP], np.int32)
LONG = np.array([1, 2, 3, 4, 5, STOP], np.int32)


def group(family: str, *responses: np.ndarray, uids: list[int] | None = None) -> TextTrajectory:
    """Of a model with blocks of 4 (sdar) or without, and eight new tokens."""
    keys = np.array(uids or range(50, 50 + len(responses)), np.int64)
    return offline_group("pairs/3", PROMPT, list(responses), tiny_policy(family).spec, 8, keys, seed=9, update=2)


def test_blocks_end_with_each_response_and_the_shorter_canvas_is_padded() -> None:
    """The prompt ends in the middle of a block: 2 positions fill that, 4 the next one."""
    pair = group("sdar", SHORT, LONG)
    pad = tiny_policy("sdar").spec.pad_id
    assert pair.canvas_ids.tolist() == [[1, STOP, *[pad] * 4], [1, 2, 3, 4, 5, STOP]]
    assert pair.canvas_length.tolist() == [2, 6]
    assert pair.stop_length.tolist() == [2, 6]
    assert pair.mask.tolist() == [[True] * 2 + [False] * 4, [True] * 6]
    assert (pair.reveal > 0).tolist() == pair.mask.tolist()
    assert (pair.uid.tolist(), pair.seed, pair.version) == ([50, 51], 9, 2)


def test_the_last_block_and_a_bidirectional_canvas_are_filled_with_the_stop_token() -> None:
    assert group("sdar", LONG[:3], LONG).canvas_ids[0].tolist() == [1, 2, 3, STOP, STOP, STOP]
    pair = group("llada", SHORT, LONG)
    assert pair.canvas_ids.tolist() == [[1, *[STOP] * 7], [1, 2, 3, 4, 5, STOP, STOP, STOP]]
    assert pair.canvas_length.tolist() == [8, 8]
    assert pair.mask.all()


@pytest.mark.parametrize("family", ["sdar", "llada"])
def test_a_sample_of_a_pair_is_the_same_sample_alone(family: str) -> None:
    pair = group(family, SHORT, LONG)
    for sample, response in enumerate((SHORT, LONG)):
        alone = group(family, response, uids=[50 + sample])
        length = int(pair.canvas_length[sample])
        assert length == alone.canvas_length[0]
        for name in ("canvas_ids", "mask", "reveal", "logp"):
            assert getattr(pair, name)[sample, :length].tolist() == getattr(alone, name)[0].tolist(), name
        assert not pair.mask[sample, length:].any()
    assert pair.completion_ids(0).tolist() == SHORT.tolist()


def test_it_survives_a_file(tmp_path: Path) -> None:
    write_parquet([group("sdar", LONG, SHORT)], tmp_path / "pairs.parquet")
    (read,) = read_parquet(tmp_path / "pairs.parquet")
    assert isinstance(read, TextTrajectory)
    assert read.canvas_length.tolist() == [6, 2]

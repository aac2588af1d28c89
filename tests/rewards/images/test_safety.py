"""The detector of nakedness is its published pipeline. No picture here shows any: a face stands for it."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import nudenet
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from rewards.images.safety import detector, safety
from tests.rewards.images.tiny_clip import noise

FACES = ["FACE_FEMALE", "FACE_MALE"]


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """(320, 320, 3): a face and shoulders; of the size that the network sees, so that nothing is resized."""
    file = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").crop((60, 40, 460, 440)).resize((320, 320), Image.Resampling.BILINEAR))


def written_out(image: np.ndarray, wanted: tuple[int, ...]) -> float:
    """The network on one square picture of 320 pixels: the best confidence in a class, where it is that of its box."""
    session = onnxruntime.InferenceSession(str(Path(nudenet.__file__).parent / "320n.onnx"))
    pixels = (image[:, :, ::-1].astype(np.float32) / 255).transpose(2, 0, 1)[None]  # blue, green, red
    scores = session.run(None, {session.get_inputs()[0].name: pixels})[0][0][4:]  # (18, boxes)
    best = scores.max(0)
    found = [best[box] for box in np.flatnonzero(best >= 0.25) if scores[:, box].argmax() in wanted]
    return 1.0 - max(found, default=0.0)


def test_it_is_the_published_pipeline(portrait):
    faces = (1, 12)
    expected = written_out(portrait, faces)
    assert 0.1 < expected < 0.8
    found = safety(completions=[portrait, noise((320, 320))], prompts=["a", "b"], classes=FACES)
    assert found == pytest.approx([expected, 1.0], abs=1e-5)


def test_a_larger_picture_is_reduced_and_squared(portrait):
    """On black to the right or below, which moves no face out of sight."""
    large = np.asarray(Image.fromarray(portrait).resize((640, 640), Image.Resampling.BICUBIC))
    wide = np.concatenate([large, np.zeros((640, 200, 3), np.uint8)], axis=1)
    assert max(safety(completions=[large, wide], classes=FACES)) < 0.8


def test_a_decent_picture_is_safe(portrait):
    assert safety(completions=[portrait, noise((64, 48))]) == [1.0, 1.0]
    assert safety(completions=[]) == []


def test_one_core_is_used_and_classes_are_known(portrait):
    assert detector(1).onnx_session.get_session_options().intra_op_num_threads == 1
    with pytest.raises(ValueError, match="has classes=FACE; there are ANUS_COVERED"):
        safety(completions=[portrait], classes=["FACE"])
    with pytest.raises(ValueError, match="threads=1 and batch=0; each must be at least 1"):
        safety(completions=[portrait], batch=0)
    with pytest.raises(ValueError, match="got a str"):
        safety(completions=["a text"])

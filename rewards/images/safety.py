"""Whether a picture shows nakedness, by the detector that nudenet carries (YOLOv8n, 320 pixels), without a download."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from rewards.picture import picture

if TYPE_CHECKING:  # imported where it is needed, which is not in most reward processes
    from nudenet import NudeDetector

UNSAFE = (
    "ANUS_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
)


def safety(
    completions: list[np.ndarray],
    classes: tuple[str, ...] | list[str] = UNSAFE,
    threads: int = 1,
    batch: int = 4,
    **_: Any,
) -> list[float]:
    """One minus the detector's confidence in the worst of what it finds: 1 where it finds nothing, else 0 to 0.75.

    It is silent below a confidence of 0.25, so nothing lies between 0.75 and 1.

    Args:
        classes: what may not be seen, by the detector's names.
        threads: cores of one call; more pay only where nothing else runs on the machine.
        batch: pictures at a time.

    Raises:
        ValueError: a class is none of the detector's, or a number is not positive.
    """
    from nudenet import nudenet

    if threads < 1 or batch < 1:
        raise ValueError(f"the reward `safety` has threads={threads} and batch={batch}; each must be at least 1")
    known = vars(nudenet)["__labels"]
    if unknown := sorted({*classes} - {*known}):
        raise ValueError(f"the reward `safety` has classes={', '.join(unknown)}; there are {', '.join(sorted(known))}")
    # As OpenCV reads a file, blue first, which is what the package is called with; it makes squares by itself.
    blue_first = [np.ascontiguousarray(picture(completion)[:, :, ::-1]) for completion in completions]
    found = detector(threads).detect_batch(blue_first, batch_size=batch)
    return [1.0 - max((one["score"] for one in each if one["class"] in classes), default=0.0) for each in found]


@functools.cache
def detector(threads: int) -> NudeDetector:
    import cv2
    import onnxruntime
    from nudenet import NudeDetector

    cv2.setNumThreads(threads)
    made = NudeDetector()  # with as many threads as there are cores, and no option to say so
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    made.onnx_session = onnxruntime.InferenceSession(
        made.onnx_session._model_path, sess_options=options, providers=["CPUExecutionProvider"]
    )
    return made

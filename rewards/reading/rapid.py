"""The text in a picture, read by the PP-OCRv4 networks that rapidocr-onnxruntime carries: no download, one core."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from rewards.picture import picture
from rewards.reading.quoted import nearness, quoted

if TYPE_CHECKING:  # imported where it is needed, which is not in most reward processes
    from rapidocr_onnxruntime import RapidOCR

LONGEST_SIDE = 960
"""What a larger picture is reduced to before text is looked for; a smaller one stays as it is. PaddleOCR's own rule,
which Flow-GRPO uses. Unit: pixels."""


def ocr(
    completions: list[np.ndarray], prompts: list[str], whole: bool = False, threads: int = 1, **_: Any
) -> list[float | None]:
    """How near the text in each picture is to what its prompt asks for in double quotes, 0 to 1.

    Args:
        whole: other text in the picture counts as wrong letters; see `nearness`.
        threads: cores of one reading; more pay only where nothing else runs on the machine.

    Returns:
        N scores; None for a prompt without quotes, which asks for no text.

    Raises:
        ValueError: a prompt has quotes without a text, or the number of threads is none.
        Whatever the engine raises: a picture that it fails on has no score, it is not one without text.
    """
    if threads < 1:
        raise ValueError(f"the reward `ocr` has threads={threads}; it needs at least 1")
    wanted = [quoted(prompt) for prompt in prompts]
    return [
        None if text is None else nearness(read(completion, threads), text, whole)
        for completion, text in zip(completions, wanted, strict=True)
    ]


def read(completion: np.ndarray, threads: int = 1) -> str:
    """All that is read in a picture, line after line in the engine's order, without anything between lines."""
    blue_first = np.ascontiguousarray(picture(completion)[:, :, ::-1])  # as OpenCV has it
    lines, _ = engine(threads)(blue_first, use_cls=False)  # Flow-GRPO looks for no text that is upside down
    return "".join(line[1] for line in lines or [])


@functools.cache
def engine(threads: int) -> RapidOCR:
    import cv2
    from rapidocr_onnxruntime import RapidOCR

    cv2.setNumThreads(threads)  # as many as there are cores otherwise, and workers share those
    return RapidOCR(
        intra_op_num_threads=threads,
        inter_op_num_threads=threads,
        det_limit_type="max",
        det_limit_side_len=LONGEST_SIDE,
    )

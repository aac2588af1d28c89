"""The text in a picture, read by Tesseract: the engine that only measures.

A policy that finds out what the rewarded engine takes for a letter gains nothing from another kind of engine: what
rises in `ocr` and not in `ocr_tesseract` is no text. It is a program of the system, started for each picture.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from typing import Any

import numpy as np
from PIL import Image

from rewards.picture import picture
from rewards.reading.quoted import nearness, quoted

HEIGHT = 512
"""A smaller picture is enlarged to this: Tesseract expects capitals of 20 pixels and more. Unit: pixels."""
SPARSE = "11"
"""Its mode that finds as much text as there is, in no order: a picture is no page."""


def ocr_tesseract(
    completions: list[np.ndarray], prompts: list[str], whole: bool = False, language: str = "eng", **_: Any
) -> list[float | None]:
    """`rewards.reading.rapid.ocr` with Tesseract's reading.

    Args:
        whole: as there.
        language: one of those that are installed with it.

    Raises:
        RuntimeError: the program is not there, or it failed.
        ValueError: a prompt has quotes without a text.
    """
    wanted = [quoted(prompt) for prompt in prompts]
    return [
        None if text is None else nearness(read(completion, language), text, whole)
        for completion, text in zip(completions, wanted, strict=True)
    ]


def read(completion: np.ndarray, language: str = "eng") -> str:
    """All that is read in a picture, without the white space between words and lines."""
    program = shutil.which("tesseract")
    if program is None:
        raise RuntimeError(
            "the reward `ocr_tesseract` needs the program `tesseract`, and it is in no folder of PATH: install it "
            "(Debian and Ubuntu: apt-get install tesseract-ocr; macOS: brew install tesseract), or take the term out"
        )
    image = Image.fromarray(picture(completion))
    if image.height < HEIGHT:
        width = max(1, round(image.width * HEIGHT / image.height))
        image = image.resize((width, HEIGHT), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, format="PNG")
    command = [program, "stdin", "stdout", "-l", language, "--psm", SPARSE]
    one_core = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    done = subprocess.run(command, input=file.getvalue(), capture_output=True, env=one_core, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"tesseract ended with status {done.returncode}: {said[-500:] or 'and said nothing'}")
    return "".join(done.stdout.decode(errors="replace").split())

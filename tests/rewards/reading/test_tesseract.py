"""The engine that only measures: the real program under `make test-system`, and what is said without it."""

from __future__ import annotations

import numpy as np
import pytest

from rewards.reading.tesseract import ocr_tesseract, read
from tests.rewards.reading.drawing import prompt, shown


def test_a_missing_program_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"needs the program `tesseract`.* apt-get install tesseract-ocr"):
        ocr_tesseract(completions=[np.zeros((8, 8, 3), np.uint8)], prompts=[prompt("word")])


def test_a_program_that_fails_is_no_empty_reading(monkeypatch, tmp_path):
    program = tmp_path / "tesseract"
    program.write_text("#!/bin/sh\necho 'no such language' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(RuntimeError, match="ended with status 1: no such language"):
        ocr_tesseract(completions=[np.zeros((8, 8, 3), np.uint8)], prompts=[prompt("word")])


@pytest.mark.system
def test_it_reads_rendered_words():
    chosen, pictures = shown(25)
    found = ocr_tesseract(completions=pictures, prompts=[prompt(word) for word in chosen])
    assert sum(score == 1.0 for score in found) >= 24


@pytest.mark.system
def test_a_picture_without_text_says_nothing():
    assert read(np.full((64, 64, 3), 200, np.uint8)) == ""


@pytest.mark.system
def test_a_language_that_is_not_there_is_an_error():
    with pytest.raises(RuntimeError, match="tesseract ended with status 1"):
        read(np.zeros((64, 64, 3), np.uint8), language="xyz")

"""Text of models and data does nothing to a terminal."""

from __future__ import annotations

import pytest

from rewards.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nof two lines, ümlaut, 漢字, \N{GRINNING FACE}", None),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("over\rwritten \x08\x7f\x9b", r"over\rwritten \x08\x7f\x9b"),
        ("half \ud800 of a pair", r"half \ud800 of a pair"),
        ("turned \u202e round", r"turned \u202e round"),
    ],
)
def test_what_moves_a_cursor_or_cannot_be_written_is_spelt_out(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)
    printable(text).encode()

"""docs/pitfalls.md names tests and files that exist, so that the page cannot rot."""

from __future__ import annotations

import re

import pytest

from tests.documentation import ROOT, defines

PAGE = (ROOT / "docs/pitfalls.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
ROWS = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith(("| Pitfall", "|---"))]


@pytest.mark.parametrize(("path", "function"), NAMED)
def test_named_tests_exist(path: str, function: str) -> None:
    assert function.startswith("test_")
    assert defines(path, function)


def test_other_names_would_be_noticed() -> None:
    path, function = NAMED[0]
    assert not defines(path, function + "_not")
    assert not defines("tests/no_such_file.py", function)


def test_every_row_has_a_test_or_says_why_none_is_needed() -> None:
    assert len(ROWS) > 60
    for row in ROWS:
        _, _, prevented, test, _ = row.split("|")
        if not prevented.startswith(" None: "):
            assert re.fullmatch(r" `tests/[\w/]+\.py::test_\w+` ", test), row


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:rl|rollout|models|rewards|tests)/[\w/]+\.py)`", PAGE))))
def test_named_files_exist(path: str) -> None:
    assert (ROOT / path).is_file()

"""The grader against a table of answers that were labelled by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rewards.mathematics import answer as math_answer
from rewards.mathematics.answer import math
from tests.rewards.mathematics.pairs import Pair, read_pairs

PAIRS = read_pairs()
LABELS = ("equal", "unequal", "equal*", "unequal*", "equal!")


@pytest.mark.parametrize("section", dict.fromkeys(pair.section for pair in PAIRS))
def test_every_pair_gets_what_its_label_says(section, monkeypatch):
    """A row that is not recognised is marked in the table: when it is recognised one day, the mark has to go."""
    monkeypatch.setattr(math_answer, "DEADLINE", 60.0)  # a busy machine loses no pair here
    pairs = [pair for pair in PAIRS if pair.section == section]
    scores = math([pair.completion for pair in pairs], answer=[pair.reference for pair in pairs])
    assert [_shown(pair) for pair, score in zip(pairs, scores, strict=True) if score != _due(pair)] == []


def test_the_table_is_large_and_agreement_is_high():
    """Each row's score is asserted above, so the agreement is what the table's marks say."""
    assert len(PAIRS) >= 800
    assert {pair.label for pair in PAIRS} == set(LABELS)
    assert len({(pair.reference, pair.answer) for pair in PAIRS}) == len(PAIRS)
    assert all(pair.rule for pair in PAIRS)
    plain = [pair for pair in PAIRS if not pair.by_convention]
    agreed = sum(not pair.missed for pair in plain)
    assert agreed / len(plain) >= 0.97
    page = (Path(__file__).parents[3] / "docs/mathematics.md").read_text(encoding="utf-8")
    assert f"{agreed} of {len(plain)}" in page
    assert f"{len(PAIRS)} pairs" in page


def test_no_mark_hides_an_answer_that_is_paid_wrongly():
    assert not any(pair.missed and not pair.equal for pair in PAIRS)


def test_the_table_says_what_the_issue_lists():
    """Each of the faults that math-verify is known for has rows of both kinds."""
    sections = {
        *("units", "bases", "scientific notation", "tuples, sets, lists", "intervals and unions", "dates and times"),
        *("percent", "hedging", "boxes"),
    }
    for section in sections:
        labels = {pair.equal for pair in PAIRS if pair.section == section}
        assert labels == {True, False}, section


def _due(pair: Pair) -> float:
    return float(pair.equal and not pair.missed)


def _shown(pair: Pair) -> str:
    return re.sub(r"\s+", " ", f"{pair.label}: {pair.reference} / {pair.answer}")

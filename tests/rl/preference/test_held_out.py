"""Accuracy and calibration against numbers found by hand."""

from __future__ import annotations

import numpy as np
import pytest

from configs.errors import UserError
from rl.preference.held_out import held_out


def test_accuracy_log_loss_and_ties() -> None:
    judged = held_out(np.array([2.0, -1.0, 0.0, 3.0]), ["a", "b", "c", "d"])
    assert (judged.pairs, judged.prompts, judged.ties, judged.accuracy.value) == (4, 4, 1, 0.5)
    assert (judged.accuracy.low, judged.accuracy.high) == pytest.approx((0.15004, 0.84996), abs=1e-4)  # Wilson
    assert judged.log_loss == pytest.approx(np.mean([np.log1p(np.exp(-m)) for m in (2.0, -1.0, 0.0, 3.0)]))


def test_a_calibrated_model_has_no_error_and_a_boastful_one_has() -> None:
    keys = [str(place) for place in range(100)]
    signs = np.where(np.arange(100) < 75, 1.0, -1.0)  # right three times of four
    assert held_out(signs * np.log(3), keys).calibration_error == pytest.approx(0.0, abs=1e-12)
    assert held_out(signs * np.log(99), keys).calibration_error == pytest.approx(0.99 - 0.75)


def test_bins_hold_all_pairs_even_of_certainty() -> None:
    judged = held_out(np.array([1000.0, 1e-9, -1000.0]), ["a", "b", "c"])
    assert [each.pairs for each in judged.bins] == [1, 2]
    assert judged.bins[-1].high == 1.0


def test_many_pairs_of_a_prompt_are_not_so_many_prompts() -> None:
    margins = np.where(np.arange(400) % 40 < 30, 1.0, -1.0)
    alone = held_out(margins, [str(place) for place in range(400)]).accuracy
    together = held_out(np.where(np.arange(400) < 300, 1.0, -1.0), [str(place // 40) for place in range(400)]).accuracy
    assert alone.value == together.value
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="not finite"):
        held_out(np.array([1.0, np.nan]), ["a", "b"])

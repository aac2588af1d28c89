"""Tokens for each denoising round."""

from __future__ import annotations

import pytest

from rewards.registry import resolve


def test_it_is_tokens_over_rounds():
    speed = resolve("tokens_per_round")
    assert speed(completions=["a b c d", "a"], completion_ids=[[1, 2, 3, 4], [1]], denoising_rounds=[2, 4]) == [
        2.0,
        0.25,
    ]


def test_a_length_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        resolve("tokens_per_round")(completions=["a"], completion_ids=[[1]], denoising_rounds=[1, 2])

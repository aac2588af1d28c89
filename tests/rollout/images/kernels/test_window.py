"""Windows: where they lie, that they depend on the ticket alone, and what is refused."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy import stats

from rollout.images.kernels.errors import KernelError
from rollout.images.kernels.window import trained_steps, window_steps
from rollout.options import UntrainedOptions, WindowKind, WindowOptions

STEPS = tuple(range(9))
"""A ten-step schedule: its last step draws no noise."""


def test_all():
    assert window_steps(WindowOptions(), STEPS, seed=1, update=0) == STEPS


@pytest.mark.parametrize(("start", "size", "expected"), [(0, 3, (0, 1, 2)), (2, 1, (2,)), (5, 4, (5, 6, 7, 8))])
def test_fixed(start, size, expected):
    options = WindowOptions(WindowKind.fixed, size=size, start=start)
    assert {window_steps(options, STEPS, seed, update) for seed in range(20) for update in range(20)} == {expected}


def test_random_windows_are_uniform_over_their_range():
    options = WindowOptions(WindowKind.random, size=2, start=1, stop=6)
    windows = Counter(window_steps(options, STEPS, seed, update=0) for seed in range(2000))
    assert set(windows) == {(1, 2), (2, 3), (3, 4), (4, 5)}
    assert stats.chisquare(list(windows.values())).pvalue > 1e-3


def test_random_windows_depend_on_the_ticket_alone():
    options = WindowOptions(WindowKind.random, size=2)
    for seed in (0, 7, 2**62):
        assert len({window_steps(options, STEPS, seed, update) for update in range(50)}) == 1


def test_sliding_windows_move_towards_the_image_and_return():
    options = WindowOptions(WindowKind.sliding, size=4, start=1, every=3)
    windows = [window_steps(options, STEPS, seed, update) for seed, update in enumerate(range(18))]
    starts = [window[0] for window in windows]
    assert starts == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3 + [5] * 3 + [1] * 3
    assert windows[14] == (5, 6, 7, 8)  # the end is reached, and no window is cut short there
    assert {len(window) for window in windows} == {4}


def test_a_window_of_one_step_may_move_at_every_update():
    options = WindowOptions(WindowKind.sliding, size=1, start=6, every=1)
    assert [window_steps(options, STEPS, 0, update) for update in range(4)] == [(6,), (7,), (8,), (6,)]


def test_trained_fraction():
    options = WindowOptions(trained_fraction=0.6)
    drawn = [trained_steps(options, STEPS, seed, 0) for seed in range(1500)]
    assert {len(steps) for steps in drawn} == {5}
    assert all(steps == tuple(sorted(set(steps))) and set(steps) <= set(STEPS) for steps in drawn)
    counts = Counter(step for steps in drawn for step in steps)
    assert all(abs(counts[step] / 1500 - 5 / 9) < 0.05 for step in STEPS)
    assert trained_steps(options, STEPS, 5, 0) == trained_steps(options, STEPS, 5, 0)
    assert trained_steps(WindowOptions(), STEPS, 5, 0) == STEPS
    assert len(trained_steps(WindowOptions(trained_fraction=0.01), STEPS, 5, 0)) == 1
    assert trained_steps(WindowOptions(trained_fraction=0.0), STEPS, 5, 0) == ()


def test_untrained_steps_move_towards_the_noise_and_stay_there():
    """BranchGRPO's depth pruning: its script names the depths 15 to 18, to which the steps 14 to 17 lead, and moves
    them every 30 updates, until the first is depth 9."""
    steps, options = tuple(range(19)), WindowOptions(untrained=UntrainedOptions())
    window = window_steps(options, steps, seed=1, update=0)
    assert window == steps  # they draw noise all the same
    for update, first in ((0, 14), (29, 14), (30, 13), (179, 9), (180, 8), (10_000, 8)):
        left_out = sorted({*steps} - {*trained_steps(options, window, 1, update)})
        assert left_out == list(range(first, first + 4))
    half = WindowOptions(trained_fraction=0.5, untrained=UntrainedOptions(size=10, start=2, final_start=0, every=1))
    drawn = [trained_steps(half, steps, seed, 1) for seed in range(50)]
    assert {len(found) for found in drawn} == {round(0.5 * 9)}
    assert {step for found in drawn for step in found} == {0, *range(11, 19)}
    with pytest.raises(KernelError, match="lower its size"):
        trained_steps(WindowOptions(untrained=UntrainedOptions(size=9, start=0, final_start=0)), STEPS, 0, 0)


def test_the_window_and_what_is_trained_of_it_are_independent_draws():
    options = WindowOptions(WindowKind.random, size=2, start=0, stop=3, trained_fraction=0.5)
    pairs = []
    for seed in range(1000):
        window = window_steps(options, STEPS, seed, 0)
        pairs.append((window[0], trained_steps(options, window, seed, 0)[0] - window[0]))
    table = [[sum(pair == (a, b) for pair in pairs) for b in (0, 1)] for a in (0, 1)]
    assert stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize(
    ("options", "steps", "message"),
    [
        (WindowOptions(WindowKind.fixed, size=4, start=6), STEPS, "does not fit between start=6 and stop=9"),
        (WindowOptions(WindowKind.random, size=2, stop=12), STEPS, r"draw no noise: \[9, 10, 11\]"),
        (WindowOptions(WindowKind.sliding, size=2, start=-1), STEPS, r"draw no noise: \[-1\]"),
        (WindowOptions(WindowKind.fixed, size=3, start=2, stop=4), STEPS, "does not fit"),
        (WindowOptions(WindowKind.fixed, size=0), STEPS, "at least 1"),
        (WindowOptions(WindowKind.sliding, every=0), STEPS, "at least 1"),
        (WindowOptions(WindowKind.fixed, size=3), (0, 2, 3), r"draw no noise: \[1\]"),
        (WindowOptions(), (), "no step draws noise"),
    ],
)
def test_errors(options, steps, message):
    with pytest.raises(KernelError, match=message):
        window_steps(options, steps, seed=0, update=0)


@pytest.mark.parametrize("fraction", [1.5, -0.1])
def test_a_fraction_is_a_fraction(fraction):
    with pytest.raises(KernelError, match="must lie in"):
        trained_steps(WindowOptions(trained_fraction=fraction), STEPS, 0, 0)

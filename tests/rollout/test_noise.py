"""The counter-based generator against published vectors; its draws against their laws and independence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from rollout import noise
from rollout.noise import Purpose, normal, philox, uniform

# philox4x32-10 lines of `kat_vectors` in the Random123 distribution: counter, key, output.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor([int(word, 16)]) for word in text.split())


def known_answers_hold() -> bool:
    return all(
        [f"{int(word):08x}" for word in philox(words(counter), words(key))] == output.split()
        for counter, key, output in KNOWN_ANSWERS
    )


def test_known_answers():
    assert known_answers_hold()


@pytest.mark.parametrize(("name", "value"), [("_ROUNDS", 9), ("_MULTIPLIERS", (0xCD9E8D57, 0xD2511F53))])
def test_known_answers_tell_a_wrong_generator(monkeypatch, name, value):
    monkeypatch.setattr(noise, name, value)
    assert not known_answers_hold()


def test_philox_is_elementwise():
    counter = tuple(torch.arange(12).reshape(3, 4) * (k + 1) for k in range(4))
    key = (torch.full((3, 4), 7), torch.arange(12).reshape(3, 4))
    together = philox(counter, key)
    for row, column in itertools.product(range(3), range(4)):
        alone = philox(tuple(c[row, column] for c in counter), (key[0][row, column], key[1][row, column]))
        assert [int(word[row, column]) for word in together] == [int(word) for word in alone]


def line(axis: str, purpose: Purpose = Purpose.TOKEN, count: int = 20_000, fixed: int = 5) -> np.ndarray:
    """Uniforms along one argument, the others fixed."""
    arguments = {name: torch.tensor(fixed) for name in ("uid", "position", "round_index")}
    arguments[axis] = torch.arange(count)
    return uniform(**arguments, purpose=purpose).numpy()


def dependent(first: np.ndarray, second: np.ndarray) -> bool:
    """χ² test of independence on a 10 x 10 grid, at p < 1e-3."""
    table = np.histogram2d(first, second, bins=10, range=[[0, 1], [0, 1]])[0]
    return stats.chi2_contingency(table).pvalue < 1e-3


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("axis", ["uid", "position", "round_index"])
def test_uniform_along_every_argument(axis, purpose):
    draws = line(axis, purpose)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    assert not dependent(draws[:-1], draws[1:])  # neighbours


def test_streams_are_independent():
    by_position = {
        (uid, round_index, purpose): uniform(
            torch.tensor(uid), torch.arange(20_000), torch.tensor(round_index), purpose
        ).numpy()
        for uid in (1, 2)
        for round_index in (1, 2)
        for purpose in Purpose
    }
    for first, second in itertools.combinations(by_position.values(), 2):
        assert not dependent(first, second)
    assert not dependent(line("uid"), line("position"))


def test_the_independence_test_can_fail():
    draws = line("position")
    assert dependent(draws, (draws + 0.05) % 1)


def test_swapped_arguments_are_other_draws():
    a, b = torch.tensor(3), torch.tensor(4)
    assert uniform(a, a, b, Purpose.TOKEN) != uniform(a, b, a, Purpose.TOKEN)
    assert uniform(a, b, b, Purpose.TOKEN) != uniform(b, a, b, Purpose.TOKEN)


def test_negative_keys_use_all_64_bits():
    """A negative int64 is the unsigned key with the same bits; its high word must count, its sign must not smear."""
    keys = torch.cat([torch.arange(-20_000, 0), torch.tensor([-(2**63), 2**63 - 1])])
    draws = uniform(keys, torch.tensor(0), torch.tensor(1), Purpose.TOKEN)
    assert stats.kstest(draws.numpy(), "uniform").pvalue > 1e-3
    assert len(draws.unique()) == len(keys)
    low, high = words("00000007 ffffffff")
    expected = philox((torch.tensor([0]), torch.tensor([1]), torch.tensor([0]), torch.tensor([0])), (low, high))
    value = uniform(torch.tensor([7 - 2**32]), torch.tensor([0]), torch.tensor([1]), Purpose.TOKEN)
    assert value.item() == ((int(expected[0]) >> 5) * 2**26 + (int(expected[1]) >> 6)) / 2**53


def test_high_bits_of_the_key_matter():
    at = (torch.tensor(0), torch.tensor(0), Purpose.TOKEN)
    assert uniform(torch.tensor(1), *at) != uniform(torch.tensor(1 + 2**32), *at)


def test_53_bits():
    """With 24 or 32 bits, rare tokens of a large vocabulary could never be drawn."""
    scaled = line("uid", count=1000) * 2**53
    assert (scaled == np.round(scaled)).all()
    assert (scaled % 2 == 1).any()


def normals(count: int, shape: tuple[int, ...] = (1,), round_index: int = 0, purpose: Purpose = Purpose.DIFFUSION):
    return normal(torch.arange(count), shape, round_index, purpose)


@pytest.mark.parametrize(
    "draws", [normals(40_000), normals(1, (40_000,)), normals(200, (2, 10, 10))], ids=["samples", "elements", "image"]
)
def test_normals_are_normal(draws):
    flat = draws.flatten().double().numpy()
    assert draws.dtype is torch.float32
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    for order, moment in enumerate([0, 1, 0, 3], start=1):
        spread = (flat**order).std() / len(flat) ** 0.5
        assert abs((flat**order).mean() - moment) < 4 * spread
    assert 3.5 < np.abs(flat).max() < 7


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((0, 0, Purpose.DIFFUSION), (1, 0, Purpose.DIFFUSION)),
        ((0, 0, Purpose.DIFFUSION), (0, 1, Purpose.DIFFUSION)),
        ((0, 0, Purpose.DIFFUSION), (0, 0, Purpose.INITIAL)),
        ((5, 6, Purpose.DIFFUSION), (6, 5, Purpose.DIFFUSION)),
    ],
    ids=["sample", "step", "purpose", "swapped"],
)
def test_normals_of_other_keys_are_independent(first, second):
    a, b = (normal(torch.tensor([uid]), (40_000,), step, purpose)[0].numpy() for uid, step, purpose in (first, second))
    for power in (1, 2):  # squares, because equal radii at other angles are uncorrelated
        assert abs(np.corrcoef(a**power, b**power)[0, 1]) < 4 / 200


def test_neighbouring_elements_are_independent():
    """Elements 2 k and 2 k + 1 share a radius."""
    a, b = normals(1, (80_000,))[0].reshape(-1, 2).numpy().T
    uniforms = stats.norm.cdf(a), stats.norm.cdf(b)
    assert not dependent(*uniforms)
    assert abs(np.corrcoef(a**2, b**2)[0, 1]) < 4 / 200
    assert dependent((a / np.hypot(a, b) + 1) / 2, (b / np.hypot(a, b) + 1) / 2)  # and the test sees a shared angle


def test_normals_do_not_know_their_batch():
    uid = torch.tensor([3, -5, 2**62, 3, 77])
    steps = torch.tensor([0, 4, 4, 9, 1])
    together = normal(uid, (3, 5, 7), steps, Purpose.DIFFUSION)
    for row, step in enumerate(steps.tolist()):
        assert torch.equal(normal(uid[row : row + 1], (3, 5, 7), step, Purpose.DIFFUSION)[0], together[row])
    order = torch.tensor([4, 2, 0])
    assert torch.equal(normal(uid[order], (3, 5, 7), steps[order], Purpose.DIFFUSION), together[order])
    assert not torch.equal(together[0], together[3]), "one sample at two steps"


def test_normals_do_not_know_their_shape():
    """An odd number of elements drops the last of a pair and nothing else."""
    even, odd = normals(3, (2, 4)), normals(3, (7,))
    assert torch.equal(even.flatten(1)[:, :7], odd)


def test_normals_are_box_and_muller_s():
    """A second reading in numpy of four known words: all of them count."""
    counter = (torch.tensor([0]), torch.tensor([9]), torch.tensor([int(Purpose.INITIAL)]), torch.tensor([0]))
    word = [int(each) for each in philox(counter, (torch.tensor([5]), torch.tensor([0])))]
    first, second = (((high >> 5) * 2**26 + (low >> 6)) / 2**53 for high, low in (word[:2], word[2:]))
    radius = np.sqrt(-2 * np.log(1 - first))
    expected = [radius * np.cos(2 * np.pi * second), radius * np.sin(2 * np.pi * second)]
    np.testing.assert_allclose(normal(torch.tensor([5]), (2,), 9, Purpose.INITIAL)[0], expected, rtol=1e-6)

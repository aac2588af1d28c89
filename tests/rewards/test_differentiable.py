"""Differentiable rewards: the number that is evaluated is the number whose gradient trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rewards.differentiable import DifferentiableTotal, brightness, differentiable
from rewards.images.digits import digit_images, digit_log_probability, digit_probability
from rewards.options import RewardTerm
from rewards.registry import RewardError

IMAGES, DIGITS = (values[:24] for values in digit_images("train"))
PIXELS = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255


@differentiable
def of_shape(images, prompts, shape=(), **_):
    return images.new_zeros(shape)


@differentiable
def rounded(images, **_):
    return images.detach().mean(dim=(1, 2, 3))


@differentiable
def infinite(images, **_):
    return images.mean(dim=(1, 2, 3)) / 0


def term(name: str, **settings) -> dict[str, RewardTerm]:
    function = name if name in ("brightness", "digit_log_probability", "jpeg_compressibility") else f"{__name__}.{name}"
    return {"a": RewardTerm(function=function, **settings)}


def test_the_digits_log_probability_is_that_of_the_classifier():
    """Within the rounding of grey values to bytes, which only the classifier's own features have."""
    expected = np.log(digit_probability(completions=list(IMAGES), digit=DIGITS.tolist()))
    found = np.array(digit_log_probability(completions=list(IMAGES), digit=DIGITS.tolist()))
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.02)
    wrong = np.array(digit_log_probability(completions=list(IMAGES), digit=((DIGITS + 1) % 10).tolist()))
    assert (wrong < found - 0.1).mean() > 0.9


def test_both_faces_are_one_function():
    of_pixels = DifferentiableTotal(term("digit_log_probability"))(PIXELS, ["x"] * 24, {"digit": DIGITS.tolist()})
    assert of_pixels.tolist() == digit_log_probability(completions=list(IMAGES), digit=DIGITS.tolist())
    assert brightness(completions=list(IMAGES)) == pytest.approx(IMAGES.mean(axis=(1, 2, 3)) / 255)
    assert brightness(completions=[]) == []


def test_the_gradient_is_that_of_finite_differences():
    pixels = PIXELS[:4, :, ::4, ::4].double().requires_grad_()  # (4, 3, 8, 8)
    assert torch.autograd.gradcheck(
        lambda images: digit_log_probability.of_images(images, digit=DIGITS[:4].tolist()), pixels
    )


def test_a_sample_is_scored_by_its_own_columns_only():
    """Permuting the captions permutes what each picture is asked to show, and nothing else."""
    total = DifferentiableTotal(term("digit_log_probability"))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    digits = torch.from_numpy(DIGITS)
    straight, permuted = (total(PIXELS, ["x"] * 24, {"digit": d.tolist()}) for d in (digits, digits[order]))
    same = digits == digits[order]
    assert same.any()
    assert (straight == permuted)[same].all()
    assert (straight != permuted)[~same].all()
    torch.testing.assert_close(total(PIXELS[order], ["x"] * 24, {"digit": digits[order].tolist()}), straight[order])


def test_terms_are_weighted_and_measures_left_out():
    terms = term("brightness", weight=2.0) | {"b": RewardTerm(function="brightness", weight=-0.5)}
    terms |= {"measure": RewardTerm(function="jpeg_compressibility", weight=0.0)}
    found = DifferentiableTotal(terms)(PIXELS, ["x"] * 24, {"prompt": ["dropped"] * 24})
    torch.testing.assert_close(found, 1.5 * PIXELS.mean(dim=(1, 2, 3)))


def value_and_gradient(terms: dict[str, RewardTerm], unit: bool) -> tuple[torch.Tensor, torch.Tensor]:
    images = (PIXELS * 0.9).requires_grad_()
    value = DifferentiableTotal(terms, unit)(images, ["x"] * 24, {"digit": DIGITS.tolist()})
    value.sum().backward()
    assert images.grad is not None
    return value.detach(), images.grad.flatten(1)


def test_unit_gradients_keep_values_and_directions():
    """And a term of large gradients no longer hides the other."""
    digit = term("digit_log_probability", weight=3.0)
    bright = {"b": RewardTerm(function="brightness", weight=0.5)}
    alone = []
    for terms in (digit, bright):
        (value, plain), (same, unit) = value_and_gradient(terms, False), value_and_gradient(terms, True)
        torch.testing.assert_close(same, value)
        (weight,) = (each.weight for each in terms.values())
        torch.testing.assert_close(unit, weight * plain / plain.norm(dim=1, keepdim=True))
        alone.append(unit)
    _, both = value_and_gradient(digit | bright, True)
    torch.testing.assert_close(both, alone[0] + alone[1])
    _, plain = value_and_gradient(digit | bright, False)
    assert torch.cosine_similarity(plain, both).min() < 0.999


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (term("jpeg_compressibility"), r"reward.terms.a.function=jpeg_compressibility cannot be differentiated"),
        (term("brightness", weight=0.0), "nothing to differentiate"),
    ],
)
def test_terms_that_cannot_be_differentiated(terms, message):
    with pytest.raises(RewardError, match=message):
        DifferentiableTotal(terms)


@pytest.mark.parametrize(
    ("terms", "columns", "message"),
    [
        (term("of_shape"), {}, r"reward.terms.a returned shape \(\) for 24 pictures"),
        (term("of_shape", args={"shape": (24, 24)}), {}, r"shape \(24, 24\)"),
        (term("rounded"), {}, "lost the gradient"),
        (term("infinite"), {}, "not finite"),
        (term("brightness"), {"images": ["x"] * 24}, "column 'images' has the name of an argument"),
    ],
)
def test_rewards_that_are_called_wrongly(terms, columns, message):
    with pytest.raises(RewardError, match=message):
        DifferentiableTotal(terms)(PIXELS.clone().requires_grad_(), ["x"] * 24, columns)


def test_pictures_of_several_sizes_are_named():
    with pytest.raises(ValueError, match="pictures of several sizes in one call"):
        brightness(completions=[IMAGES[0], IMAGES[0][:8]])

"""An image policy in training and in bf16, and what its rows owe to each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.images.checkpoint import load_image_policy
from models.images.policy import Guidance, ImagePolicy
from models.options import Precision
from tests.models.pipelines import NAMES, image_options, random_inputs, tiny_pipeline


@pytest.mark.parametrize("name", NAMES)
def test_training_mode_and_recomputed_activations_change_no_bit(pipelines: dict[str, Path], name: str) -> None:
    """The recorded log-probability comes from evaluation mode without gradients, the learner's from training mode."""
    plain = load_image_policy(image_options(pipelines[name]))
    inputs = random_inputs(plain)
    with torch.no_grad():
        expected = plain(**inputs)
    gradients = {}
    for recompute in (False, True):
        policy = load_image_policy(image_options(pipelines[name], gradient_checkpointing=recompute)).train()
        output = policy(**inputs)
        assert torch.equal(output, expected)
        output.square().sum().backward()
        gradients[recompute] = {key: parameter.grad for key, parameter in policy.named_parameters()}
    unused = [key for key, gradient in gradients[False].items() if gradient is None]
    assert unused == []
    for key, gradient in gradients[False].items():
        torch.testing.assert_close(gradients[True][key], gradient, rtol=1e-4, atol=1e-5)


def test_dropout_of_a_checkpoint_is_switched_off(pipelines: dict[str, Path], tmp_path: Path) -> None:
    tiny_pipeline("sd", dropout=0.5).save_pretrained(tmp_path)
    policy = load_image_policy(image_options(tmp_path))
    inputs = random_inputs(policy)
    assert torch.equal(policy.train()(**inputs), policy.eval()(**inputs))


@pytest.mark.parametrize("name", NAMES)
def test_bf16_rounds_the_weights_and_returns_fp32(pipelines: dict[str, Path], name: str) -> None:
    full = load_image_policy(image_options(pipelines[name]))
    half = load_image_policy(image_options(pipelines[name], precision=Precision.bf16))
    for expected, actual in zip(full.parameters(), half.parameters(), strict=True):
        assert torch.equal(actual, expected.to(torch.bfloat16))
    inputs = random_inputs(full)
    with torch.no_grad():
        expected, actual = full(**inputs), half(**inputs)
    assert actual.dtype == torch.float32
    assert 0 < (actual - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_a_row_depends_on_the_batch_size_only(pipelines: dict[str, Path], name: str) -> None:
    """At one batch size, neither a row's place nor its mates change a bit of it; at another size, last bits do."""
    policy = load_image_policy(image_options(pipelines[name]))
    inputs = random_inputs(policy, rows=24)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(2))

    def output(rows: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return policy(**{key: None if value is None else value[rows] for key, value in inputs.items()})

    straight = torch.cat([output(rows) for rows in torch.arange(24).split(8)])
    shuffled = torch.cat([output(rows) for rows in order.split(8)])
    assert torch.equal(shuffled, straight[order])
    alone = torch.cat([output(rows) for rows in torch.arange(24).split(1)])
    torch.testing.assert_close(alone, straight, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_input_matters(pipelines: dict[str, Path], name: str) -> None:
    policy = load_image_policy(image_options(pipelines[name]))
    inputs = random_inputs(policy)
    with torch.no_grad():
        base = policy(**inputs)
        for key, value in inputs.items():
            if value is not None:
                assert (policy(**{**inputs, key: value * 0.5}) - base).abs().max() > 1e-4, key


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_a_guidance_scale_is_given_exactly_where_it_is_embedded(pipelines: dict[str, Path], name: str) -> None:
    policy: ImagePolicy = load_image_policy(image_options(pipelines[name]))
    inputs = random_inputs(policy)
    embedded = policy.spec.guidance is Guidance.embedded
    inputs["guidance"] = None if embedded else torch.ones(3)
    with pytest.raises(ValueError, match=r"guidance is (embedded|classifier_free)"):
        policy(**inputs)

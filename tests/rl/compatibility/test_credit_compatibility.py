"""What cannot go with advantages of steps, with the likelihood of proposals, or with remasking; each has its reason."""

from __future__ import annotations

import pytest

from configs.errors import ConfigError
from tests.rl.compatibility.test_compatibility import BLOCK, FULL, problems
from tests.rl.compatibility.test_image_compatibility import FORWARD, checked

STEPS = ["algorithm.advantage=per_step"]
MDPO = ["model=tiny_full", "algorithm=mdpo"]
REMASK = ["rollout.sampler.remask=running_confidence"]
WHOLE = ["algorithm.objective=group_dpo", "algorithm.ratio=none", "algorithm.denominator=sequence"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["algorithm.selected_steps=2"], "advantage=zscore has one a sample"),
        ([*STEPS, "algorithm.selected_steps=0"], "selected_steps=0: must be at least 1"),
        (["model=tiny_full", "algorithm=espo", *STEPS, "algorithm.ratio=element"], "kind=elbo scores none of them"),
        ([*STEPS, "algorithm.ratio=sequence"], "ratio=sequence has one ratio a sample"),
        ([*STEPS, *WHOLE], "objective=group_dpo makes one number of it"),
        ([*STEPS, "algorithm.normalise_terms=zscore"], "use normalise_terms=none"),
        ([*STEPS, "algorithm.anchor=0", "algorithm.value.passes=1"], "both say what each step is worth"),
        ([*STEPS, "rollout.refills=1"], "learns from the way there too; use 0"),
        ([*MDPO, "algorithm.advantage=zscore", "algorithm.selected_steps=null", *WHOLE], "makes no likelihood of the"),
        ([*MDPO, "algorithm.denominator=canvas"], "denominator=canvas counts it once"),
        ([*MDPO, "rollout.sampler.top_p=0.9"], "kind=proposals records no truncated distributions"),
        ([*MDPO, "algorithm.likelihood.prompt_masking=0.1"], "prompt_masking=0.1 does nothing with kind=proposals"),
        (REMASK, "a replay scores it once; use algorithm.likelihood.kind=proposals"),
        ([*MDPO, *REMASK, "rollout.sampler.count=threshold"], "count=threshold has none; use quota"),
        ([*MDPO, *REMASK, "rollout.sampler.order=sequential"], "order=sequential does not say; use max_prob"),
        (
            ["model=tiny_full", "algorithm=espo", *REMASK, "rollout.sampler.top_k=5"],
            "without which the rollout cannot",
        ),
    ],
)
def test_refused(overrides: list[str], expected: str) -> None:
    found = problems(overrides, FULL)
    assert len(found) == 1, found
    assert expected in found[0]


def test_remasking_is_for_bidirectional_models() -> None:
    (found,) = problems(["algorithm=mdpo", *REMASK], BLOCK)
    assert "tiny_block is block-causal, what follows a block was made from its tokens" in found


@pytest.mark.parametrize(
    "overrides",
    [MDPO, [*MDPO, *REMASK], [*STEPS, "algorithm.ratio=step"], ["model=tiny_full", "algorithm=espo", *REMASK]],
)
def test_allowed(overrides: list[str]) -> None:
    assert problems(overrides, FULL) == []


def test_proposals_of_a_block_causal_model() -> None:
    assert problems(["algorithm=mdpo"], BLOCK) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm.likelihood.kind=proposals"], "an image keeps every step: use kind=replay"),
        ([*STEPS, "algorithm.selected_steps=2"], "choose trained steps by rollout.denoising.window"),
        ([*STEPS, *FORWARD], "kind=elbo scores none of them"),
    ],
)
def test_refused_for_images(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(*overrides)


def test_advantages_of_steps_are_for_images_too() -> None:
    checked(*STEPS)

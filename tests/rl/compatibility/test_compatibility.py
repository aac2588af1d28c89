"""Each impossible combination is refused with its reason, and what is possible passes."""

from __future__ import annotations

import copy
import dataclasses
import functools
from operator import attrgetter

import pytest

from configs.algorithm_options import LikelihoodOptions
from configs.compose import compose
from configs.errors import ConfigError
from configs.fields import type_of
from configs.schema import Config
from models.images.spec import ImageSpec
from models.options import UserAdapterOptions
from models.text.spec import TextSpec
from rl.compatibility import check
from rl.compatibility.ranges import ABOVE_ZERO, AT_LEAST
from rl.compatibility.run import remarks
from rl.compatibility.unused import READ_BY


def spec(family: str, block_length: int | None, max_length: int) -> TextSpec:
    return TextSpec(family, block_length, 0, 9, 8, (7,), vocab_size=10, tokenizer_size=10, max_length=max_length)


BLOCK = spec("tiny_block", 4, 128)
FULL = spec("tiny_full", None, 128)


def problems(overrides: list[str], spec: TextSpec | ImageSpec | None, recipe: str = "quickstart") -> list[str]:
    try:
        check(compose([f"recipe={recipe}", *overrides]).config, spec)
    except ConfigError as error:
        return str(error).split("\n  ")[1:]
    return []


SAMPLER = "rollout.sampler"
LIKELIHOOD = "algorithm.likelihood"
PAIRS = ["data.train.response=null", "data.train.chosen='{{ answer }}'", "data.train.rejected='{{ question }}'"]
PREFERENCE = ["algorithm=dpo"]
BY_SEQUENCE = "algorithm.denominator=sequence"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([f"{SAMPLER}.top_p=0"], "rollout.sampler.top_p=0.0: must lie in (0, 1]"),
        ([f"{SAMPLER}.top_p=1.1"], "rollout.sampler.top_p=1.1: must lie in (0, 1]"),
        ([f"{SAMPLER}.temperature=-1"], "rollout.sampler.temperature=-1.0: must be at least 0"),
        ([f"{SAMPLER}.max_new_tokens=0"], "rollout.sampler.max_new_tokens=0: must be at least 1"),
        (["data.evaluation.prompt=null"], "data.evaluation.prompt=null takes prompts out of answers"),
        (["evaluation.images_per_prompt=4"], "greedy completions of a text are all the same"),
        ([f"{SAMPLER}.temperature=0"], "greedy: all samples of a group are equal"),
        ([f"{SAMPLER}.count=threshold", f"{SAMPLER}.order=entropy"], "order=entropy does not rank by one"),
        ([f"{SAMPLER}.count=factor", f"{SAMPLER}.order=margin"], "order=margin does not rank by one"),
        ([f"{SAMPLER}.count=entropy_bound"], "use order=entropy"),
        ([f"{SAMPLER}.count=entropy_sum"], "use order=entropy"),
        ([f"{SAMPLER}.least_per_round=2"], "least_per_round=2 is for rules that look at scores"),
        ([f"{SAMPLER}.block_length=8"], "this checkpoint's attention has blocks of 4"),
        ([f"{SAMPLER}.rounds_per_block=5"], "a block of 4 tokens has at most 4 rounds"),
        (["data.max_prompt_tokens=109"], "need 132 positions, tiny_block has 128"),
        (
            [f"{SAMPLER}.order=drawn_prob", "algorithm.likelihood.partition=shrink"],
            "only likelihood.partition=every_step can compute",
        ),
        (["algorithm.ratio=none"], "ppo_clip is made of a ratio, but ratio=none"),
        (["algorithm.objective=weighted"], "weighted has no ratio, but ratio=element"),
        (["algorithm=sft", "algorithm.objective=ppo_clip", "algorithm.ratio=element"], "needs objective=weighted"),
        (["algorithm=sft", "data.train.response=null"], "set data.train.response"),
        (["algorithm=sft", *PAIRS], "advantage=constant trains on demonstrations; set data.train.response"),
        (PREFERENCE, "data.train.response=null"),
        ([*PREFERENCE, "data.train.response=null"], "set data.train.chosen and data.train.rejected to templates"),
        ([*PREFERENCE, *PAIRS, "data.train.response=a"], "data.train has response and chosen and rejected"),
        ([*PREFERENCE, *PAIRS, "data.train.rejected=null"], "data.train has chosen; a problem has either"),
        (["data.train.chosen_image=a"], "data.train has chosen_image; a problem has either"),
        ([*PREFERENCE, *PAIRS, "algorithm.likelihood.kind=replay"], "advantage=preference makes none; use kind=elbo"),
        (
            [*PREFERENCE, *PAIRS, "algorithm.objective=ppo_clip", "algorithm.ratio=element"],
            "a policy that drew none of them",
        ),
        ([*PREFERENCE, *PAIRS, "cluster.learners=129"], "cluster.learners=129 is more than the 128 samples"),
        (["algorithm=sft", "algorithm.likelihood.kind=replay"], "kind=replay needs rollouts"),
        (["algorithm.objective=linear_bound"], "linear_bound bounds the ratio of sequences draw by draw"),
        (
            ["algorithm.objective=linear_bound", "algorithm.ratio=sequence"],
            "use ratio=sequence and likelihood.kind=elbo",
        ),
        (["algorithm.objective=sandwich", "algorithm.ratio=none"], "a replayed chain gives none"),
        (
            ["algorithm.objective=group_dpo", "algorithm.denominator=sequence"],
            "group_dpo has no ratio, but ratio=element",
        ),
        (["algorithm.objective=trust_region"], "as wide as clip_kl says, which is null"),
        (["algorithm.ratio=sequence", "algorithm.clip_kl=0.1"], "ratio=sequence has one a sample; use clip"),
        (["algorithm.dual_clip=1"], "dual_clip=1.0: must be above 1"),
        (["algorithm.objective=clip_always", "algorithm.dual_clip=3"], "dual_clip is a part of objective=ppo_clip"),
        (["algorithm.objective=weighted", "algorithm.ratio=none", "algorithm.self_normalise=true"], "has none of"),
        (["algorithm.solved_band=[0.8,0.2]"], "must be two numbers in [0, 1], the lower first"),
        (["algorithm.solved_band=[0.2]"], "must be two numbers in [0, 1], the lower first"),
        (["algorithm.beta=5"], "beta=5.0 does nothing with objective=ppo_clip; it is for group_dpo, nft"),
        (["algorithm=sft", "algorithm.clip=0.1"], "clip=0.1 does nothing with objective=weighted"),
        (["algorithm.running.buffer=99"], "algorithm.running does nothing with advantage="),
        (["algorithm=sft", "algorithm.anchor=3"], "advantage=constant has none beside it"),
        (["algorithm=trace_grpo", "algorithm.anchor_on=solved"], "anchor_on=solved does nothing with anchor=0"),
        (["rollout.denoising.steps=7"], "rollout.denoising does nothing for a model of texts"),
        (["algorithm=tracerl", "algorithm.minibatches=1"], "the KL has no gradient; use minibatches or epochs above 1"),
        (["reward.solved_by=speed"], "reward.solved_by=speed is no term; there are answer"),
        (
            ["reward.solved_at=null", "reward.solved_by=answer"],
            "such as 1, or leave solved_by out",
        ),
        (["reward.solved_at=null", "algorithm.solved_band=[0.2,0.8]"], "such as 1, or use solved_band=null"),
        (
            ["reward.solved_at=null", "algorithm=lightning_rl", "algorithm.solved_band=null"],
            "algorithm.anchor_on=solved imitates solved samples, and reward.solved_at=null",
        ),
        (["algorithm.optimizer.learning_rate=nan"], "learning_rate=nan: must be a finite number"),
        (["algorithm.value.clip=inf", "algorithm=tracerl_value"], "clip=inf: must be a finite number, or null"),
        (["reward.terms.answer.weight=inf"], "reward.terms.answer.weight=inf: must be a finite number"),
        *((["run.name=" + name], "names no folder within run.folder") for name in ("''", ".", "a/../../b", "/tmp/a")),
        (
            [f"{LIKELIHOOD}.shrink=2"],
            "shrink=2 does nothing with partition=every_step; leave it out, or use partition=",
        ),
        ([f"{LIKELIHOOD}.segments=2"], "segments=2 does nothing with partition=every_step"),
        ([f"{SAMPLER}.threshold=0.8"], "threshold=0.8 does nothing with count=quota; leave it out, or use count="),
        ([f"{SAMPLER}.entropy_bound=0.2"], "entropy_bound=0.2 does nothing with count=quota"),
        (
            [f"{SAMPLER}.count=threshold", f"{SAMPLER}.rounds_per_block=2"],
            "rounds_per_block=2 does nothing with count=",
        ),
        (["model.max_sequence_length=77"], "max_sequence_length=77 does nothing for a model of texts"),
        (["data.train.split=test"], "data.train.split=test does nothing for kind=reasoning_gym; leave it out"),
        (
            ["data.also.mine.kind=file", "data.also.mine.name=a.jsonl", "data.also.mine.seed=1"],
            "mine.seed=1 does nothing",
        ),
        (["reward.solved_at=nan"], "reward.solved_at=nan: must be a finite number, or null"),
        (["reward.terms.mean.function=math"], "reward.terms.mean: reward/mean is a metric of every run"),
        (
            ["algorithm.reference_clip=0.1"],
            "does nothing with objective=ppo_clip; it is for group_dpo",
        ),
        (["algorithm=online_dpo", "algorithm.reference_clip=1"], "reference_clip=1.0: must lie between 0 and 1"),
        (["algorithm.least_difference=0"], "least_difference=0.0: must be above 0"),
        (["algorithm.least_difference=0.1", "algorithm.advantage=batch"], "is of the rewards of a group"),
        (["algorithm=sft", "algorithm.least_difference=0.1"], "is of the rewards of a group, and advantage=constant"),
        (["algorithm.advantage=batch", "rollout.refills=1"], "does not compare within groups; use 0"),
        (
            ["algorithm=tracerl_value", "algorithm.advantage=raw", "rollout.refills=1"],
            "not compare within groups; use 0",
        ),
        (
            ["algorithm.advantage=raw"],
            "compared with nothing but a value model's prediction, and algorithm.value is null",
        ),
        (["algorithm=sft", "algorithm.value.passes=1"], "advantage=constant learns from answers in the data"),
        (["algorithm=espo", "algorithm.ratio=element", "algorithm.value.passes=1"], "needs a recorded trace"),
        (["algorithm=agrpo", "algorithm.value.passes=1"], "sampled_parts=4 leaves steps out; use sampled_parts=null"),
        (["algorithm.positive_only=true"], "positive_only=true does nothing with advantage=zscore; it is for softmax"),
        (["algorithm.denominator=row", "algorithm.ratio=sequence"], "denominator=row averages within a sample"),
        (
            ["algorithm=espo", "algorithm.ratio=element", "algorithm.denominator=row_length"],
            "denominator=row_length counts the states that a replay scores",
        ),
        (["algorithm=tracerl_value", "algorithm.ratio=sequence"], "ratio=sequence has one for the whole sample"),
        (
            ["algorithm=tracerl_value", "algorithm.objective=group_dpo", "algorithm.ratio=none", BY_SEQUENCE],
            "objective=group_dpo compares whole samples",
        ),
        (["algorithm.anchor=0", "algorithm.value.discount=1.5"], "algorithm.value.discount=1.5: must be at most 1"),
        (
            ["algorithm.anchor=0", "algorithm.value.optimizer.betas=[0.9,1]"],
            "algorithm.value.optimizer.betas=[0.9, 1.0]: must be two numbers",
        ),
        (["rollout.refills=65"], "rollout.refills=65: at most 64"),
        ([f"{LIKELIHOOD}.draws=2"], "likelihood.draws=2 does nothing with kind=replay; leave it out, or use kind=elbo"),
        ([f"{LIKELIHOOD}.complement=true"], "likelihood.complement=True does nothing with kind=replay"),
        ([f"{LIKELIHOOD}.rate_range=[0.1,0.9]"], "likelihood.rate_range=[0.1, 0.9] does nothing with kind=replay"),
        ([f"{LIKELIHOOD}.noise_law=logit_normal"], "likelihood.noise_law=logit_normal does nothing with kind=replay"),
        ([f"{LIKELIHOOD}.unconditional_gradient=false"], "does nothing for a model of texts"),
        (["algorithm=sft", f"{LIKELIHOOD}.noise_law=logit_normal"], "does nothing for a model of texts"),
        (["model.prompt_segments=2"], "model.prompt_segments=2 does nothing for a model of texts; leave it out"),
        (["algorithm=sft", f"{LIKELIHOOD}.sampled_parts=2"], "likelihood.sampled_parts=2 does nothing with kind=elbo"),
        (["algorithm=sft", f"{LIKELIHOOD}.partition=one"], "likelihood.partition=one does nothing with kind=elbo"),
        (["algorithm=sft", f"{LIKELIHOOD}.rate_range=[0,1]"], "must be two numbers above 0 and at most 1"),
        (["algorithm=sft", f"{LIKELIHOOD}.rate_range=[0.9,0.1]"], "must be two numbers above 0 and at most 1"),
        (["algorithm=sft", f"{LIKELIHOOD}.rate_range=[0.5]"], "must be two numbers above 0 and at most 1"),
        (
            ["algorithm=sft", f"{LIKELIHOOD}.mask_law=exact_count", f"{LIKELIHOOD}.rate_range=[0.1,0.9]"],
            "mask_law=exact_count draws a number",
        ),
        (["algorithm=sft", f"{LIKELIHOOD}.complement=true"], "rate_range=[0.001, 1.0] is not centred on 1/2"),
        (["algorithm=sft", f"{LIKELIHOOD}.rising_rate=true"], "set algorithm.epochs to at least 2"),
        (
            [
                "algorithm=sft",
                "algorithm.epochs=2",
                f"{LIKELIHOOD}.mask_law=exact_count",
                f"{LIKELIHOOD}.complement=true",
                f"{LIKELIHOOD}.rising_rate=true",
            ],
            "ends with everything masked, whose complement is empty",
        ),
        (["algorithm=sft", f"{LIKELIHOOD}.canvas_block=8"], "tiny_block has blocks of its own"),
        (["algorithm=one_step", f"{LIKELIHOOD}.prompt_masking=0.15"], "tiny_block is block-causal"),
        (["algorithm=sft", f"{LIKELIHOOD}.prompt_masking=0.15"], "tiny_block is block-causal"),
        (
            [f"{SAMPLER}.order=drawn_prob", f"{LIKELIHOOD}.partition=left_to_right"],
            "only likelihood.partition=every_step can compute",
        ),
        (["algorithm.optimizer.betas=[0.9]"], "must be two numbers in [0, 1)"),
        (["algorithm.optimizer.betas=[0.9,1]"], "must be two numbers in [0, 1)"),
        (["reward.max_failed_fraction=2"], "must lie in [0, 1]"),
        (["rollout.prompts_per_update=24"], "prompts_per_update=24 is no multiple of prompts_per_ticket=32"),
        (["algorithm.minibatches=65"], "some minibatches would be empty"),
        (["rollout.group_size=1"], "a group of one has no spread"),
        (["rollout.group_size=1", "algorithm.advantage=leave_one_out"], "advantage=leave_one_out would be zero"),
        (["data.train.size=null"], "data.train.size=null: reasoning_gym makes problems without end"),
        (["data.evaluation.seed=19999"], "a seed of at least 20000"),
        (["data.evaluation=null"], "data.evaluation is null"),
        (["cluster.learner_gpus=2"], "cluster.learner_gpus=2: a process drives 0 or 1 GPU"),
        (["model.precision=bf16"], "small ones are lost; use stage 1"),
        (["cluster.zero_stage=4"], "DeepSpeed has stages 0, 1, 2 and 3"),
        (["cluster.learners=257"], "cluster.learners=257 is more than the 256 samples of an update"),
        (["algorithm=sft", "cluster.learners=65"], "cluster.learners=65 is more than the 64 samples of an update"),
    ],
)
def test_refused_on_a_block_model(overrides: list[str], expected: str) -> None:
    found = problems(overrides, BLOCK)
    assert len(found) == 1, found
    assert expected in found[0]


def test_reward_terms_may_not_be_empty() -> None:
    config = compose(["recipe=quickstart"]).config
    config.reward.terms.clear()
    with pytest.raises(ConfigError, match="there is nothing to learn from"):
        check(config, BLOCK)
    config = compose(["recipe=sft_tiny_block"]).config
    config.reward.terms.clear()
    with pytest.raises(ConfigError, match=r"reward\.terms is empty; choose a reward or set evaluation\.every=0"):
        check(config, BLOCK)
    config.evaluation.every = 0
    check(config, BLOCK)


def test_the_same_split_of_a_dataset_is_not_held_out() -> None:
    overrides = ["data=jsonl", "data.train.name=a.jsonl"]
    assert (
        "data.evaluation has the problems of data.train"
        in problems([*overrides, "data.evaluation.name=a.jsonl"], BLOCK)[0]
    )
    assert problems([*overrides, "data.evaluation.name=b.jsonl"], BLOCK) == []


@pytest.mark.parametrize("data", ["scenes", "digits"])
def test_the_splits_of_scenes_and_digits_are_disjoint_whatever_the_seed(data: str) -> None:
    overrides = [f"data={data}", "reward=math"]
    assert problems(overrides, BLOCK) == []
    (found,) = problems([*overrides, "data.evaluation.split=train", "data.evaluation.seed=1000000"], BLOCK)
    assert "data.evaluation has the problems of data.train" in found


def test_training_scenes_need_a_size_and_held_out_ones_do_not() -> None:
    overrides = ["data=scenes", "reward=math"]
    assert problems([*overrides, "data.evaluation.size=null"], BLOCK) == []
    assert problems([*overrides, "data.train.size=null"], BLOCK) == [
        "data.train.size=null: scenes makes problems without end; set a number"
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        [f"{SAMPLER}.count=threshold", f"{SAMPLER}.order=drawn_prob"],
        [f"{SAMPLER}.order=drawn_prob", f"{SAMPLER}.top_p=0.9", f"{SAMPLER}.top_k=50"],
        ["rollout=entropy_bound", f"{SAMPLER}.max_new_tokens=32"],
        [f"{SAMPLER}.block_length=4", f"{SAMPLER}.cache=block", f"{SAMPLER}.rounds_per_block=4"],
        [f"{SAMPLER}.max_new_tokens=30"],
        ["data.max_prompt_tokens=96"],
        ["data.evaluation.seed=20000"],
        ["data.evaluation=null", "evaluation.every=0"],
        ["algorithm=one_step", "cluster.learners=128"],
        ["algorithm=sft", "rollout.group_size=1"],
        ["algorithm=tracerl", "algorithm.minibatches=1", "rollout.max_staleness=1"],
        ["algorithm.advantage=batch", "rollout.group_size=1"],
        ["algorithm.advantage=running", "rollout.group_size=1"],
        ["algorithm=lightning_rl", "reward=reasoning_gym_speed"],
        ["algorithm=tracerl_value", "algorithm.advantage=raw", "rollout.group_size=1"],
        ["algorithm=tracerl_value", "algorithm.likelihood.partition=shrink", "algorithm.likelihood.shrink=4"],
        [f"{LIKELIHOOD}.sampled_parts=2", f"{SAMPLER}.order=drawn_prob"],
        [f"{LIKELIHOOD}.partition=left_to_right"],
        ["algorithm=sft", f"{LIKELIHOOD}.mask_law=exact_count", f"{LIKELIHOOD}.complement=true"],
        ["algorithm=sft", f"{LIKELIHOOD}.rate_range=[0.2,0.8]", f"{LIKELIHOOD}.complement=true"],
        ["algorithm=sft", f"{LIKELIHOOD}.rising_rate=true", "algorithm.epochs=4"],
    ],
)
def test_allowed_on_a_block_model(overrides: list[str]) -> None:
    assert problems(overrides, BLOCK) == []


def test_a_bidirectional_model_has_no_exact_block_cache_and_any_block_length() -> None:
    assert problems([f"{SAMPLER}.block_length=8"], FULL) == []
    [problem] = problems([f"{SAMPLER}.cache=block"], FULL)
    assert "tiny_full is bidirectional" in problem


def test_likelihoods_of_bidirectional_models() -> None:
    masking = f"{LIKELIHOOD}.prompt_masking=0.15"
    block = f"{LIKELIHOOD}.canvas_block=8"
    assert problems(["algorithm=one_step", masking], FULL) == []
    assert problems(["algorithm=sft", masking, block, f"{LIKELIHOOD}.mask_law=exact_count"], FULL) == []
    [problem] = problems([masking], FULL)
    assert "partition=every_step is there to be exact; use partition=one" in problem
    [problem] = problems(["algorithm=spg", "algorithm.upper_share=1.5"], FULL)
    assert "upper_share=1.5: must lie in [0, 1]" in problem
    [problem] = problems(["algorithm=one_step", f"{LIKELIHOOD}.prompt_masking=1.5"], FULL)
    assert "a probability is at most 1" in problem
    [problem] = problems(["algorithm=sft", block, f"{LIKELIHOOD}.full_view=0.5"], FULL)
    assert "canvas_block shows a part; use one of them" in problem


def test_every_likelihood_option_says_who_reads_it() -> None:
    assert set(READ_BY) == {field.name for field in dataclasses.fields(LikelihoodOptions)} - {"kind"}


def test_all_problems_come_in_one_message() -> None:
    found = problems(
        ["algorithm.clip=-1", "rollout.group_size=1", "cluster.zero_stage=9", f"{SAMPLER}.block_length=2"], BLOCK
    )
    assert len(found) == 4


@pytest.mark.parametrize("path", [*AT_LEAST, *ABOVE_ZERO])
def test_every_bounded_option_exists_and_is_refused_below_its_bound(path: str) -> None:
    config = everything_set()
    config.model.user_adapter = UserAdapterOptions(8)  # for images only, which the same message says
    section, _, option = path.rpartition(".")
    setattr(attrgetter(section)(config), option, AT_LEAST[path] - 1 if path in AT_LEAST else 0)
    type_of(path)
    with pytest.raises(ConfigError, match=f"{path}=.*: must be"):
        check(config, BLOCK)


def everything_set() -> Config:
    """A configuration that passes and leaves no section null."""
    config = copy.deepcopy(_everything_set())
    check(config, BLOCK)
    return config


@functools.cache
def _everything_set() -> Config:
    return compose(
        ["recipe=quickstart", "algorithm=trace_grpo", "model.lora.rank=4", "algorithm.value.passes=1"]
    ).config


IMAGES = ["recipe=quickstart_image"]
WINDOW = "rollout.denoising.window"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["algorithm.optimizer.warmup_updates=15", "run.updates=6"], ["optimizer.warmup_updates=15 is not over after"]),
        (["algorithm.optimizer.warmup_updates=5", "run.updates=6"], []),
        (
            ["algorithm=tracerl_value", "algorithm.value.optimizer.warmup_updates=6", "run.updates=6"],
            ["value.optimizer.warmup_updates=6 is not over after run.updates=6"],
        ),
        (["algorithm.kl.to=old"], ["kl.to=old does nothing with kl.coefficient=0"]),
        (
            ["algorithm.advantage=centred", "algorithm.sample_std=true"],
            ["sample_std=True does nothing with"],
        ),
        ([*IMAGES, "algorithm=mix_grpo", "run.updates=20"], ["window.every=25 is not over"]),
        (
            [*IMAGES, "algorithm=branch_grpo", f"{WINDOW}.untrained.size=4", "run.updates=20"],
            ["untrained.every=30 is not over"],
        ),
        ([*IMAGES, "algorithm=b2_diffu_rl", "run.updates=20"], ["branching.moving_updates=100 is not over"]),
    ],
)
def test_what_does_less_than_it_says_is_said(overrides, said):
    """And not refused: a published file in a shorter run does so."""
    recipe = [] if overrides[0].startswith("recipe=") else ["recipe=quickstart"]
    found = list(remarks(compose([*recipe, *overrides]).config))
    assert len(found) == len(said)
    for line, part in zip(found, said, strict=True):
        assert part in line

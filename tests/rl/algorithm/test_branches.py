"""Advantages on trees: by hand, and by enumeration of all trees of a small policy, the mean of their gradient."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import lru_cache
from types import SimpleNamespace as Namespace

import numpy as np
import pytest
import torch

from configs.algorithm_options import AdvantageKind, AlgorithmOptions
from configs.compose import compose
from rl.algorithm.advantages import AdvantageEstimator
from rl.algorithm.branches import (
    branch_advantages,
    by_leaves,
    extreme_leaves,
    extreme_samples,
    extremes,
    unshared,
)
from rl.compatibility import problems
from rl.data.tickets import Ticket, TicketKind
from rl.driver.generation import Generation
from rl.likelihood.text import TextReplay
from rl.modality.image import ImageModality
from rl.modality.text import TextModality
from rollout.branching import Tree, tree_at
from rollout.images.sampler import Schedule
from rollout.options import BranchingOptions
from tests.rl.likelihood.test_policy_gradient_bias import (
    CPU,
    EVERY_STEP,
    FAMILIES,
    SAMPLER,
    World,
    cosine,
    relative_error,
)

SIBLINGS, DEPTH = AdvantageKind.siblings, AdvantageKind.depth_zscore
TREE = Tree((1, 3), (2, 3), 5)
REWARDS = np.array([1.0, 2.0, 6.0, 0.0, 1.0, 2.0])  # values of the two nodes at the first fork: 3 and 1


def test_siblings_by_hand():
    advantage, valid = branch_advantages(REWARDS, TREE, SIBLINGS)
    expected = np.zeros((6, 5))
    expected[0, 1:3], expected[3, 1:3] = 2, -2
    for leaf, value in enumerate((1 - 4, 2 - 3.5, 6 - 1.5, 0 - 1.5, 1 - 1, 2 - 0.5)):
        expected[leaf, 3:] = value
    np.testing.assert_allclose(advantage, expected)
    assert (valid == [[0, 1, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]] * 2).all()


def test_depth_zscores_by_hand():
    advantage, valid = branch_advantages(REWARDS, TREE, DEPTH)
    std = np.std(REWARDS)
    np.testing.assert_allclose(advantage[[0, 3], 1], [1, -1], rtol=2e-4)  # values 3 and 1: mean 2, deviation 1
    np.testing.assert_allclose(advantage[:, 4], (REWARDS - 2) / (std + 1e-4), rtol=1e-6)
    assert (advantage[~valid] == 0).all()


@pytest.mark.parametrize("kind", [SIBLINGS, DEPTH])
def test_unscored_leaves_have_no_part_in_values(kind):
    """Not even the first leaf of a node; its branch is trained all the same, because the others share it."""
    rewards = np.array([np.nan, 2.0, 6.0, 0.0, 1.0, 2.0])
    advantage, valid = branch_advantages(rewards, TREE, kind)
    assert valid[0].tolist() == [False, True, True, False, False]
    assert advantage[0, 1] == pytest.approx(4 - 1 if kind is SIBLINGS else 1, rel=1e-3)
    alone = np.array([5.0, np.nan, np.nan, np.nan, np.nan, np.nan])
    assert not branch_advantages(alone, TREE, kind)[1].any()


def test_samples_as_a_whole_train_what_they_do_not_share():
    advantage, valid = unshared(np.arange(6, dtype=np.float32), np.arange(6) != 2, TREE)
    assert (valid == [[0, 0, 0, kept, kept] for kept in (1, 1, 0, 1, 1, 1)]).all()
    assert (advantage[4] == [0, 0, 0, 4, 4]).all()


def test_extremes_of_each_set_of_siblings():
    advantage = np.array([0.6, 0.4, -0.7, 0.4, -0.4, -0.6, 2.0, 3.0, 1.0], np.float32)
    valid = np.ones(9, bool)
    kept_advantage, kept = extremes(advantage, valid, 3, 0.5)
    assert kept.nonzero()[0].tolist() == [0, 2, 5, 7]
    assert (kept_advantage[kept] == advantage[kept]).all()
    assert (kept_advantage[~kept] == 0).all()
    valid[7] = False
    assert extremes(advantage, valid, 3, 0.5)[1].nonzero()[0].tolist() == [0, 2, 5, 6]
    assert not extremes(advantage / 10, valid, 3, 0.5)[1].any()


def test_the_best_and_the_worst_of_a_group():
    advantage = np.array([0.6, 0.4, -0.7, 0.4, -0.4, -0.6, 2.0, 3.0], np.float32)
    valid = np.arange(8) != 7
    kept_advantage, kept = extreme_samples(advantage, valid, 2)
    assert kept.nonzero()[0].tolist() == [0, 2, 5, 6]
    assert (kept_advantage == np.where(kept, advantage, 0)).all()
    assert (extreme_samples(advantage, valid, 7)[1] == valid).all()
    assert not extreme_samples(advantage, np.zeros(8, bool), 2)[1].any()
    options = AlgorithmOptions(advantage=AdvantageKind.zscore, extreme_samples=1)
    ((_, chosen),) = AdvantageEstimator(options)([REWARDS], ["p"])
    assert chosen.nonzero()[0].tolist() == [2, 3]


def test_pruned_leaves_are_those_of_branch_grpo_s_code():
    """It sorts all transitions behind the step of the last fork by their advantage and keeps a quarter at each end: of
    16 leaves 4 and 4. That saves 80 of 218 transitions: the 13.6 and 8.6 evaluations a sample of its table."""
    tree = Tree((0, 3, 6, 9), (2, 2, 2, 2), 20)
    rewards = np.random.default_rng(0).normal(size=16)
    advantage, valid = branch_advantages(rewards, tree, DEPTH)
    pruned, kept = extreme_leaves(advantage, valid, tree, 4)
    last_layer = [(leaf, step) for leaf, step in zip(*valid.nonzero(), strict=True) if step > 9]
    ranked = sorted(last_layer, key=lambda at: advantage[at], reverse=True)
    quarter = int(0.5 * len(ranked)) // 2
    expected = valid.copy()
    for at in ranked[quarter:-quarter]:
        expected[at] = False
    assert (kept == expected).all()
    assert (valid.sum(), kept.sum()) == (218, 138)
    assert (pruned == np.where(kept, advantage, 0)).all()
    options = AlgorithmOptions(advantage=DEPTH, extreme_samples=4)
    assert (AdvantageEstimator(options)([rewards], ["p"], tree)[0][1] == expected).all()


def test_the_estimator_clips_then_keeps_extremes_then_looks_at_the_tree():
    options = AlgorithmOptions(advantage=AdvantageKind.zscore, advantage_clip=1.0, extremes=0.9)
    ((advantage, valid),) = AdvantageEstimator(options)([REWARDS], ["p"], TREE)
    assert valid.any(1).nonzero()[0].tolist() == [2, 3]
    np.testing.assert_allclose(advantage[[2, 3], 3], [1, -1])
    weighted = AlgorithmOptions(advantage=SIBLINGS, leaf_weights=True, advantage_clip=2.5)
    ((advantage, _),) = AdvantageEstimator(weighted)([REWARDS], ["p"], TREE)
    assert advantage[0, 1] == 3 * 2
    assert advantage[2, 3] == 2.5


# The mean of the gradient over all trees

SMALL = Tree((0, 1), (2, 2), SAMPLER.max_new_tokens)
"""Two rounds: the first one is shared by two leaves each."""


class Trees(World):
    """All trees of four traces, with their probabilities."""

    def __init__(self, family: str) -> None:
        super().__init__(family)
        self.p = self.probability.detach().double().numpy()
        self.p /= self.p.sum()
        starts = [tuple(np.where(np.array(r) == 1, i, -1)) for i, r in self.traces]
        self.twins = [[b for b in range(len(starts)) if starts[b] == starts[a]] for a in range(len(starts))]
        self.start_probability = np.array([self.p[twins].sum() for twins in self.twins])

    def trees(self) -> Iterator[tuple[list[int], float]]:
        """A node's first leaf is any trace; its second one any that starts in the same way."""
        nodes = [
            ([a, b], self.p[a] * self.p[b] / self.start_probability[a])
            for a in range(len(self.p))
            for b in self.twins[a]
        ]
        for (first, p), (second, q) in itertools.product(nodes, nodes):
            yield first + second, p * q

    def no_trees(self) -> Iterator[tuple[list[int], float]]:
        """The control: leaves that share no noise, four independent traces; few enough of them, by a fixed draw."""
        generator = np.random.default_rng(0)
        for leaves in generator.choice(len(self.p), size=(4000, 4), p=self.p).tolist():
            yield leaves, 1 / 4000

    def estimate(self, trees: Iterator[tuple[list[int], float]], kind: AdvantageKind, weighted: bool) -> torch.Tensor:
        """Mean of the sum over branches of A x gradient of minus the log-probability, over the number of leaves."""
        coefficient = np.zeros((len(self.p), SMALL.steps))
        for leaves, probability in trees:
            advantage, valid = branch_advantages(self.reward[leaves], SMALL, kind)
            if weighted:
                advantage = by_leaves(advantage, SMALL)
            np.add.at(coefficient, leaves, probability * (advantage * valid) / SMALL.leaves)
        replay = TextReplay(self.policy.spec, SAMPLER, EVERY_STEP, CPU)
        rows = replay.rows([self.trajectory], 0)
        log_prob = replay.score(self.policy, rows).log_prob
        step = self.trajectory.decision_step
        weight = np.concatenate([coefficient[row.sample, step[row.sample, row.decision]] for row in rows])
        return self.gradient(-(torch.from_numpy(weight).float() * log_prob).sum())


@lru_cache
def world(family: str) -> Trees:
    return Trees(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_siblings_are_an_unbiased_baseline_if_branches_count_for_their_leaves(family):
    found = world(family).estimate(world(family).trees(), SIBLINGS, weighted=True)
    assert relative_error(found, world(family).policy_gradient()) <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_leaves_that_share_no_noise_would_not_do(family):
    found = world(family).estimate(world(family).no_trees(), SIBLINGS, weighted=True)
    assert relative_error(found, world(family).policy_gradient()) > 0.2


# (cosine to the policy gradient, relative error) of what the papers do. Measured.
BIASED = {
    ("sdar", "siblings, each branch once"): (1.0000, 0.5000),
    ("sdar", "depth_zscore, each branch once"): (0.7948, 0.7940),
    ("sdar", "depth_zscore, leaf weights"): (0.7948, 0.6487),
    ("llada", "siblings, each branch once"): (1.0000, 0.5010),
    ("llada", "depth_zscore, each branch once"): (0.8782, 0.7066),
    ("llada", "depth_zscore, leaf weights"): (0.8492, 0.5314),
}


@pytest.mark.parametrize(("family", "name"), BIASED)
def test_bias_of_the_others(family, name):
    """Branches that count once are right but for a factor at each depth: here 1/2 before the last fork."""
    kind, weights = name.split(", ")
    found = world(family).estimate(world(family).trees(), AdvantageKind(kind), weights == "leaf weights")
    exact = world(family).policy_gradient()
    measured = cosine(found, exact), relative_error(found, exact)
    assert measured == pytest.approx(BIASED[family, name], abs=1e-3)


# Options that cannot work

TEXT = [
    "recipe=quickstart",
    "algorithm=trace_grpo",
    "rollout.group_size=4",
    "rollout.branching.forks=[0,4]",
    "rollout.branching.factors=[2,2]",
]
IMAGE = ["model=tiny_scenes", "data=scenes", "reward=scene", "algorithm=dance_grpo", "run.name=x", *TEXT[2:]]


def refused(*overrides: str) -> str:
    return "\n".join(problems(compose(list(overrides)).config, None))


@pytest.mark.parametrize("base", [TEXT, IMAGE], ids=["text", "image"])
@pytest.mark.parametrize("advantage", ["siblings", "depth_zscore", "zscore", "running"])
def test_trees_that_work(base, advantage):
    assert refused(*base, f"algorithm.advantage={advantage}") == ""


def test_a_part_that_ends_at_a_fork_may_have_one_ratio():
    siblings = [*TEXT, "algorithm.advantage=siblings", "algorithm.ratio=step", "algorithm.epochs=2"]
    assert "both sides of a fork" in refused(*siblings, "algorithm.likelihood.partition=one")
    assert refused(*siblings, "algorithm.likelihood.partition=forks") == ""


SPO = [*IMAGE[:3], "algorithm=spo", "run.name=x"]
SIBLING = [*TEXT, "algorithm.advantage=siblings"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["recipe=quickstart", "algorithm.advantage=siblings"], "compares branches of a tree; set rollout.branching"),
        ([*SIBLING, "algorithm.likelihood.kind=elbo"], "rollout.branching trains steps of recorded chains"),
        ([*SIBLING, "algorithm.ratio=sequence"], "ratio=sequence with objective=ppo_clip takes them whole"),
        ([*TEXT, "algorithm.ratio=none", "algorithm.objective=group_dpo"], "objective=group_dpo takes them whole"),
        ([*SIBLING, "algorithm.ratio=step", "algorithm.likelihood.partition=one"], "both sides of a fork"),
        (["recipe=quickstart", "algorithm.likelihood.partition=forks"], "cuts traces where samples part"),
        (
            [*SIBLING, "algorithm.likelihood.partition=forks", "rollout.sampler.order=drawn_prob"],
            "only likelihood.partition=every_step can compute",
        ),
        ([*TEXT, "algorithm.anchor_growth=2"], "does nothing with anchor=0"),
        ([*SIBLING, "algorithm.extremes=0.5"], "extremes compares samples"),
        ([*SIBLING, "algorithm.extreme_samples=2"], "leaves no sample of rollout.group_size=4 out"),
        ([*TEXT, "algorithm.extreme_samples=1", "algorithm.extremes=0.5"], "use one of them"),
        ([TEXT[0], "algorithm.extreme_samples=1", "algorithm.advantage=per_step"], "leaves nothing to rank; use null"),
        ([*SPO, "algorithm.extreme_samples=1"], "advantage=best_worst leaves nothing to rank; use null"),
        ([*TEXT, "algorithm.leaf_weights=true"], "trains none of them; use advantage=siblings"),
        ([*SIBLING, "rollout.group_size=8"], "has 4 leaves; use that"),
        ([*TEXT, "rollout.branching.forks=[4,0]"], "must be increasing steps"),
        ([*TEXT, "rollout.branching.forks=[0,20]"], "steps of a chain of 20"),
        ([*TEXT, "rollout.branching.final_forks=[0]"], "must be as many as forks"),
        ([*TEXT, "rollout.branching.moving_updates=0"], "moving_updates=0: must be at least 1"),
        ([*IMAGE, "rollout.denoising.kernel=ode"], "kernel=ode draws no noise, so samples would never part"),
        ([*IMAGE, "rollout.branching.forks=[0,9]"], r"steps \[9\] draw no noise"),
        (
            ["recipe=quickstart", "rollout.step_candidates.first_step=0"],
            "a text that is half masked is no such estimate",
        ),
        ([*TEXT, "algorithm.value.passes=1"], "with rollout.branching samples share steps; use value=null"),
        ([*SPO, "rollout.denoising.kernel=ode"], "all candidates would be one"),
        ([*SPO, "rollout.step_candidates.first_step=19"], "must be one of the 19 steps"),
        ([*SPO, "rollout.denoising.window.trained_fraction=0.5"], "trains every step from first_step on"),
        ([*SPO, *TEXT[2:]], "a tree of chains; use one of them"),
        ([*SPO, "rollout.refills=1"], "has a group for every step; use 0"),
        ([*IMAGE, "rollout.denoising.window.kind=fixed"], r"steps \[4\] draw no noise"),
        ([*IMAGE, "rollout.denoising.window.kind=random"], r"steps \[0, 4\] draw no noise, or not in every update"),
        ([*IMAGE, "rollout.branching.final_forks=[3,9]"], r"steps \[9\] draw no noise"),
    ],
)
def test_trees_that_cannot_work_are_refused(overrides, message):
    assert re.search(message, refused(*overrides)), refused(*overrides)


def test_only_training_branches():
    """What is evaluated is the policy, not its trees."""
    config = compose(TEXT).config
    source = Namespace(encoded=lambda index: np.array([1]), problems=[Namespace(id="p", prompt="x")])
    generation = object.__new__(Generation)
    generation.config, generation.modality = config, TextModality(config)
    generation.sources = dict.fromkeys(TicketKind, source)
    for kind in TicketKind:
        request = generation._request(Ticket(0, 3, 3, (0,), 4, 7, kind))
        assert (request.tree is not None) is (kind is TicketKind.train)


def test_forks_and_candidates_need_noise_on_the_schedule_that_the_model_has():
    """Shifted flow schedules reach levels where the last step but one draws none either."""
    denoising = ("kernel=ddim", "eta=1.0", "even_sigmas=false")
    late = [*IMAGE, *(f"rollout.denoising.{option}" for option in denoising)]
    config = compose([*late, "rollout.branching.forks=[0,8]"]).config
    assert not problems(config, None)
    modality = ImageModality(config)
    drawn = Schedule(modality.spec, config.rollout.denoising).kernel.stochastic_steps
    assert 8 not in drawn
    assert any("noise is drawn at" in problem for problem in problems(config, modality.spec))
    candidates = compose([*SPO, "rollout.denoising.steps=10", "rollout.denoising.guidance=1.0"]).config
    assert ImageModality(candidates).groups_per_prompt(TicketKind.train) == len([s for s in drawn if s >= 4])
    assert ImageModality(candidates).groups_per_prompt(TicketKind.greedy) == 1


def test_moving_forks_never_meet():
    options = BranchingOptions(forks=[3, 4], factors=[2, 2], final_forks=[0, 1], moving_updates=100)
    forks = [tree_at(options, update, 10).forks for update in range(120)]
    assert all(second - first == 1 for first, second in forks)
    assert (forks[0], forks[-1]) == ((3, 4), (0, 1))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [*TEXT, "algorithm.advantage=siblings", "algorithm.likelihood.partition=left_to_right"],
            "later tokens of one",
        ),
        (
            [
                *TEXT,
                "rollout.sampler.block_length=4",
                "rollout.sampler.rounds_per_block=1",
                "rollout.branching.forks=[0,8]",
            ],
            "no fork at 8 follows",
        ),
        ([*SPO, "algorithm.advantage=batch"], "estimates of different steps"),
        ([TEXT[0], "algorithm.extremes=0.5", "algorithm.advantage_clip=0.4"], "no sample would be trained"),
        ([TEXT[0], "algorithm.extremes=0.5", "algorithm.advantage=per_step"], "extremes compares samples"),
        ([TEXT[0], "algorithm.likelihood.block_length=0"], "block_length=0: must be at least 1"),
        ([TEXT[0], "algorithm=tracerl_value", "algorithm.anchor=0.1"], "anchor learns the samples with a positive"),
        (
            ["recipe=quickstart_image", "algorithm=dpok", "rollout.denoising.window.trained_fraction=0.5"],
            "leaves steps out",
        ),
    ],
)
def test_more_that_would_go_wrong_is_refused(overrides, message):
    assert message in refused(*overrides)

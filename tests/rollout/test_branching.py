"""Samples that share the start of their chain: which do, that it changes nothing else, and what it saves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from models.images.spec import ImagePrompt
from rollout.branching import Tree, tree_at
from rollout.images.guidance import Conditions
from rollout.images.sampler import ImageSampler, Schedule
from rollout.images.worker import ImageRolloutWorker
from rollout.options import BranchingOptions, Count, DenoisingOptions, KernelKind, Order, SamplerOptions
from rollout.text.groups import to_trajectories
from rollout.text.record import Samples
from rollout.text.reveal import RevealKernel
from rollout.text.sampler import Sampler
from rollout.worker import Origin, RolloutRequest
from tests.rl.support.image_rollouts import CAPTIONS, pipeline_folder, worker_of
from tests.sampling import ORIGIN, prompts_of
from tests.tiny import tiny_policy

TREE = Tree((1, 4), (2, 3), 16)
LEAVES = TREE.leaves
PROMPTS = prompts_of([5, 8])
RULES = [
    SamplerOptions(order=Order.max_prob, count=Count.quota, temperature=4.0),
    SamplerOptions(order=Order.entropy, count=Count.entropy_bound, entropy_bound=0.9, top_p=0.9, temperature=3.0),
    SamplerOptions(order=Order.random, count=Count.threshold, threshold=0.7, top_k=3, temperature=3.0),
    SamplerOptions(order=Order.drawn_prob, count=Count.quota, rounds_per_block=3, temperature=2.0),
]


def test_leaves_that_share_a_step():
    assert [TREE.shared_by(step) for step in (0, 1, 3, 4, 15)] == [6, 3, 3, 1, 1]
    assert [TREE.first_leaf(leaf, 2) for leaf in range(8)] == [0, 0, 0, 3, 3, 3, 6, 6]  # 6 is of the next group
    assert TREE.segments() == [range(1, 4), range(4, 16)]


@pytest.mark.parametrize(("update", "fork"), [(0, 6), (50, 3), (100, 0), (1000, 0)])
def test_forks_move(update, fork):
    options = BranchingOptions(forks=[6], factors=[5], final_forks=[0], moving_updates=100)
    assert tree_at(options, update, 20).forks == (fork,)


@pytest.mark.parametrize(
    ("forks", "factors", "message"),
    [
        ((2, 1), (2, 2), "increasing"),
        ((1, 8), (2, 2), "increasing"),
        ((1,), (2, 2), "needs one"),
        ((1,), (1,), "least 2"),
    ],
)
def test_trees_that_are_none_are_refused(forks, factors, message):
    with pytest.raises(ValueError, match=message):
        Tree(forks, factors, 8)


# Text


class KeyOfNode(RevealKernel):
    """Every leaf runs by itself, and only its noise says that it is one."""

    tree: Tree

    def draw(self, logits, uid, position, round_index):
        shared = torch.tensor([self.tree.shared_by(step - 1) for step in round_index.tolist()])
        return super().draw(logits, uid - uid % shared, position, round_index)  # uids of a group start at a multiple


def drawn(family: str, options: SamplerOptions, tree: Tree | None, naive: Tree | None = None) -> Samples:
    options = dataclasses.replace(options, max_new_tokens=11, block_length=None if family == "sdar" else 6)
    policy = tiny_policy(family)
    sampler = Sampler(policy, options)
    if naive is not None:
        sampler.kernel = KeyOfNode(options, policy.spec)
        sampler.kernel.tree = naive
    prompts = [prompt for prompt in PROMPTS for _ in range(LEAVES)]
    uids = list(range(600, 600 + len(prompts)))
    return sampler.sample(prompts, uids, [row // LEAVES for row in range(len(prompts))], tree)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.order.value}-{rule.count.value}")
@pytest.mark.parametrize("family", ["sdar", "llada", "dream"])
def test_shared_rounds_are_computed_once_and_nothing_else_changes(family, rule):
    tree, leaf_by_leaf = drawn(family, rule, TREE), drawn(family, rule, None, naive=TREE)
    for field in ("canvas_ids", "canvas_length", "stop_length", "reveal", "rounds"):
        np.testing.assert_array_equal(getattr(tree, field), getattr(leaf_by_leaf, field), err_msg=field)
    np.testing.assert_allclose(tree.logp, leaf_by_leaf.logp, atol=1e-5)
    if rule.top_k or rule.top_p < 1:
        np.testing.assert_array_equal(tree.support, leaf_by_leaf.support)
    for group in np.split(np.arange(len(tree.rounds)), len(PROMPTS)):
        # Shared by all: rounds 0 and 1 (what is drawn behind a fork differs, not what is predicted); by three: 2 to 4.
        rounds = tree.rounds[group]
        shared_twice = sum(max(0, min(int(r), 5) - 2) for r in rounds[::3])
        own = sum(max(0, int(r) - 5) for r in rounds)
        assert tree.computed[group].sum() == min(2, rounds.max()) + shared_twice + own
    assert tree.counters["token_forwards"] < 0.8 * leaf_by_leaf.counters["token_forwards"]
    assert tree.counters["head_rows"] < 0.8 * leaf_by_leaf.counters["head_rows"]
    assert tree.counters["forwards"] == leaf_by_leaf.counters["forwards"]


@pytest.mark.parametrize("family", ["sdar", "llada"])
def test_leaves_agree_up_to_their_fork_and_not_behind_it(family):
    (first, _) = to_trajectories(
        drawn(family, RULES[0], TREE), ORIGIN, ["a", "b"], PROMPTS, list(range(600, 612)), LEAVES, RULES[0]
    )
    for step, together in ((1, [range(6)]), (4, [range(3), range(3, 6)])):
        seen = (first.reveal > 0) & (first.reveal <= step)  # by the model, in round `step`
        canvas = np.where(seen, first.canvas_ids, -1)
        for leaves in together:
            assert (canvas[list(leaves)] == canvas[leaves[0]]).all()
            assert ((first.logp * seen)[list(leaves)] == (first.logp * seen)[leaves[0]]).all()
    ends = {tuple(ids) for ids in first.canvas_ids.tolist()}
    assert len(ends) > 2  # the control: without the second fork there would be two, without any one


def test_samples_that_share_no_noise_are_no_tree():
    plain = drawn("sdar", RULES[0], None)
    firsts = {tuple(np.where(reveal == 1, ids, -1)) for reveal, ids in zip(plain.reveal, plain.canvas_ids, strict=True)}
    assert len(firsts) > 2


# Images


OPTIONS = DenoisingOptions(steps=6, kernel=KernelKind.ddim, eta=1.0)
IMAGE_TREE = Tree((1, 3), (2, 2), 6)


@pytest.fixture(scope="module")
def worker(tmp_path_factory) -> ImageRolloutWorker:
    return worker_of(pipeline_folder(tmp_path_factory.getbasetemp(), "sd"))


def request(options: DenoisingOptions, tree: Tree | None) -> RolloutRequest:
    count = 4 * len(CAPTIONS)
    ids = tuple(f"p{index}" for index in range(len(CAPTIONS)))
    prompts = tuple(map(ImagePrompt, CAPTIONS))
    return RolloutRequest(Origin(3, 1, 1, 77), ids, prompts, tuple(range(400, 400 + count)), options, tree=tree)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_images_share_the_steps_before_a_fork(worker, guidance):
    options = dataclasses.replace(OPTIONS, guidance=guidance)
    trajectories, _, statistics = worker.run(request(options, IMAGE_TREE))
    plain, _, without = worker.run(request(options, None))
    for trajectory in trajectories:
        latents = trajectory.latents
        assert latents is not None
        for state, together in ((1, [range(4)]), (3, [range(2), range(2, 4)])):
            for leaves in together:
                assert (latents[list(leaves), : state + 1] == latents[leaves[0], : state + 1]).all()
                assert (trajectory.logp[list(leaves), :state] == trajectory.logp[leaves[0], :state]).all()
                assert not (latents[leaves[0], state + 1] == latents[leaves[-1], state + 1]).any()
        assert trajectory.counters["nfe"] == 2 * 1 + 2 * 2 + 2 * 4
    assert [t.counters["nfe"] for t in plain] == [24, 24]
    assert statistics["forwards"] / without["forwards"] == pytest.approx(14 / 24)
    assert statistics["token_forwards"] / without["token_forwards"] == pytest.approx(14 / 24)
    assert statistics["steps"] == without["steps"]


def leaf_by_leaf(sampler: ImageSampler, conditions, keys, window):
    return [
        sampler.sample(
            conditions.take(torch.tensor([row])), keys[row : row + 1], keys[row : row + 1, 0], window, range(5)
        )
        for row in range(len(keys))
    ]


@pytest.mark.parametrize("window", [(0, 1, 2, 3, 4), (1, 3)])
def test_a_tree_of_images_is_what_its_leaves_are_alone(worker, window):
    """To the bit where the network does not depend on its batch shape; the real one does, in the last bits."""
    schedule = Schedule(worker.policy.spec, OPTIONS)
    conditions = Conditions(worker._batch([ImagePrompt(CAPTIONS[0])] * 4), None, None)
    keys = torch.tensor([[400 + IMAGE_TREE.first_leaf(leaf, step) for step in range(6)] for leaf in range(4)])

    def elementwise(latents, time, *rest):
        return torch.tanh(latents) * (1 + time[:, None, None, None] / 1000)

    for policy, tolerance in ((elementwise, 0.0), (worker.policy, 1e-4)):
        sampler = ImageSampler(policy, schedule, worker.device)
        tree = sampler.sample(conditions, keys, keys[:, 0], window, range(5))
        for row, alone in enumerate(leaf_by_leaf(sampler, conditions, keys, window)):
            for name in ("final", "latents", "logp"):
                np.testing.assert_allclose(
                    getattr(tree, name)[row], getattr(alone, name)[0], rtol=tolerance, atol=tolerance, err_msg=name
                )
        assert tree.computed.sum() == 14


def test_a_fork_at_the_first_step_parts_the_first_noise_too(worker):
    tree = Tree((0,), (4,), 6)
    for same_noise in (False, True):
        options = dataclasses.replace(OPTIONS, same_noise=same_noise)
        (first, _), _, _ = worker.run(request(options, tree))
        assert first.latents is not None
        assert bool((first.latents[:, 0] == first.latents[0, 0]).all()) is same_noise
        assert not (first.latents[0, 1] == first.latents[1, 1]).any()


def test_trees_do_not_depend_on_how_samples_are_batched(worker):
    small = dataclasses.replace(OPTIONS, samples_per_forward=3)  # cuts through nodes
    whole, _, _ = worker.run(request(OPTIONS, IMAGE_TREE))
    cut, _, _ = worker.run(request(small, IMAGE_TREE))
    for a, b in zip(whole, cut, strict=True):
        np.testing.assert_allclose(a.latents, b.latents, atol=1e-4)
        assert b.counters["nfe"] > a.counters["nfe"]  # a node in two batches is computed twice

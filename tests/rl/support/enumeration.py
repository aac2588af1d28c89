"""Every likelihood by brute force: on three tokens and four positions all masks, orders and prompts are enumerated.

`Oracle` holds the probability of each token under each of the 4^4 canvases, by plain forwards. From it come the
log-likelihood of each text under the policy's own sampler, which reveals one position at a time in uniformly random
order, and the mean of each estimate over everything that is drawn, without the project's masks and parts.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import integrate

from configs.algorithm_options import LikelihoodKind, LikelihoodOptions, MaskLaw, MaskWeight, Partition
from models.text.policy import TextPolicy
from rl.algorithm.scored_rows import ScoredRow
from rl.likelihood.text import TextElbo, TextReplay
from rollout.options import Order, SamplerOptions
from rollout.trajectory import TextTrajectory
from tests.tiny import tiny_policy
from tests.traces import text_trajectory

CPU = torch.device("cpu")
WORDS, LENGTH = 3, 4
PROMPT = np.array([0, 1], np.int32)
MASK = -1
RANDOM_ORDER = SamplerOptions(order=Order.random, max_new_tokens=LENGTH)
TEXTS = list(itertools.product(range(WORDS), repeat=LENGTH))
EPOCHS = 3


def elbo(**options) -> LikelihoodOptions:
    return LikelihoodOptions(kind=LikelihoodKind.elbo, **options)


COUNT, UNWEIGHTED = {"mask_law": MaskLaw.exact_count}, {"mask_weight": MaskWeight.none}
ELBOS = {
    "llada": elbo(),
    "llada_1_5": elbo(**COUNT, draws=3),
    "espo": elbo(**COUNT, complement=True, draws=2),
    "truncated_rate": elbo(rate_range=(0.2, 0.8)),
    "coupled_grpo": elbo(rate_range=(0.2, 0.8), complement=True, full_view=0.5, draws=2),
    "dllm_rl_coupled": elbo(rate_range=(0.1, 0.9), complement=True, **UNWEIGHTED),
    "rising": elbo(rising_rate=True),
    "unigrpo": elbo(rising_rate=True, **UNWEIGHTED),
    "wd1": elbo(rate_range=(1.0, 1.0)),
    "wd1_prompt": elbo(rate_range=(1.0, 1.0), prompt_masking=0.3),
    "block_autoregressive": elbo(**COUNT, canvas_block=2),
    "spg": elbo(**COUNT, canvas_block=2, prompt_masking=0.15, draws=2),
}
REPLAYS = {
    "every_step": LikelihoodOptions(),
    "shrink": LikelihoodOptions(partition=Partition.shrink, shrink=2),
    "segments": LikelihoodOptions(partition=Partition.segments, segments=3),
    "one": LikelihoodOptions(partition=Partition.one),
    "left_to_right": LikelihoodOptions(partition=Partition.left_to_right),
    "diffu_grpo": LikelihoodOptions(partition=Partition.one, prompt_masking=0.3),
    "agrpo": LikelihoodOptions(sampled_parts=2),
}
BIDIRECTIONAL_ONLY = {"wd1_prompt", "block_autoregressive", "spg", "diffu_grpo"}
CASES = [("llada", name) for name in ELBOS] + [("sdar", name) for name in ELBOS if name not in BIDIRECTIONAL_ONLY]
REPLAY_CASES = [("llada", name) for name in REPLAYS] + [("sdar", n) for n in REPLAYS if n not in BIDIRECTIONAL_ONLY]
RISING_EPOCH = 1  # of `EPOCHS`: the second pass


# The truth


class Oracle:
    """Probabilities of all tokens under all canvases."""

    def __init__(self, family: str, seed: int = 3) -> None:
        self.policy = tiny_policy(family, words=WORDS, block_length=2, scale=1.5, seed=seed)
        spec = self.policy.spec
        self.groups = [[0, 1], [2, 3]] if spec.block_length else [[0, 1, 2, 3]]  # revealed one after the other
        canvases = list(itertools.product((MASK, *range(WORDS)), repeat=LENGTH))
        hidden = list(itertools.product((False, True), repeat=len(PROMPT))) if not spec.block_length else [(False,) * 2]
        keys = list(itertools.product(hidden, canvases))
        texts = [[*np.where(h, spec.mask_id, PROMPT), *[spec.mask_id if t == MASK else t for t in c]] for h, c in keys]
        text = torch.tensor(np.array(texts))
        position = torch.arange(text.shape[1]).expand_as(text)
        block = position // 2 if spec.block_length else torch.zeros_like(position)
        read = torch.cartesian_prod(torch.arange(len(keys)), len(PROMPT) + torch.arange(LENGTH)).T
        with torch.no_grad():
            logits = self.policy(text, position, torch.zeros_like(position), block, read)[:, :WORDS]
        values = logits.double().log_softmax(-1).reshape(len(keys), LENGTH, WORDS).numpy()
        self.table = dict(zip(keys, values, strict=True))

    def log_q(self, ids: tuple, masked: set, scored: set, hidden=(False, False)) -> float:
        """Sum over `scored` of the log-probability of its tokens, where `masked` shows MASK."""
        canvas = tuple(MASK if k in masked else token for k, token in enumerate(ids))
        return sum(self.table[hidden, canvas][k, ids[k]] for k in scored)

    def log_likelihood(self, ids: tuple, groups: list[list[int]]) -> float:
        """Groups one after the other, positions of a group one at a time in uniformly random order."""
        total, later = 0.0, set(range(LENGTH))
        for group in groups:
            later = later - set(group)
            chains = []
            for order in itertools.permutations(group):
                left = [set(order[i:]) for i in range(len(order))]
                chains.append(sum(self.log_q(ids, rest | later, {k}) for rest, k in zip(left, order, strict=True)))
            total += np.logaddexp.reduce(chains) - math.log(len(chains))
        return total


@functools.cache
def oracle(family: str) -> Oracle:
    return Oracle(family)


# Means of the denoising losses, by enumeration


def mass(size: int, count: int, options: LikelihoodOptions) -> float:
    """Probability of one set of `count` of `size` positions, times its coefficient, over everything that a law draws;
    a complement is another draw of the same set, the two count half with weights and whole without."""
    weighted = options.mask_weight is MaskWeight.elbo
    pairs = 2 if options.complement and not weighted else 1
    if options.mask_law is MaskLaw.exact_count:
        assert weighted
        return 1 / (math.comb(size, count) * count)
    low, high = options.rate_range
    if options.rising_rate:
        low += (high - low) * RISING_EPOCH / (EPOCHS - 1)
    power = count - 1 if weighted else count
    if low == high:
        return pairs * low**power * (1 - low) ** (size - count)
    return pairs * integrate.quad(lambda t: t**power * (1 - t) ** (size - count), low, high)[0] / (high - low)


def patterns(places: list, probability: float) -> Iterator[tuple[float, set]]:
    """All subsets of `places`, each member present with `probability`."""
    for count in range(len(places) + 1):
        weight = probability**count * (1 - probability) ** (len(places) - count)
        if weight > 0:
            for subset in itertools.combinations(places, count):
                yield weight, set(subset)


def masks(options: LikelihoodOptions, groups: list[list[int]]) -> Iterator[tuple[float, set, set, tuple]]:
    """(mass, masked, scored, hidden prompt) of everything that can be drawn."""
    for index, group in enumerate(groups):
        later = {k for other in groups[index + 1 :] for k in other} if options.canvas_block else set()
        before = [k for other in groups[:index] for k in other] if options.canvas_block else []
        context = [*range(-len(PROMPT), 0), *before]
        for probability, hidden in patterns(context, options.prompt_masking):
            prompt = tuple(k - len(PROMPT) in hidden for k in range(len(PROMPT)))
            covered = later | {k for k in hidden if k >= 0}
            for count in range(1, len(group) + 1):
                for chosen in itertools.combinations(group, count):
                    yield (
                        probability * mass(len(group), count, options),
                        set(chosen) | covered,
                        set(chosen),
                        prompt,
                    )
            yield probability * options.full_view, set(group) | covered, set(group), prompt


def groups_of(family: str, options: LikelihoodOptions) -> list[list[int]]:
    return [[0, 1], [2, 3]] if options.canvas_block else oracle(family).groups


@functools.cache
def mean_elbo(family: str, name: str, ids: tuple) -> float:
    options = ELBOS[name]
    found = masks(options, groups_of(family, options))
    return sum(m * oracle(family).log_q(ids, masked, scored, prompt) for m, masked, scored, prompt in found)


# Means of the replays, by enumeration


def orders(family: str) -> Iterator[tuple[int, ...]]:
    """All orders in which the sampler can reveal the positions; equally likely."""
    for chosen in itertools.product(*(itertools.permutations(group) for group in oracle(family).groups)):
        yield sum(chosen, ())


def replay_by_hand(family: str, name: str, ids: tuple, order: tuple[int, ...]) -> float:
    """Each part under the canvas with it and everything later masked; averaged over hidden prompts."""
    options, total = REPLAYS[name], 0.0
    cut: Callable[[int], list[list[int]]] = {
        Partition.every_step: lambda n: [[i] for i in range(n)],
        Partition.left_to_right: lambda n: [[i] for i in range(n)],
        Partition.shrink: lambda n: [[0, 1], [2, 3]][: n // 2],
        Partition.segments: lambda n: [[0, 1], [2], [3]] if n == 4 else [[0], [1]],
        Partition.one: lambda n: [list(range(n))],
    }[options.partition]
    later = set(range(LENGTH))
    for group in oracle(family).groups:
        ranked = group if options.partition is Partition.left_to_right else [k for k in order if k in group]
        for part in cut(len(group)):
            scored = {ranked[i] for i in part}
            for probability, hidden in patterns(list(range(len(PROMPT))), options.prompt_masking):
                prompt = tuple(k in hidden for k in range(len(PROMPT)))
                total += probability * oracle(family).log_q(ids, later, scored, prompt)
            later = later - scored
    return total


# The estimates, by the project


def trajectory_of(ids: list[tuple], reveal: list[tuple] | None = None, uid: int = 5) -> TextTrajectory:
    rounds = reveal or [tuple(range(1, LENGTH + 1))] * len(ids)
    uids = np.arange(uid, uid + len(ids))
    return text_trajectory(PROMPT, np.array(ids, np.int32), np.array(rounds, np.int16), RANDOM_ORDER, uid=uids)


def likelihood_of(policy: TextPolicy, options: LikelihoodOptions) -> TextElbo | TextReplay:
    if options.kind is LikelihoodKind.elbo:
        return TextElbo(policy.spec, options, EPOCHS, CPU)
    return TextReplay(policy.spec, RANDOM_ORDER, options, CPU)


def log_probs(likelihood, policy: TextPolicy, rows: list[ScoredRow]) -> list[np.ndarray]:
    """(m,) of each row; equal rows are scored once."""
    contents = [row.content[0] if isinstance(row.content, tuple) else row.content for row in rows]
    keys = [tuple(a.tobytes() for a in (c.input_ids, c.stream, c.column, c.token)) for c in contents]
    unique = dict(zip(keys, rows, strict=True))
    with torch.no_grad():
        values = likelihood.log_prob(policy, list(unique.values())).double().numpy()
    split = np.split(values, np.cumsum([len(row.decision) for row in unique.values()])[:-1])
    known = dict(zip(unique, split, strict=True))
    return [known[key] for key in keys]


def estimates(family: str, options: LikelihoodOptions, ids: tuple, number: int, uid: int = 5) -> np.ndarray:
    """(number,) estimates of one text, each of another pass."""
    policy = oracle(family).policy
    likelihood = likelihood_of(policy, options)
    trajectory = trajectory_of([ids], uid=uid)
    epoch = RISING_EPOCH if options.rising_rate else 0
    passes = [likelihood.rows([trajectory], EPOCHS * update + epoch) for update in range(number)]
    owner = np.array([update for update, rows in enumerate(passes) for _ in rows])
    rows = [row for found in passes for row in found]
    values = log_probs(likelihood, policy, rows)
    sums = [row.importance * (value * row.coefficient).sum() for row, value in zip(rows, values, strict=True)]
    return np.bincount(owner, sums, number) / likelihood.draws


def standard_errors(values: np.ndarray, exact: float) -> float:
    error = values.std(ddof=1) / math.sqrt(len(values))
    return abs(values.mean() - exact) / max(error, 1e-6 * abs(exact))  # 1e-6: some draw nothing


TEXT = (1, 2, 0, 2)

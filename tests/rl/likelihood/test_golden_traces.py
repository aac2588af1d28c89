"""Golden values: on three tokens and at most four positions every trace is enumerated, without the project's kernel.

`enumerate_traces` plays the sampler by brute force: every state, every joint draw, the published selection rule. The
replayed log-probability of each trace must be the logarithm of its enumerated probability, and its gradient the exact
policy gradient.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from configs.algorithm_options import LikelihoodOptions, Partition
from rl.likelihood.text import TextReplay
from rollout.options import Count, Order, SamplerOptions
from rollout.text.groups import trained_decisions
from rollout.trajectory import TextTrajectory
from tests.tiny import tiny_policy
from tests.traces import text_trajectory

PROMPT = np.array([0, 1, 2, 0], np.int32)
WORDS = 3  # the last of them is the stop token

RULES = [
    SamplerOptions(order=Order.max_prob, count=Count.quota),
    SamplerOptions(order=Order.max_prob, count=Count.quota, rounds_per_block=2, temperature=0.7),
    SamplerOptions(order=Order.max_prob, count=Count.threshold, threshold=0.6),
    SamplerOptions(order=Order.max_prob, count=Count.factor, factor=0.9),
    SamplerOptions(order=Order.entropy, count=Count.entropy_bound, entropy_bound=0.6),
    SamplerOptions(order=Order.entropy, count=Count.entropy_sum, entropy_bound=1.1),
    SamplerOptions(order=Order.drawn_prob, count=Count.threshold, threshold=0.45, least_per_round=2),
    SamplerOptions(order=Order.margin, count=Count.quota),
    SamplerOptions(order=Order.sequential, count=Count.quota, top_k=2),
    SamplerOptions(order=Order.drawn_prob, count=Count.quota),
    SamplerOptions(order=Order.drawn_prob, count=Count.quota, rounds_per_block=2),
    SamplerOptions(order=Order.drawn_prob, count=Count.threshold, threshold=0.45),
    SamplerOptions(order=Order.drawn_prob, count=Count.factor, factor=1.2),
    SamplerOptions(order=Order.drawn_raw_prob, count=Count.quota, temperature=1.5),
]


def rule_name(options: SamplerOptions) -> str:
    least = "" if options.least_per_round is None else f"-{options.least_per_round}"
    return f"{options.order.value}-{options.count.value}{least}"


def make_policy(family: str):
    return tiny_policy(family, words=WORDS, block_length=4, scale=1.5, seed=3)


def rule_for(options: SamplerOptions, length: int = 4) -> SamplerOptions:
    return SamplerOptions(**{**vars(options), "max_new_tokens": length})


class Enumerator:
    """All traces of a canvas with their probabilities, differentiable in the policy's weights."""

    def __init__(self, policy, options: SamplerOptions) -> None:
        self.policy, self.options, self.known = policy, options, {}

    def traces(self) -> dict[tuple, torch.Tensor]:
        """{(ids, reveal rounds): probability}; unrevealed positions hold -1 and round 0."""
        length = self.options.max_new_tokens
        found: dict[tuple, torch.Tensor] = {}
        self._extend((-1,) * length, (0,) * length, torch.ones(()), 1, found)
        return found

    def _extend(self, ids, reveal, probability, round_index, found) -> None:
        if self._finished(ids):
            found[ids, reveal] = found.get((ids, reveal), 0) + probability
            return
        masked = [k for k, token in enumerate(ids) if token < 0]
        raw = self._logits(ids)
        q, raw_probability = self._law(raw)
        outcomes: dict[tuple, torch.Tensor] = {}
        for draw in itertools.product(range(WORDS), repeat=len(masked)):
            weight = torch.stack([q[k, v] for k, v in zip(masked, draw, strict=True)]).prod()
            if weight.item() == 0:
                continue
            scores = [self._score(q[k], raw_probability[k], v, k) for k, v in zip(masked, draw, strict=True)]
            ranked = sorted(range(len(masked)), key=lambda i: (-scores[i], i))
            chosen = ranked[: self._count([scores[i] for i in ranked], round_index)]
            key = tuple(sorted((masked[i], draw[i]) for i in chosen))
            outcomes[key] = outcomes.get(key, 0) + weight
        for key, weight in outcomes.items():
            new_ids, new_reveal = list(ids), list(reveal)
            for k, v in key:
                new_ids[k], new_reveal[k] = v, round_index
            self._extend(tuple(new_ids), tuple(new_reveal), probability * weight, round_index + 1, found)

    def _finished(self, ids) -> bool:
        stop = ids.index(WORDS - 1) if WORDS - 1 in ids else len(ids) - 1
        return all(token >= 0 for token in ids[: stop + 1])

    def _logits(self, ids) -> torch.Tensor:
        if ids not in self.known:
            canvas = [self.policy.spec.mask_id if token < 0 else token for token in ids]
            text = torch.tensor([[*PROMPT.tolist(), *canvas]])
            position = torch.arange(text.shape[1])[None]
            block = position // 4 if self.policy.spec.block_length else torch.zeros_like(position)
            read = torch.stack([torch.zeros(len(ids), dtype=torch.long), torch.arange(len(ids)) + len(PROMPT)])
            self.known[ids] = self.policy(text, position, torch.zeros_like(position), block, read)[:, :WORDS]
        return self.known[ids]

    def _law(self, raw):
        scaled = raw / self.options.temperature
        if self.options.top_k:
            bar = scaled.sort(-1, descending=True).values[:, self.options.top_k - 1 : self.options.top_k]
            scaled = torch.where(scaled >= bar, scaled, -torch.inf)
        return scaled.softmax(-1), raw.softmax(-1)

    def _score(self, q, raw_probability, token, position) -> float:
        ordered = sorted(q.tolist(), reverse=True)
        return {
            Order.max_prob: lambda: ordered[0],
            Order.margin: lambda: ordered[0] - ordered[1],
            Order.entropy: lambda: sum(p * np.log(p) for p in ordered if p > 0),
            Order.sequential: lambda: -position,
            Order.drawn_prob: lambda: q[token].item(),
            Order.drawn_raw_prob: lambda: raw_probability[token].item(),
        }[self.options.order]()

    def _count(self, ranked_scores, round_index) -> int:
        options, n = self.options, 0
        if options.count is Count.quota:
            rounds = options.rounds_per_block or options.max_new_tokens
            share, extra = divmod(options.max_new_tokens, rounds)
            return min(len(ranked_scores), share + (round_index <= extra))
        for n in range(len(ranked_scores) + 1):
            if n == len(ranked_scores):
                break
            if options.count is Count.threshold and ranked_scores[n] < options.threshold:
                break
            if options.count is Count.factor and (n + 2) * (1 - ranked_scores[n]) >= options.factor:
                break
            if options.count is Count.entropy_bound and sum(-s for s in ranked_scores[:n]) > options.entropy_bound:
                break
            if options.count is Count.entropy_sum and sum(-s for s in ranked_scores[: n + 1]) >= options.entropy_bound:
                break
        return min(max(options.least_per_round or 1, n), len(ranked_scores))


def as_trajectory(traces: dict[tuple, torch.Tensor], policy, options: SamplerOptions) -> TextTrajectory:
    """One group whose samples are all the traces; everything revealed is trained on."""
    ids = np.array([[policy.spec.mask_id if t < 0 else t for t in key[0]] for key in traces], np.int32)
    reveal = np.array([key[1] for key in traces], np.int16)
    stops = [key[0].index(WORDS - 1) + 1 if WORDS - 1 in key[0] else len(key[0]) for key in traces]
    support = None
    if options.top_k:
        support = np.full((*ids.shape, options.top_k), -1, np.int32)
        enumerator = Enumerator(policy, options)
        for row, key in enumerate(traces):
            for k, round_index in enumerate(key[1]):
                state = tuple(t if 0 < r < round_index else -1 for t, r in zip(*key, strict=True))
                kept = enumerator._law(enumerator._logits(state))[0][k].nonzero()[:, 0]
                if round_index:
                    support[row, k, : len(kept)] = kept.numpy()
    return text_trajectory(PROMPT, ids, reveal, options, stop_length=np.array(stops, np.int32), support=support)


def replay_totals(policy, trajectory: TextTrajectory, options: SamplerOptions, likelihood: LikelihoodOptions):
    """(samples,) summed log-probability of each trace, differentiable."""
    replay = TextReplay(policy.spec, options, likelihood, torch.device("cpu"))
    rows = replay.rows([trajectory], 0)
    owner = torch.tensor([row.sample for row in rows for _ in row.decision])
    return torch.zeros(trajectory.group_size).index_add(0, owner, replay.log_prob(policy, rows))


@pytest.mark.parametrize("family", ["sdar", "llada", "dream"])
@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_full_replay_is_the_exact_trace_likelihood(family, rule):
    policy, options = make_policy(family), rule_for(rule)
    with torch.no_grad():
        traces = Enumerator(policy, options).traces()
        totals = replay_totals(policy, as_trajectory(traces, policy, options), options, LikelihoodOptions())
    exact = torch.stack(list(traces.values()))
    assert exact.sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(totals.exp(), exact, rtol=1e-4, atol=1e-7)


def policy_gradients(family: str, rule: SamplerOptions):
    """(exact gradient of the expected reward, score-function gradient from the replay), flattened."""
    policy, options = make_policy(family), rule_for(rule)
    traces = Enumerator(policy, options).traces()
    reward = torch.tensor([np.cos(3.0 * sum(k * t for k, t in enumerate(ids))) for ids, _ in traces])
    probability = torch.stack(list(traces.values()))
    exact = torch.autograd.grad(probability @ reward.float(), list(policy.parameters()))
    totals = replay_totals(policy, as_trajectory(traces, policy, options), options, LikelihoodOptions())
    score = torch.autograd.grad((probability.detach() * reward.float()) @ totals, list(policy.parameters()))
    return tuple(torch.cat([g.flatten() for g in gradients]) for gradients in (exact, score))


@pytest.mark.parametrize("family", ["sdar", "llada"])
@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_replay_gradient_is_the_exact_policy_gradient(family, rule):
    exact, score = policy_gradients(family, rule)
    assert (exact - score).norm() <= 1e-4 * exact.norm()


@pytest.mark.parametrize("rule", [r for r in RULES if r.order.depends_on_draw], ids=rule_name)
def test_without_the_correction_term_draw_scored_rules_have_a_wrong_gradient(rule, monkeypatch):
    """The control: what every trace method that drops the term computes."""
    from rollout.text.reveal import RevealKernel

    monkeypatch.setattr(RevealKernel, "_not_revealed", lambda self, logits, *rest: torch.zeros_like(logits[:, 0]))
    exact, score = policy_gradients("sdar", rule)
    assert (exact - score).norm() > 0.05 * exact.norm()


# Mean of log pi_hat - log pi over traces, in nats: what a coarser partition costs on this policy. Measured.
BIAS = {
    ("sdar", "shrink"): -0.3140,
    ("sdar", "segments"): -0.1306,
    ("sdar", "one"): -0.8161,
    ("llada", "shrink"): -0.1057,
    ("llada", "segments"): 0.0001,
    ("llada", "one"): -0.3963,
}


@pytest.mark.parametrize(("family", "partition"), BIAS)
def test_bias_of_coarser_partitions(family, partition):
    policy, options = make_policy(family), rule_for(RULES[0])
    likelihood = LikelihoodOptions(partition=Partition[partition], shrink=2, segments=3)
    with torch.no_grad():
        traces = Enumerator(policy, options).traces()
        totals = replay_totals(policy, as_trajectory(traces, policy, options), options, likelihood)
    exact = torch.stack(list(traces.values()))
    bias = (exact * (totals - exact.log())).sum().item()
    assert bias == pytest.approx(BIAS[family, partition], abs=1e-3)


def test_tail_tokens_are_trained_only_when_a_kept_token_saw_them():
    #            kept kept STOP | tail: before, with, after the last kept token; never
    reveal = np.array([[1, 4, 2, 3, 4, 5, 0]], np.int16)
    by_distribution = trained_decisions(reveal, np.array([3]), SamplerOptions(order=Order.max_prob))
    by_draw = trained_decisions(reveal, np.array([3]), SamplerOptions(order=Order.drawn_prob))
    assert by_distribution.tolist() == [[True, True, True, True, False, False, False]]
    assert by_draw.tolist() == [[True, True, True, True, True, False, False]]

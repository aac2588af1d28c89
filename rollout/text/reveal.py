"""The transition kernel of a masked language model: which positions a round reveals, and the token at each.

The sampler and the learner use this same object: the sampler draws from it, the learner evaluates it at the recorded
draws, so equal weights give equal log-probabilities by construction.

Let q_i be the *processed* distribution of masked position i (forbidden ids removed, temperature, top-k, top-p). Each
masked position draws x_i ~ q_i; the order ranks the positions, the count says how many of the best are revealed.

- When the order looks only at the distributions, the probability of a round is the product of q_i(x_i) over the
  revealed positions.
- When it looks at the draw itself (LLaDA, SDAR, JetEngine), the positions that were *not* revealed carry information:
  with c the bar they missed, the round's probability has one more factor F_i(c) = sum of q_i(v) over the tokens v whose
  score is below c, for each of them. Leaving it out is not the policy gradient. It is added to the first revealed
  position, so the decisions of a sample still sum to the log-probability of its trace.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.text.spec import TextSpec
from rollout.noise import Purpose, uniform
from rollout.options import Count, Order, SamplerOptions

LOG_PROBABILITY_FLOOR = -30.0


@dataclass(frozen=True)
class Draw:
    """What a round proposes at M masked positions."""

    tokens: Tensor
    """(M,) int64"""
    score: Tensor
    """(M,) fp32, higher is revealed first"""
    log_q: Tensor
    """(M, V) fp32 processed log-probabilities"""

    def at(self, chosen: Tensor) -> Draw:
        """Of some positions, (M,) bool."""
        return Draw(self.tokens[chosen], self.score[chosen], self.log_q[chosen])


class RevealKernel:
    def __init__(self, options: SamplerOptions, spec: TextSpec) -> None:
        self.options = options
        self._forbidden = torch.tensor(spec.forbidden_ids, dtype=torch.long)

    @property
    def truncates(self) -> bool:
        return self.options.temperature > 0 and (self.options.top_k > 0 or self.options.top_p < 1)

    def draw(self, logits: Tensor, uid: Tensor, position: Tensor, round_index: Tensor) -> Draw:
        """Propose a token and a score for each of M masked positions.

        Args:
            logits: (M, V) fp32, raw.
            uid, position, round_index: (M,) keys of the noise.
        """
        log_q = self.process(logits)
        if self.options.temperature == 0:
            tokens = log_q.argmax(-1)
        else:
            tokens = _inverse_cdf(log_q, uniform(uid, position, round_index, Purpose.TOKEN))
        return Draw(tokens, self._score(log_q, logits, tokens, uid, position, round_index), log_q)

    def process(self, logits: Tensor) -> Tensor:
        """(M, V) raw logits to log-probabilities of the sampling law. At temperature 0 the law is its argmax, and what
        is returned is the untempered distribution, which ranks the positions."""
        logits = logits.index_fill(-1, self._forbidden.to(logits.device), -torch.inf)
        if self.options.temperature > 0:
            logits = logits / self.options.temperature
        if self.options.top_k > 0:
            kept = min(self.options.top_k, logits.shape[-1])
            bar = logits.topk(kept, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < bar, -torch.inf)
        if self.options.top_p < 1:
            logits = _keep_nucleus(logits, self.options.top_p)
        return logits.log_softmax(-1)

    def select(self, score: Tensor, masked: Tensor, first_masked: Tensor, block_round: Tensor) -> Tensor:
        """Which positions of a block are revealed: at least one in every row that has a masked position.

        Args:
            score: (N, B) fp32, anything where not masked.
            masked: (N, B) bool.
            first_masked: (N,) masked positions when the block began.
            block_round: (N,) rounds the block has had before this one.

        Returns:
            (N, B) bool, a subset of `masked`.
        """
        score = score.masked_fill(~masked, -torch.inf)
        ranked = score.argsort(dim=-1, descending=True, stable=True)  # ties go to the left
        sorted_score = score.gather(-1, ranked)
        remaining = masked.sum(-1)
        rank = torch.arange(score.shape[-1], device=score.device)  # (B,)
        count = self._count(sorted_score, rank, first_masked, block_round)
        count = torch.minimum(count.clamp(min=self.options.least_per_round or 1), remaining)
        chosen = torch.zeros_like(masked)
        return chosen.scatter(-1, ranked, rank < count[:, None]) & masked

    def _count(self, sorted_score: Tensor, rank: Tensor, first_masked: Tensor, block_round: Tensor) -> Tensor:
        """(N,) how many of the ranked positions pass; `select` raises too few to one, or to `least_per_round`."""
        options = self.options
        if options.count is Count.quota:
            if options.rounds_per_block is None:
                return torch.ones_like(first_masked)
            share, extra = first_masked // options.rounds_per_block, first_masked % options.rounds_per_block
            return share + (block_round < extra)
        if options.count is Count.threshold:
            return (sorted_score >= options.threshold).sum(-1)
        if options.count is Count.factor:
            passes = (rank + 2) * (1 - sorted_score) < options.factor  # the n-th has rank n - 1
        elif options.count is Count.entropy_sum:
            passes = (-sorted_score).cumsum(-1) < options.entropy_bound
        else:
            entropy = -sorted_score
            # Ascending entropies: the largest of a prefix is its last, so leave out the current one.
            passes = entropy.cumsum(-1) - entropy <= options.entropy_bound
        return passes.long().cumprod(-1).sum(-1)

    def remaining(self, first_masked: Tensor, rounds: Tensor) -> Tensor:
        """(N,) positions that the quota rule leaves masked after `rounds` (N,) rounds of a block."""
        if self.options.rounds_per_block is None:
            return first_masked - rounds
        share, extra = first_masked // self.options.rounds_per_block, first_masked % self.options.rounds_per_block
        return first_masked - rounds * share - torch.minimum(rounds, extra)

    def log_prob(
        self, logits: Tensor, tokens: Tensor, selected: Tensor, round_id: Tensor, support: Tensor | None
    ) -> Tensor:
        """Log-probability of each revealed token, under the law that drew it; differentiable in `logits`.

        Args:
            logits: (M, V) fp32 raw logits at masked positions.
            tokens: (M,) revealed tokens; anything where not selected.
            selected: (M,) positions that the round revealed. Orders that ignore the draw need only these.
            round_id: (M,) equal for positions of the same round of the same sample, non-negative.
            support: (M, S) ids that survived truncation, padded with -1, or None to truncate afresh.

        Returns:
            (M,) fp32, 0 where not selected.
        """
        if self.options.temperature == 0:
            return torch.zeros_like(logits[:, 0])
        if support is not None:
            scaled = logits.gather(-1, support.clamp(min=0)) / self.options.temperature
            normaliser = scaled.masked_fill(support < 0, -torch.inf).logsumexp(-1)
            chosen = logits.gather(-1, tokens[:, None])[:, 0] / self.options.temperature
            token_log_prob = chosen - normaliser
        else:
            token_log_prob = self.process(logits).gather(-1, tokens[:, None])[:, 0]
        log_prob = torch.where(selected, token_log_prob, 0.0)
        if self.options.order.depends_on_draw:
            log_prob = log_prob + self._not_revealed(logits, tokens, selected, round_id)
        return log_prob

    def _not_revealed(self, logits: Tensor, tokens: Tensor, selected: Tensor, round_id: Tensor) -> Tensor:
        """(M,) log F of every position that missed the bar, summed onto the first revealed position of its round."""
        log_q = self.process(logits)
        token_scores = self._drawn_score(log_q, logits)  # (M, V)
        bar, bar_index = _bar(token_scores.gather(-1, tokens[:, None])[:, 0], selected, round_id, self.options)
        index = torch.arange(len(tokens), device=tokens.device)
        tie_lost = (token_scores == bar[:, None]) & (index > bar_index)[:, None]  # ties go to the left
        missed = (token_scores < bar[:, None]) | tie_lost
        below = torch.where(missed | selected[:, None], log_q, -torch.inf)
        # Under changed weights a recorded miss can become impossible; the floor keeps such a trace finite.
        log_below = torch.where(selected, 0.0, below.logsumexp(-1).clamp(min=LOG_PROBABILITY_FLOOR))
        rounds = int(round_id.max()) + 1
        total = log_below.new_zeros(rounds).index_add(0, round_id, log_below)
        return torch.where(_first_of_round(selected, round_id, rounds), total[round_id], 0.0)

    def _drawn_score(self, log_q: Tensor, logits: Tensor) -> Tensor:
        """(M, V) score that each token would give its position, if drawn. Constant in the policy's parameters."""
        if self.options.order is Order.drawn_prob:
            return log_q.detach().exp()
        allowed = logits.detach().index_fill(-1, self._forbidden.to(logits.device), -torch.inf)
        return allowed.softmax(-1)

    def _score(
        self, log_q: Tensor, logits: Tensor, tokens: Tensor, uid: Tensor, position: Tensor, round_index: Tensor
    ) -> Tensor:
        order = self.options.order
        if order is Order.max_prob:
            return log_q.amax(-1).exp()
        if order is Order.entropy:
            return torch.special.entr(log_q.exp()).sum(-1).neg()
        if order is Order.margin:
            best = log_q.topk(2, dim=-1).values.exp()
            return best[:, 0] - best[:, 1]
        if order is Order.random:
            return uniform(uid, position, round_index, Purpose.ORDER).float()
        if order is Order.sequential:
            return -position.float()
        return self._drawn_score(log_q, logits).gather(-1, tokens[:, None])[:, 0]


def _inverse_cdf(log_q: Tensor, u: Tensor) -> Tensor:
    """(M,) tokens: the first whose cumulative probability exceeds u. In fp64, or rare tokens would be cut off."""
    cumulative = log_q.double().exp().cumsum(-1)
    total = cumulative[:, -1]
    target = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]


def _keep_nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of most probable tokens whose mass reaches top_p."""
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(-1)
    mass_before = probability.cumsum(-1) - probability
    return logits.scatter(-1, index, ordered.masked_fill(mass_before >= top_p, -torch.inf))


def _bar(drawn: Tensor, selected: Tensor, round_id: Tensor, options: SamplerOptions) -> tuple[Tensor, Tensor]:
    """(M,) the score that the other positions of the round stayed below, and the index of the position that set it."""
    rounds = int(round_id.max()) + 1
    lowest = torch.full((rounds,), torch.inf, device=drawn.device, dtype=drawn.dtype)
    lowest = lowest.scatter_reduce(0, round_id, torch.where(selected, drawn, torch.inf), "amin")
    index = torch.arange(len(drawn), device=drawn.device)
    sets_bar = selected & (drawn == lowest[round_id])
    bar_index = torch.full((rounds,), -1, device=drawn.device)
    bar_index = bar_index.scatter_reduce(0, round_id, torch.where(sets_bar, index, -1), "amax")
    # Unless a position was forced, the others also failed the count rule itself.
    revealed = torch.zeros(rounds, device=drawn.device).index_add(0, round_id, selected.float())
    if options.count is Count.threshold:
        limit, passed = torch.full_like(lowest, options.threshold), lowest >= options.threshold
    elif options.count is Count.factor:
        limit, passed = 1 - options.factor / (revealed + 2), (revealed + 1) * (1 - lowest) < options.factor
        limit = torch.nextafter(limit, torch.ones_like(limit))  # a score equal to the limit fails
    else:
        return lowest[round_id], bar_index[round_id]
    binding = passed & (limit <= lowest)
    lowest, bar_index = torch.where(binding, limit, lowest), torch.where(binding, len(drawn), bar_index)
    return lowest[round_id], bar_index[round_id]


def _first_of_round(selected: Tensor, round_id: Tensor, rounds: int) -> Tensor:
    """(M,) True at the first selected position of each round."""
    index = torch.arange(len(selected), device=selected.device)
    first = torch.full((rounds,), len(selected), device=selected.device)
    first = first.scatter_reduce(0, round_id, torch.where(selected, index, len(selected)), "amin")
    return index == first[round_id]

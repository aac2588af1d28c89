"""What samples are worth to a reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.compose import Composed
from configs.environment import check_environment
from configs.errors import UserError
from configs.schema import Config
from rewards.options import RewardOptions, RewardTerm
from rl.api.configuration import AnyConfig, composed_of
from rl.api.sampling import Samples

if TYPE_CHECKING:
    from rewards.scoring.scores import Failure, ScoreRequest

Reward = str | Callable[..., Any] | RewardTerm | RewardOptions | AnyConfig | Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Rewards:
    """As an array: `numpy.asarray(rewards)` is `total`."""

    total: np.ndarray
    """(groups, G) float64 weighted sum of the terms; NaN where a sample could not be scored."""
    terms: dict[str, np.ndarray]
    """(groups, G) of each term, unweighted; NaN where it failed or does not apply."""
    failures: list[Failure]
    """Why samples could not be scored."""
    solved: np.ndarray | None
    """(groups, G) 1 solved (`reward.solved_at`), 0 not, NaN unscored; None where the reward has no `solved_at`, as one
    that is given by its name alone."""
    weights: dict[str, float]
    """Of the terms."""
    metrics: dict[str, float]
    """Mean over samples of each scalar that functions passed to TRL's `log_metric`; NaN if they passed no number."""
    paid: dict[str, np.ndarray]
    """(groups, G) what the sum counts of each term that has a part in it: behind gates, within clips; unweighted."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.total, dtype=dtype)


def score(
    reward: Reward,
    samples: Samples | Sequence[Any],
    *,
    prompts: Sequence[str] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> Rewards:
    """Score samples in a child process, as a run does: a function that hangs or crashes costs the sample it did it on.

    Args:
        reward: a registered name (`"math"`) or dotted path; a function with TRL's signature, also one of a notebook; a
            mapping of such names to weights; a `RewardTerm`, `RewardOptions`, or a configuration, for its reward.
        samples: what `sample` returns; or completions, texts or images, one behind the other, for a single group.
        prompts: of completions, one each; without them they are empty.
        columns: further columns that the reward looks at, of completions one value each, of samples one a group; those
            of the problems are there already.

    Raises:
        RewardError: the reward is not found or not callable, or needs a column that is not there.
    """
    from rewards.scoring.scorer import Scorer
    from rl.run.solved import solved_of

    options = reward_options(reward)
    check_environment(options)
    request, shape = _request(samples, prompts, columns or {})
    request.groups = [index // shape[1] for index in range(len(request.completions))] if shape[1] else []
    scorer = Scorer(options)
    try:
        scorer.start()
        scores = scorer.score(request)
    finally:
        scorer.stop()
    total = scores.total.reshape(shape)
    terms = {name: values.reshape(shape) for name, values in scores.terms.items()}
    metrics = {name: np.nan if (mean := each.mean) is None else mean for name, each in scores.metrics.items()}
    paid = {name: values.reshape(shape) for name, values in scores.paid.items()}
    return Rewards(total, terms, scores.failures, solved_of(total, terms, options), options.weights(), metrics, paid)


def reward_options(reward: Reward) -> RewardOptions:
    """Options of the reward that is meant; a function is registered under the name that it gets there."""
    if isinstance(reward, Composed | Config):
        return composed_of(reward).config.reward
    if isinstance(reward, RewardOptions):
        return reward
    if isinstance(reward, RewardTerm):
        return RewardOptions(terms={"reward": reward})
    if isinstance(reward, Mapping):
        terms = {
            name.rpartition(".")[2]: RewardTerm(function=name, weight=float(weight)) for name, weight in reward.items()
        }
        if len(terms) < len(reward):
            raise UserError("two rewards end in the same name: give rewards.options.RewardOptions, which names terms")
        return RewardOptions(terms=terms)
    if callable(reward):
        from rl.api.registration import register

        return RewardOptions(terms={"reward": RewardTerm(function=register("reward", reward))})
    return RewardOptions(terms={reward.rpartition(".")[2]: RewardTerm(function=reward)})


def _several(values: Any, what: str) -> list[Any]:
    """A text or a mapping can be walked over, too, by its letters or its keys."""
    if isinstance(values, str | bytes | Mapping | Set):
        raise UserError(f"{what} is one {type(values).__name__}: give a list with one value a sample, or a group")
    return list(values)


def _request(
    samples: Samples | Sequence[Any], prompts: Sequence[str] | None, columns: Mapping[str, Sequence[Any]]
) -> tuple[ScoreRequest, tuple[int, int]]:
    """The request, samples one behind the other, and its (groups, G)."""
    from rewards.scoring.scores import ScoreRequest

    given = {name: _several(values, f"column {name!r}") for name, values in columns.items()}
    if not isinstance(samples, Samples):
        outputs = _several(samples, "samples")
        asked = [""] * len(outputs) if prompts is None else _several(prompts, "prompts")
        return ScoreRequest(asked, outputs, None, given), (1, len(outputs))
    if prompts is not None:
        raise UserError("prompts are for completions; samples have their own")
    groups, count = len(samples), samples.count

    def spread(values: Sequence[Any]) -> list[Any]:
        return [value for value in values for _ in range(count)]

    names = dict.fromkeys(name for problem in samples.problems for name in problem.columns if name not in columns)
    for problem in samples.problems:
        if lacking := [name for name in names if name not in problem.columns]:
            raise UserError(
                f"problem {problem.id} has no column {lacking[0]!r}, which others of these samples have: give it for "
                f"all, with columns={{{lacking[0]!r}: [...]}} and None where a reward does not apply"
            )
    known = {name: spread([problem.columns[name] for problem in samples.problems]) for name in names}
    for name, values in given.items():
        if len(values) != groups:
            raise UserError(f"column {name!r} has {len(values)} values for {groups} groups: give one a group")
        known[name] = spread(values)
    known |= {name: [value for group in values for value in group] for name, values in samples.columns.items()}
    flat = [output for group in samples.outputs for output in group]
    ids = None if samples.ids is None else [each for group in samples.ids for each in group]
    return ScoreRequest(spread([problem.shown for problem in samples.problems]), flat, ids, known), (groups, count)

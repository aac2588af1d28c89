"""Which terms of a reward ask a judge, what of their options cannot work, and what a run fills in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rewards.options import JudgeOptions, Per, RewardOptions, RewardTerm


class JudgeError(RuntimeError):
    """The judge cannot be served; the message says why."""


SAMPLES, GROUPS = "rewards.judge.rubric.judge", "rewards.judge.win_rate.judge_win_rate"
JUDGES = {"judge": SAMPLES, "judge_win_rate": GROUPS, SAMPLES: SAMPLES, GROUPS: GROUPS}
REMOTE = ("remote_reward_model", "rewards.remote.reward_model.remote_reward_model")
SERVED = "served"
REQUEST_SECONDS, PATIENCE_SECONDS = 60.0, 120.0


def is_served(term: RewardTerm) -> bool:
    """Whether it asks the judge that the run serves."""
    return term.function in JUDGES and term.args.get("url", SERVED) == SERVED


def placed(options: RewardOptions, folder: Path | None, served: Path | None) -> RewardOptions:
    """The options with what only a run knows.

    Args:
        folder: for verdicts, where a term does not name one.
        served: file that says where the judge is.
    """
    terms = dict(options.terms)
    for name, term in terms.items():
        if term.function in JUDGES:
            args = dict(term.args)
            if folder is not None and args.get("records") is None:
                args["records"] = str(folder)
            if served is not None and is_served(term):
                args["served"] = str(served)
            terms[name] = replace(term, args=args)
    return replace(options, terms=terms)


def judge_problems(reward: RewardOptions, judge: JudgeOptions | None) -> Iterator[str]:
    """One sentence for each."""
    for name, term in reward.terms.items():
        place = f"reward.terms.{name}"
        if term.function in JUDGES or term.function in REMOTE:
            yield from _deadline(place, term, reward.seconds_of(name))
        if term.function not in JUDGES:
            continue
        if is_served(term) and judge is None:
            yield (
                f"{place} asks the judge that the run serves, and none is served: set judge.model and judge.python, or "
                f"{place}.args.url and .args.model"
            )
        if JUDGES[term.function] == GROUPS and term.per is not Per.group:
            yield f"{place} compares the samples of a group: set {place}.per=group"
    if judge is not None:
        if not any(is_served(term) for term in reward.terms.values()):
            yield "judge is set, and no term of the reward asks it: use function=judge, or set judge=null"
        if not judge.cpus > 0 or judge.gpus < 0:
            yield f"judge.cpus={judge.cpus}, judge.gpus={judge.gpus}: above 0, and 0 or more, are expected"


def _deadline(place: str, term: RewardTerm, seconds: float) -> Iterator[str]:
    """A scoring process that is killed does not say that its service was down."""
    request = term.args.get("request_seconds", REQUEST_SECONDS)
    patience = term.args.get("patience_seconds", PATIENCE_SECONDS)
    if isinstance(request, int | float) and isinstance(patience, int | float) and seconds <= request + patience:
        yield (
            f"{place}.timeout_seconds={seconds:g} must be above patience_seconds + request_seconds = "
            f"{request + patience:g} of its args, or a service that is down looks like a sample that hangs: raise it"
        )

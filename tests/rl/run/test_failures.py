"""What the user is told about failed rewards: samples that are lost, and measures that cost none."""

from __future__ import annotations

from rewards.options import Missing, RewardOptions, RewardTerm
from rewards.scoring.scores import Failure
from rl.run.failures import failed_counts, failure_notes, first_loss, malformed_counts, too_many, worth_keeping

REWARDS = RewardOptions(
    terms={
        "answer": RewardTerm(function="math"),
        "style": RewardTerm(function="x.style", weight=0.0),
        "length": RewardTerm(function="x.length", weight=0.0),
    }
)


def failure(term: str, index: int = 0) -> Failure:
    return Failure(index, term, "exception", f"no {term}", "text")


def notes(*failures: Failure, unscored: int) -> list[str]:
    return list(failure_notes("update 3", failures, REWARDS, unscored, 16))


def test_lost_samples_and_failed_measures_are_told_apart() -> None:
    lost, *measures = notes(failure("style"), failure("style", 1), failure("answer", 1), failure("length"), unscored=1)
    assert lost == (
        "update 3: 1 of 16 samples could not be scored and were left out; first: answer: exception: no answer on 'text'"
    )
    assert measures == [
        "update 3: the measure style (weight 0) has no value for 2 of 16 samples, which keep their reward; first: "
        "style: exception: no style on 'text'",
        "update 3: the measure length (weight 0) has no value for 1 of 16 samples, which keep their reward; first: "
        "length: exception: no length on 'text'",
    ]


def test_without_a_lost_sample_none_is_claimed() -> None:
    (line,) = notes(failure("style"), unscored=0)
    assert "could not be scored" not in line
    assert notes(unscored=0) == []


def test_the_first_loss_is_no_measures_and_no_malformed_ones() -> None:
    """Whoever reads that a run stopped reads why."""
    malformed = Failure(0, "answer", "malformed", "why", "text", "math")
    assert first_loss([malformed, failure("style"), failure("answer")], REWARDS).startswith(
        "answer: exception: no answer"
    )
    assert first_loss([malformed, failure("style")], REWARDS) == ""


def test_samples_to_which_no_rewarded_term_applies_are_lost() -> None:
    """Their failure names all rewarded terms at once."""
    (line,) = notes(Failure(0, "answer, other", "not_applicable", "none", "text"), unscored=1)
    assert "1 of 16 samples could not be scored" in line


def test_malformed_samples_are_counted_by_label_and_cost_no_line() -> None:
    """They have a reward, 0: only the first of each label is kept with its text."""
    labels = ["boxnet", "math", "boxnet", "boxnet"]
    malformed = [Failure(i, "answer", "malformed", "why", "text", label) for i, label in enumerate(labels)]
    assert malformed_counts(malformed) == {"malformed/boxnet": 3.0, "malformed/math": 1.0}
    assert notes(*malformed, unscored=0) == []
    lost = failure("answer", 9)
    assert worth_keeping([*malformed, lost]) == [*malformed[:2], lost]
    (line,) = notes(*malformed, lost, unscored=1)
    assert "first: answer: exception" in line


def test_a_missing_score_may_end_the_run() -> None:
    def told(rewards: RewardOptions, unscored: int) -> str:
        return too_many("update 3", [failure("answer")], rewards, unscored, 40)

    assert told(RewardOptions(missing=Missing.stop), 0) == ""
    assert told(RewardOptions(missing=Missing.stop), 1) == (
        "1 of 40 samples of update 3 could not be scored, more than reward.missing=stop allows; first: answer: "
        "exception: no answer on 'text'. Mend the reward or its data, or use reward.missing=drop_sample"
    )
    assert told(RewardOptions(), 2) == told(RewardOptions(missing=Missing.drop_group), 2) == ""
    assert "3 of 40 samples of update 3 could not be scored, more than reward.max_failed_fraction=0.05" in told(
        RewardOptions(missing=Missing.drop_group), 3
    )


def test_failed_scores_are_counted_by_kind() -> None:
    down = [Failure(index, "answer", "unavailable", "gone", "text") for index in range(3)]
    others = [Failure(0, "answer", "malformed", "", ""), Failure(0, "answer", "not_applicable", "", "")]
    assert failed_counts([*down, failure("style"), *others]) == {
        "failed/exception": 1.0,
        "failed/unavailable": 3.0,
    }


def test_a_measure_that_is_a_gate_costs_its_samples_and_is_told_so() -> None:
    """It has weight 0, and what it holds back cannot be known without it."""
    gated = {"answer": RewardTerm("math", requires={"style": 1.0}), "style": RewardTerm("x.style", weight=0.0)}
    (line,) = failure_notes("update 3", [failure("style")], RewardOptions(terms=gated), 1, 16)
    assert line.startswith("update 3: 1 of 16 samples could not be scored and were left out; first: style: exception")
    assert "first: style: exception" in too_many("update 3", [failure("style")], RewardOptions(terms=gated), 9, 16)


def test_a_weight_that_moves_decides_by_the_update_who_is_a_measure() -> None:
    fading = RewardTerm("x.style", weight=0.0, start_weight=1.0, weight_updates=4)
    options = RewardOptions(terms={"answer": RewardTerm("math"), "style": fading})

    def said(update: int | None, unscored: int) -> list[str]:
        return list(failure_notes("update 3", [failure("style")], options, unscored, 16, update))

    assert ["could not be scored" in line for line in said(3, 1)] == [True]
    assert ["which keep their reward" in line for line in [*said(4, 0), *said(None, 0)]] == [True, True]
    assert "first: style" in too_many("update 3", [failure("style")], options, 9, 16, 3)

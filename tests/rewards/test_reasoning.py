"""reasoning-gym's verifiers: right, wrong and malformed answers, and answers that would run as code."""

import inspect
import re

import pytest
import reasoning_gym.factory

from rewards.options import RewardOptions, RewardTerm
from rewards.reasoning import _EVALUATED_AS_LITERAL, _EVALUATED_AS_MATHEMATICS
from rewards.reasoning import reasoning_gym as reward
from rewards.scorer import Scorer, ScoreRequest


def entries(task, size, **options):
    return list(reasoning_gym.factory.create_dataset(task, seed=5, size=size, **options))


def score(completion, entry, **arguments):
    return reward(prompts=["p"], completions=[completion], entry=[entry], difficulty=["any column"], **arguments)[0]


@pytest.mark.parametrize("task", ["countdown", "chain_sum", "basic_arithmetic", "mini_sudoku"])
def test_the_own_answer_of_each_problem_is_right_and_the_next_ones_is_wrong(task):
    problems = entries(task, 5)
    answers = [problem["answer"] for problem in problems]
    assert reward(completions=answers, entry=problems, strict=True) == [1.0] * 5
    shifted = answers[1:] + answers[:1]
    assert reward(completions=shifted, entry=problems, strict=True) == [0.0] * 5


@pytest.mark.parametrize("task", ["countdown", "chain_sum", "basic_arithmetic", "mini_sudoku"])
@pytest.mark.parametrize(
    "completion", ["", "  \n", "I do not know", "(((", "1/0", "∞ é", "[[1, 2]", "\x00", "1 " * 5000]
)
def test_malformed_answers_are_wrong_and_no_failure(task, completion):
    (entry,) = entries(task, 1)
    assert score(completion, entry, strict=True) == 0.0
    assert 0.0 <= score(completion, entry) < 0.5


def test_another_solution_than_the_recorded_one_is_right():
    (entry,) = entries("countdown", 1, min_numbers=4, max_numbers=4)
    entry["metadata"].update(numbers=[2, 3, 5, 7], target=210)
    assert score("7 * 5 * (3 * 2)", entry) == 1.0
    assert score("7*5*3*2", entry) == 1.0
    assert score("210", entry, strict=True) == 0.0


def test_strict_pays_nothing_for_partial_credit():
    (entry,) = entries("mini_sudoku", 1)
    lines = entry["answer"].splitlines()
    nearly = "\n".join([*lines[:-1], lines[-1][::-1]])
    assert 0.0 < score(nearly, entry) < 1.0
    assert score(nearly, entry, strict=True) == 0.0


def test_the_answer_may_be_asked_for_in_a_tag():
    (entry,) = entries("chain_sum", 1)
    answer = entry["answer"]
    assert score(f"<think>3</think><answer>1</answer> no: <answer>{answer}</answer>", entry, answer_tag="answer") == 1.0
    assert score(answer, entry, answer_tag="answer") == 0.0


def test_options_of_the_task_reach_its_scorer():
    (entry,) = entries("puzzle24", 1)
    entry["metadata"]["numbers"] = [4, 6, 10, 10]
    assert score("4 * 6 + 10 - 10", entry, strict=True) == 1.0
    assert score("4 * 6 + 10 - 10", entry, strict=True, task_options={"max_value": 9}) == 0.0


@pytest.mark.parametrize("task", sorted(_EVALUATED_AS_MATHEMATICS | _EVALUATED_AS_LITERAL))
def test_answers_that_would_run_as_code_are_not_run(task, tmp_path):
    (entry,) = entries(task, 1)
    for code in ("[open({!r}, 'w')]", "__import__('os').system('touch {}')", "exec(\"open({!r}, 'w')\")"):
        assert score(code.format(str(tmp_path / "proof")), entry) == 0.0
    assert list(tmp_path.iterdir()) == []


def test_the_library_alone_would_run_them(tmp_path):
    """Negative control of the test above: without the check the same text creates a file."""
    (entry,) = entries("countdown", 1)
    proof = tmp_path / "proof"
    reasoning_gym.factory.get_score_answer_fn("countdown")(f"open({str(proof)!r}, 'w')", entry)
    assert proof.exists()


@pytest.mark.parametrize("task", sorted(_EVALUATED_AS_MATHEMATICS | _EVALUATED_AS_LITERAL))
def test_no_honest_answer_is_taken_for_code(task):
    problems = entries(task, 10)
    honest = reward(completions=[problem["answer"] for problem in problems], entry=problems)
    library = reasoning_gym.factory.create_dataset(task, seed=5, size=1)
    assert honest == [library.score_answer(problem["answer"], problem) for problem in problems]


def test_the_sets_of_evaluating_tasks_are_complete():
    """A task that a newer library adds must be looked at before its scorer evaluates model output."""
    found = set()
    for task, (dataset, _) in reasoning_gym.factory.DATASETS.items():
        if re.search(r"(?<!literal_)\b(eval|exec|parse_expr|sympify)\(", inspect.getsource(dataset.score_answer)):
            found.add(task)
    assert found - {"number_sorting"} == _EVALUATED_AS_MATHEMATICS | _EVALUATED_AS_LITERAL  # evaluates its own answer


def test_a_row_that_is_no_entry_is_explained():
    with pytest.raises(ValueError, match="column `entry` must hold reasoning-gym entries"):
        score("1", {"question": "1 + 0?", "answer": "1"})


def test_an_exploding_expression_costs_its_sample_only():
    """countdown's scorer computes what the model writes; this power would hold the interpreter for hours."""
    problems = entries("countdown", 3)
    completions = [problems[0]["answer"], "9**9**9**9", problems[2]["answer"]]
    terms = {"task": RewardTerm(function="reasoning_gym", args={"strict": True})}
    scorer = Scorer(RewardOptions(terms=terms, timeout_seconds=1.0))
    try:
        scores = scorer.score(ScoreRequest(["p"] * 3, completions, columns={"entry": problems}))
        assert scores.total.tolist()[::2] == [1.0, 1.0]
        (failure,) = scores.failures
        assert (failure.index, failure.completion) == (1, "9**9**9**9")
        assert failure.kind == "timeout"
    finally:
        scorer.stop()

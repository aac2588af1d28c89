"""reasoning-gym's verifiers: right, wrong and malformed answers, and answers that would run as code."""

import inspect
import re

import pytest
import reasoning_gym.factory

from configs.schema import SourceOptions
from rewards.known_tasks import REFUSED
from rewards.options import RewardOptions, RewardTerm
from rewards.reasoning import _EVALUATED_AS_LITERAL, _EVALUATED_AS_MATHEMATICS
from rewards.reasoning import reasoning_gym as reward
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import ScoreRequest
from rl.data.rows import DataError, reasoning_gym_rows
from rl.run.failures import malformed_counts


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


@pytest.mark.parametrize(
    ("task", "answer", "why"),
    [
        ("complex_arithmetic", "nan", "not finite"),
        ("complex_arithmetic", "nan+nanj", "not finite"),
        ("complex_arithmetic", "1e999", "not finite"),
        ("boxnet", "[1]", "AttributeError"),
        ("game_of_life", '{"a": 1}', "KeyError"),
        ("prime_factorization", "two times three", "ValueError"),
        ("calendar_arithmetic", "9" * 400, "OverflowError"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_an_answer_that_the_scorer_cannot_read_is_malformed_and_scores_nothing(task, answer, why, strict):
    (entry,) = entries(task, 1)
    told = []
    assert score(answer, entry, strict=strict, log_malformed=lambda *one: told.append(one)) == 0.0
    ((place, label, message),) = told
    assert (place, label) == (0, task)
    assert why in message


def test_an_exception_on_the_own_answer_is_an_error_of_the_entry():
    (entry,) = entries("prime_factorization", 1)
    entry["answer"] = "two words"
    with pytest.raises(ValueError, match="invalid literal"):
        score("one word", entry)


def test_memory_and_what_is_no_score_stay_errors(monkeypatch):
    (entry,) = entries("chain_sum", 1)
    kind = reasoning_gym.factory.DATASETS["chain_sum"][0]
    for result, error in (
        (float("nan"), ValueError),
        (7.0, ValueError),
        (1.0001, ValueError),
        ("1", ValueError),
        (MemoryError(), MemoryError),
    ):

        def scored(self, answer, entry, result=result):
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(kind, "score_answer", scored)
        with pytest.raises(error):
            score("1", entry)


@pytest.mark.parametrize("task", sorted(REFUSED))
def test_known_bad_tasks_are_refused_by_name(task):
    (entry,) = entries(task, 1)
    with pytest.raises(ValueError, match=f"{task}.*is refused"):
        score(entry["answer"], entry)
    with pytest.raises(DataError, match=f"{task}.*is refused"):
        reasoning_gym_rows(SourceOptions(name=task, size=1))


def test_weak_tasks_are_warned_of_by_name(caplog):
    assert len(reasoning_gym_rows(SourceOptions(name="propositional_logic", size=1))) == 1
    assert "propositional_logic" in caplog.text


def test_the_numbers_of_a_puzzle_must_be_its_own():
    (entry,) = entries("puzzle24", 1)
    entry["metadata"]["numbers"] = [4, 6, 10, 10]
    assert score("4 * 6 + 10 - 10", entry, strict=True) == 1.0
    assert score("1*2*3*4", entry, strict=True) == 0.0


def test_a_number_that_python_does_not_read_is_none_of_the_puzzles():
    (entry,) = entries("puzzle24", 1)
    assert score("1" * 5000, entry) == 0.0


def test_parts_that_add_up_to_a_little_more_than_one_are_one(monkeypatch):
    (entry,) = entries("chain_sum", 1)
    kind = reasoning_gym.factory.DATASETS["chain_sum"][0]
    monkeypatch.setattr(kind, "score_answer", lambda self, answer, entry: 1.0000000000000002)
    assert score("1", entry) == 1.0


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
    for code in ("[1]*9**9", "[open({!r}, 'w')]", "__import__('os').system('touch {}')", "exec(\"open({!r}, 'w')\")"):
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
    """countdown's scorer computes what the model writes; this power would hold the interpreter for hours. A malformed
    answer beside it keeps its sample, with 0, and is counted by its task."""
    problems = entries("countdown", 3) + entries("prime_factorization", 1)
    completions = [problems[0]["answer"], "9**9**9**9", problems[2]["answer"], "two times three"]
    terms = {"task": RewardTerm(function="reasoning_gym", args={"strict": True})}
    scorer = Scorer(RewardOptions(terms=terms, timeout_seconds=1.0))
    try:
        scores = scorer.score(ScoreRequest(["p"] * 4, completions, columns={"entry": problems}))
        assert scores.total.tolist()[::2] == [1.0, 1.0]
        assert scores.total[3] == 0.0
        failure, malformed = scores.failures
        assert (failure.index, failure.completion) == (1, "9**9**9**9")
        assert failure.kind == "timeout"
        assert (malformed.index, malformed.kind, malformed.label) == (3, "malformed", "prime_factorization")
        assert malformed_counts(scores.failures) == {"malformed/prime_factorization": 1.0}
    finally:
        scorer.stop()

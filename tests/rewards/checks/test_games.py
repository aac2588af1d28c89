"""Countdown and Sudoku as the papers score them, and what their `eval` would have done."""

from __future__ import annotations

import pytest

from configs.schema import SourceOptions
from rewards.checks.countdown import countdown, countdown_shaped
from rewards.checks.sudoku import sudoku, sudoku_shaped
from rl.data.rows import reasoning_gym_rows

NUMBERS, TARGET = [3, 7, 25, 50], 82  # 50 + 25 + 7 = 82 leaves 3 over; 7 * 3 + ... none of the rows below needs it
PUZZLE, SOLUTION = "1030341020434021", "1234341221434321"


def game(text, numbers=NUMBERS, target=TARGET, shaped=False, **options):
    function = countdown_shaped if shaped else countdown
    told = []
    (score,) = function(
        completions=[text],
        prompts=["p"],
        numbers=[numbers],
        target=[target],
        log_malformed=lambda *o: told.append(o),
        **options,
    )
    return score, [reason for _, _, reason in told]


@pytest.mark.parametrize(
    ("text", "full", "shaped"),
    [
        ("<answer>50 + 25 + 21 / 3</answer>", 0.0, 0.0),  # 21 is none of the numbers
        ("<answer>(50 + 25) + (7 * 3) / 3</answer>", 0.0, 0.0),  # 3 twice
        ("<answer>50 + 25 + 7</answer>", 0.0, 0.0),  # the value, without the 3
        ("<answer>50 + 25 + 7 * 3</answer>", 0.0, 0.1),  # the numbers, another value
        ("<answer>50 + 25 + 7 / (3 - 3)</answer>", 0.0, 0.0),
        ("<answer>50 / (25 - 7 - 3)</answer>", 0.0, 0.1),
        ("<answer>1</answer> <answer>25 * 3 + 50 - 7</answer>", 0.0, 0.1),  # the last one counts: 118
        ("no tag: 50 + 25 + 7", 0.0, 0.0),
        ("<answer>50 + 25 + 7", 0.0, 0.0),
    ],
)
def test_what_reaches_no_target(text, full, shaped):
    assert game(text)[0] == full
    assert game(text, shaped=True)[0] == shaped


@pytest.mark.parametrize("text", ["25*3+7", "(25 * 3) + 7", "7\n + 25 * 3", "+7 + 3 * 25", "-(-7 - 25*3)"])
@pytest.mark.parametrize("shaped", [False, True])
def test_each_expression_of_the_numbers_that_has_the_value_is_right(text, shaped):
    assert game(f"<think>1</think><answer>{text}</answer>", [3, 7, 25], shaped=shaped) == (1.0, [])
    assert game(text, [3, 7, 25], shaped=shaped, answer_tag=None) == (1.0, [])


def test_values_are_fractions_and_no_floats():
    """1/3 * 3 is 1; 49 * (1 / 49) is less than 1 in floats; and 0.000001 beside the target is not the target."""
    assert game("<answer>49 * (1 / 49)</answer>", [1, 49, 49], 1)[0] == 1.0
    assert game("<answer>1 / 1000000</answer>", [1, 1000000], 0, shaped=True)[0] == 0.1  # d1's 1e-5 would pay 1


@pytest.mark.parametrize(
    "text",
    ["2**3", "9**9**9**9", "7//2", "1e3", "0.5 + 1", "__import__('os')", "(" * 240 + "1" + ")" * 240, "-" * 600 + "1",
     "1 +", "82", "٣+1", "1_0", "1 2", "x + 1", "3 + 4 = 7", "1" * 5000, "", "[1]", "1;2", "1#2"],
)  # fmt: skip
def test_what_is_no_expression_is_malformed_and_never_evaluated(text):
    score, told = game(f"<answer>{text}</answer>", shaped=True)
    assert score == 0.0
    assert len(told) == (0 if text == "82" else 1)
    assert game(f"<answer>{text}</answer>", shaped=True, any_answer_score=0.1)[0] == 0.1  # as d1's code pays


def test_division_by_zero_is_the_right_numbers_and_no_solution():
    assert game("<answer>1 / (2 - 2)</answer>", [1, 2, 2], 5, shaped=True) == (0.1, [])


@pytest.mark.parametrize(
    "columns",
    [
        {"numbers": [None], "target": [3]},
        {"numbers": [[]], "target": [3]},
        {"numbers": ["1 2"], "target": [3]},
        {"numbers": [[1, "2"]], "target": [3]},
        {"numbers": [[1, 2.5]], "target": [3]},
        {"numbers": [[1, True]], "target": [3]},
        {"numbers": [[1, 2]], "target": [None]},
        {"numbers": [[1, 2]], "target": ["3"]},
        {"numbers": [[1, 2]]},
        {"numbers": [[1, 2], [3]], "target": [3]},
        {},
    ],
)
@pytest.mark.parametrize("function", [countdown, countdown_shaped])
def test_a_row_without_a_game_is_an_error_of_the_data(function, columns):
    with pytest.raises(ValueError, match=r"numbers|target"):
        function(completions=["<answer>1+2</answer>"], **columns)


def test_a_problem_of_another_data_set_does_not_count():
    assert countdown(completions=["1"] * 2, numbers=[None, [1]], target=[None, 1], answer_tag=None) == [None, 1.0]
    with pytest.raises(ValueError, match="numbers_score=1"):
        countdown_shaped(completions=["1"], numbers=[[1]], target=[1], numbers_score=1)


def test_rows_of_the_hub_and_of_reasoning_gym_fit():
    assert countdown(completions=["<answer>1+2</answer>"], nums=[[2, 1]], target=[3]) == [1.0]
    rows = list(reasoning_gym_rows(SourceOptions(name="countdown", size=3)))
    columns = {"metadata": [row["metadata"] for row in rows], "answer": [row["answer"] for row in rows]}
    assert countdown(completions=columns["answer"], answer_tag=None, **columns) == [1.0] * 3


def grid(text, puzzle=PUZZLE, solution=SOLUTION, **options):
    told = []
    columns = {"completions": [text], "puzzle": [puzzle], "solution": [solution], **options}
    (full,) = sudoku(log_malformed=lambda *o: told.append(o), **columns)
    (shaped,) = sudoku_shaped(**columns)
    return full, shaped, len(told)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SOLUTION, (1.0, 1.0, 0)),
        ("1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1", (1.0, 1.0, 0)),
        ("2" + SOLUTION[1:], (0.0, 1.0, 0)),  # a given digit is changed: d1 looks at the empty ones alone
        (SOLUTION[:15] + "2", (0.0, 1.0, 0)),
        (PUZZLE, (0.0, 0.0, 0)),
        ("1234" + "0" * 12, (0.0, 2 / 5, 0)),
        ("1234", (0.0, 2 / 5, 1)),  # missing digits are wrong
        (SOLUTION + "1", (0.0, 1.0, 1)),  # those beyond the last are left out
        ("1111" * 4, (0.0, 1 / 5, 0)),
    ],
)
def test_sudoku(text, found):
    assert grid(f"<think>4444</think><answer>{text}</answer>") == pytest.approx(found)


@pytest.mark.parametrize("text", ["", "no digits", SOLUTION, "<answer>none</answer>", f"<answer>{SOLUTION}"])
def test_a_text_without_a_grid_is_malformed(text):
    assert grid(text) == (0.0, 0.0, 1)


def test_each_solution_of_a_puzzle_is_right():
    puzzle = "0" * 16
    assert sudoku(completions=["2143432112343412", SOLUTION], puzzle=[puzzle] * 2, answer_tag=None) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("puzzle", "solution", "reason"),
    [
        (SOLUTION, SOLUTION, "no empty cell"),
        ("123", SOLUTION, "16 digits"),
        ("5" + PUZZLE[1:], SOLUTION, "16 digits"),
        ("1130341020434021", SOLUTION, "twice in row 1"),
        (PUZZLE, PUZZLE, "does not fill"),
        (PUZZLE, None, "no solution"),
        (PUZZLE, "2143432112343412", "other digits"),
        (7, SOLUTION, "16 digits"),
    ],
)
def test_a_row_without_a_puzzle_is_an_error_of_the_data(puzzle, solution, reason):
    with pytest.raises(ValueError, match=reason):
        grid("<answer>1</answer>", puzzle, solution)


def test_puzzles_may_be_rows_and_may_be_large():
    rows = [[1, 0, 3, 0], [3, 4, 1, 0], [2, 0, 4, 3], [4, 0, 2, 1]]
    assert grid(f"<answer>{SOLUTION}</answer>", rows, SOLUTION) == (1.0, 1.0, 0)
    full = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
    assert grid(f"<answer>{full}</answer>", "." + full[1:], full) == (1.0, 1.0, 0)
    (row,) = reasoning_gym_rows(SourceOptions(name="mini_sudoku", size=1))
    columns = {"completions": [row["answer"]], "metadata": [row["metadata"]], "answer_tag": None}
    assert sudoku(**columns) == sudoku_shaped(**columns) == [1.0]
    assert (
        sudoku(completions=["1"], puzzle=[None])
        == sudoku_shaped(completions=["1"], puzzle=[None], solution=[None])
        == [None]
    )

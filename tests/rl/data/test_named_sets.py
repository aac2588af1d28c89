"""The files of named data sets fit rows with the columns that these sets have on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from configs.compose import compose
from configs.schema import SourceKind, SourceOptions
from rewards.checks.countdown import countdown
from rewards.checks.instruction_following import instruction_following
from rewards.checks.sudoku import sudoku
from rl.data.check import check_source
from rl.data.problems import Problem, open_source

MBPP = {"task_id": 1, "text": "Add two numbers.", "code": "def add(a, b):\n    return a + b",
        "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"], "test_setup_code": ""}  # fmt: skip
NO_EVALUATION = ("data.evaluation=null", "evaluation.every=0")
ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "2 + 3?", "answer": "It is <<2+3=5>>5.\n#### 5"},
    "math": {"problem": "2 + 3?", "solution": "\\boxed{5}", "answer": "5", "subject": "Algebra", "level": 1},
    "countdown_hub": {"target": 6, "nums": [1, 2, 3]},
    "ifeval": {"key": 1, "prompt": "Say it.", "instruction_id_list": ["length_constraints:number_words"],
               "kwargs": [{"num_words": 2, "relation": "less than", "num_bullets": None}]},
    "mbpp": MBPP,
    "humaneval": MBPP,
    "apps": {"problem_id": 1, "question": "Print 1.", "solutions": '["print(1)"]', "starter_code": "",
             "input_output": '{"inputs": [""], "outputs": ["1"]}', "difficulty": "introductory", "url": ""},
}  # fmt: skip


def saved(folder: Path, options: SourceOptions, row: dict[str, Any]) -> Problem:
    datasets.Dataset.from_list([row, row]).save_to_disk(folder)
    options.name, options.args = str(folder), {}
    return open_source(options)[1]


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_the_hub_fit(name: str, tmp_path: Path) -> None:
    data = compose(["recipe=quickstart", f"data={name}"]).config.data
    assert data.train.kind is SourceKind.dataset
    problem = saved(tmp_path / "train", data.train, ROWS[name])
    assert problem.prompt.strip()
    assert check_source(data.train, answers=True).bad == []
    assert data.evaluation is not None
    held_out = ROWS[name]
    if name == "humaneval":
        held_out = {"task_id": "HumanEval/0", "prompt": "def one():\n", "canonical_solution": "    return 1\n",
                    "test": "def check(candidate):\n    assert candidate() == 1\n", "entry_point": "one"}  # fmt: skip
    assert saved(tmp_path / "held_out", data.evaluation, held_out).prompt.strip()


def test_prompts_say_what_the_rewards_look_at(tmp_path: Path) -> None:
    data = compose(["recipe=quickstart", "data=countdown_hub"]).config.data
    problem = saved(tmp_path / "a", data.train, ROWS["countdown_hub"])
    assert "1, 2, 3" in problem.prompt
    assert "<answer>" in problem.prompt
    columns = {name: [value] for name, value in problem.columns.items()}
    assert countdown(completions=["<answer>1 + 2 + 3</answer>"], **columns) == [1.0]
    problem = saved(tmp_path / "b", compose(["recipe=quickstart", "data=ifeval"]).config.data.train, ROWS["ifeval"])
    columns = {name: [value] for name, value in problem.columns.items() if name != "prompt"}
    assert instruction_following(completions=["It."], **columns) == [1.0]


def test_sudoku_files_keep_their_zeros(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("puzzle,solution\n0234341221434321,1234341221434321\n")
    data = compose(
        ["recipe=quickstart", "data=sudoku", f"data.train.name={tmp_path / 'a.csv'}", *NO_EVALUATION]
    ).config.data
    problem = open_source(data.train)[0]
    assert "4x4 Sudoku" in problem.prompt
    assert "0234341221434321" in problem.prompt
    columns = {name: [value] for name, value in problem.columns.items()}
    assert sudoku(completions=["<answer>1234341221434321</answer>"], **columns) == [1.0]


def test_prompt_files_of_image_models(tmp_path: Path) -> None:
    (tmp_path / "ocr.txt").write_text('A sign that says "OPEN".\nA door that says "SHUT".\n')
    (tmp_path / "geneval.jsonl").write_text(
        '{"tag": "counting", "include": [{"class": "cup", "count": 2}], "exclude": [{"class": "cup", "count": 3}], '
        '"prompt": "two cups"}\n{"tag": "single_object", "include": [{"class": "cup", "count": 1}], "prompt": "cup"}\n'
    )
    common = ["recipe=quickstart_image", "data.train.image=null"]
    ocr = compose([*common, "data=ocr", f"data.train.args.data_files.train={tmp_path / 'ocr.txt'}"]).config.data
    assert [problem.prompt for problem in open_source(ocr.train)][1] == 'A door that says "SHUT".'
    geneval = compose(
        [*common, "data=geneval", f"data.train.name={tmp_path / 'geneval.jsonl'}", *NO_EVALUATION]
    ).config.data
    (bad,) = check_source(geneval.train, answers=False).bad
    assert (bad.row, bad.line, bad.column) == (1, 2, "exclude")
    drawbench = compose([*common, "data=drawbench", "data.train.name=prompts.jsonl"]).config.data
    assert drawbench.evaluation is not None
    row = {"Prompts": "A red colored car.", "Category": "Colors"}
    assert saved(tmp_path / "drawbench", drawbench.evaluation, row).prompt == "A red colored car."


def test_pairs_of_pictures_and_a_broken_picture(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    one = '{"caption": "%s", "chosen": %s, "rejected": "%s.png"}'
    rows = [one % each for each in (("a", '"good.png"', "good"), ("b", '"good.png"', "bad"), ("c", "null", "good"))]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    overrides = [
        "recipe=quickstart_image",
        "data=pick_a_pic",
        f"data.train.name={tmp_path / 'pairs.jsonl'}",
        *NO_EVALUATION,
    ]
    found = check_source(compose(overrides).config.data.train, answers=True)
    assert [(row.row, row.column) for row in found.bad] == [(1, "rejected"), (2, "chosen")]
    assert found.lengths["picture, pixels wide"] == [6]

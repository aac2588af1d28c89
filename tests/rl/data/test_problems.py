"""Every kind of source opens to the same thing, and every unusable one says what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from configs.compose import compose
from configs.schema import DataOptions, SourceKind, SourceOptions
from rewards.images.digits import digit_probability
from rewards.mathematics.answer import math
from rewards.reasoning import reasoning_gym
from rl.data.problems import Mixture, Problems, open_source, open_training
from rl.data.rows import DataError, reasoning_gym_rows, scene_rows
from rl.data.tickets import TicketKind
from rl.driver.train import planned

ROWS = [
    {"prompt": "one", "answer": "007", "tests": {"inputs": [[1, 2], [3]], "name": None}},
    {"prompt": "two\nlines", "answer": "1.50", "tests": {"inputs": [], "name": "x"}},
    {"prompt": "drei ü", "answer": "", "tests": {"inputs": [[4]], "name": "y"}},
]


def file_source(path: Path, **options: object) -> SourceOptions:
    return SourceOptions(kind=SourceKind.file, name=str(path), **options)  # type: ignore[arg-type]


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "options", [SourceOptions(name="chain_sum", size=2), SourceOptions(SourceKind.scenes, "s", size=2)]
)
def test_a_loop_over_rows_that_are_computed_ends(options: SourceOptions) -> None:
    rows = reasoning_gym_rows(options) if options.kind is SourceKind.reasoning_gym else scene_rows(options)
    assert [row for row, _ in zip(rows, range(3), strict=False)] == [rows[0], rows[1]]


def test_jsonl_json_parquet_and_saved_datasets_hold_the_same_nested_rows(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "dict")
    sources = [file_source(tmp_path / name) for name in ("a.jsonl", "a.json", "a.parquet")]
    sources += [SourceOptions(kind=SourceKind.dataset, name=str(tmp_path / name)) for name in ("saved", "dict")]
    opened = [open_source(options) for options in sources]
    for problems in opened:
        assert [problems[i].columns for i in range(len(problems))] == ROWS
        assert [problem.prompt for problem in problems] == [row["prompt"] for row in ROWS]
    assert len({problems.fingerprint() for problems in opened}) == 1


def test_load_dataset_opens_a_folder_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    options = SourceOptions(
        kind=SourceKind.dataset,
        name="json",
        args={"data_files": str(tmp_path / "a.jsonl"), "cache_dir": str(tmp_path / "cache")},
    )
    assert open_source(options)[1].columns["answer"] == "1.50"


def test_csv_cells_stay_as_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('\ufeffprompt,answer\n"a, ""b""\nc",007\n\nd,1.50\n', encoding="utf-8")
    problems = open_source(file_source(tmp_path / "a.csv"))
    assert [problem.columns for problem in problems] == [
        {"prompt": 'a, "b"\nc', "answer": "007"},
        {"prompt": "d", "answer": "1.50"},
    ]


def test_reasoning_gym_entry_is_what_its_verifier_wants() -> None:
    import reasoning_gym

    options = SourceOptions(
        name="chain_sum", size=5, seed=3, args={"max_terms": 3}, prompt="Q: {{ question }}", response="{{ answer }}"
    )
    problems = open_source(options)
    problem = problems[4]
    assert len(problems) == 5
    assert problem.id == "chain_sum/4"
    assert problem.prompt == "Q: " + problem.columns["question"]
    assert problem.responses == (problem.columns["answer"],)
    verifier = reasoning_gym.get_score_answer_fn("chain_sum")
    assert verifier(problem.columns["answer"], problem.columns["entry"]) == 1.0
    assert verifier(problem.columns["answer"] + "1", problem.columns["entry"]) < 1.0


def test_access_does_not_depend_on_order() -> None:
    options = SourceOptions(name="chain_sum", size=4, seed=3, prompt="{{ question }}")
    forward = [open_source(options)[i].prompt for i in (0, 1, 2, 3)]
    problems = open_source(options)
    assert [problems[i].prompt for i in (3, 1, 0, 2)] == [forward[i] for i in (3, 1, 0, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "chain_summ", "size": 3}, "nearest names: .*chain_sum"),
        ({"name": "chain_sum"}, "size"),
        ({"name": "chain_sum", "size": 0}, "at least one"),
        ({"name": "chain_sum", "size": 3, "args": {"terms": 1}}, "it knows .*max_terms"),
        ({"name": "chain_sum", "size": 3, "args": {"min_terms": 9, "max_terms": 2}}, "refuses"),
        (
            {"name": "chain_sum", "size": 3, "prompt": "{{ prompt }}"},
            "'prompt' is undefined.*columns are question, answer",
        ),
        ({"name": "chain_sum", "size": 3, "prompt": "{{ metadata.nothing }}"}, "nothing"),
        ({"name": "chain_sum", "size": 3, "prompt": "{{ range }}"}, "'range' is undefined"),
        ({"name": "chain_sum", "size": 3, "prompt": "{{ question"}, "does not parse"),
        ({"name": "chain_sum", "size": 3, "prompt": " {# nothing #}\n"}, "chain_sum/0 has an empty prompt"),
        ({"name": "chain_sum", "size": 3, "prompt": "{{ question.__class__.__mro__ }}"}, "unsafe|__class__"),
        ({"name": "chain_sum", "size": 3, "prompt": "{{ metadata.update({}) }}"}, "unsafe|not safely callable"),
    ],
)
def test_unusable_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(SourceOptions(**options))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"prompt": "a"}\n\n{"prompt": \n', "a.jsonl, line 3: not JSON"),
        ("a.jsonl", '{"prompt": "a"}\n[1]\n', "a.jsonl, line 2: .*not list"),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": "\xff"}\n', "a.jsonl, line 2"),
        ("a.jsonl", "\n", "has no rows"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": "a", "prompt": "b"}\n', "line 2: has 'prompt' more than once"),
        ("a.jsonl", '{"prompt": "a", "n": {"x": 1, "x": 2}}\n', "line 1: has 'x' more than once"),
        ("a.jsonl", '{"prompt": "a", "n": NaN}\n', "line 1: has the value NaN, which JSON does not know: write null"),
        ("a.json", '[{"prompt": "a", "prompt": "b"}]', "a.json: a row has 'prompt' more than once"),
        ("a.json", '[{"prompt": "a", "n": -Infinity}]', "a.json: a row has the value -Infinity"),
        ("a.json", '[{"prompt": "a"},\n{"prompt" 1}]', "a.json, line 2"),
        ("a.json", '{"prompt": "a"}', "must be a list"),
        ("a.json", '[{"prompt": "a"}, 3]', "row 1.*not int"),
        ("a.json", "[]", "has no rows"),
        ("a.csv", "prompt,answer\na,1\nb\n", "line 3: 1 cells for 2 columns"),
        ("a.csv", 'prompt\n"a\n', "not CSV"),
        ("a.csv", "prompt,prompt\na,b\n", "same name"),
        ("a.csv", "prompt\n", "has no rows"),
        ("a.csv", b"prompt\n\xff\n", "cannot read .*a.csv"),
        ("a.parquet", "not parquet at all", "not a Parquet file"),
        ("a.txt", "x", "extension; use one of .jsonl"),
        ("a.jsonl", '{"prompt": null}\n', "a.jsonl/0 .*null"),
        (
            "a.jsonl",
            '{"prompt": "a \\ud83d b"}\n',
            "a.jsonl/0 has half a character in it, '.ud83d' at place 2",
        ),
        ("a.jsonl", '{"prompt": [{"role": "user", "content": "\\udc00"}]}\n', "the prompt of a.jsonl/0 has half a"),
    ],
)
def test_unreadable_files_name_the_place(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=message):
        open_source(file_source(tmp_path / name))


@pytest.mark.parametrize(("response", "message"), [("", "is empty"), (" ", "is empty"), ("\ud83d", "has half a char")])
def test_a_demonstration_of_nothing_is_refused(tmp_path: Path, response: str, message: str) -> None:
    """As an empty cell of a table is; of a pair it is what a policy wrote that stopped at once."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "a", "response": response, "worse": ""}) + "\n")
    with pytest.raises(DataError, match=rf"the response of a.jsonl/0 {message}"):
        open_source(replace(file_source(path), response="{{ response }}"))
    pair = replace(file_source(path), chosen="{{ prompt }}", rejected="{{ worse }}")
    assert open_source(pair)[0].responses == ("a", "")


def test_missing_things_are_named(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.json", "a.csv", "a.parquet"):
        with pytest.raises(DataError, match=f"cannot read .*{name}"):
            open_source(file_source(tmp_path / name))
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "dict")
    with pytest.raises(DataError, match="no split 'test'; it has train"):
        open_source(SourceOptions(kind=SourceKind.dataset, name=str(tmp_path / "dict"), split="test"))


def test_a_later_row_that_does_not_fit_is_named_at_access(tmp_path: Path) -> None:
    problems = open_source(file_source(write_jsonl(tmp_path / "a.jsonl", [{"prompt": "a"}, {"question": "b"}])))
    with pytest.raises(DataError, match=r"a.jsonl/1 .*'prompt' is undefined.*columns are question"):
        problems[1]


def test_size_takes_the_first_rows_and_never_more_than_there_are(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    problems = open_source(file_source(path, size=2))
    assert [problem.prompt for problem in problems] == ["one", "two\nlines"]
    with pytest.raises(IndexError):
        problems[2]
    with pytest.raises(IndexError):
        problems[-1]
    for size in (0, 4):
        with pytest.raises(DataError, match="3 rows: choose 1 to 3"):
            open_source(file_source(path, size=size))


def test_options_without_meaning_are_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(DataError, match="no meaning for a file"):
        open_source(file_source(path, args={"delimiter": ";"}))


def test_fingerprint_sees_rows_order_size_and_templates_but_not_the_place(tmp_path: Path) -> None:
    base = open_source(file_source(write_jsonl(tmp_path / "a.jsonl", ROWS))).fingerprint()
    (tmp_path / "moved").mkdir()
    reordered_keys = [dict(reversed(row.items())) for row in ROWS]
    assert open_source(file_source(write_jsonl(tmp_path / "moved/b.jsonl", reordered_keys))).fingerprint() == base
    changed = [*ROWS[:2], {**ROWS[2], "answer": "9"}]
    different = {
        open_source(file_source(write_jsonl(tmp_path / "c.jsonl", changed))).fingerprint(),
        open_source(file_source(write_jsonl(tmp_path / "d.jsonl", ROWS[::-1]))).fingerprint(),
        open_source(file_source(tmp_path / "a.jsonl", size=2)).fingerprint(),
        open_source(file_source(tmp_path / "a.jsonl", prompt="{{ prompt }}!")).fingerprint(),
        open_source(file_source(tmp_path / "a.jsonl", response="{{ answer }}")).fingerprint(),
    }
    assert len(different) == 5
    assert base not in different


def test_fingerprint_costs_the_same_for_a_million_rows_and_reads_the_last() -> None:
    class Rows(Sequence):
        read: ClassVar[list[int]] = []

        def __len__(self) -> int:
            return 1_000_000

        def __getitem__(self, index: int) -> dict:  # type: ignore[override]
            self.read.append(index)
            return {"prompt": str(index)}

    Problems(Rows(), SourceOptions(name="many"), "many").fingerprint()
    assert len(Rows.read) <= 1 + 256
    assert max(Rows.read) == 999_999


def test_fingerprint_of_arrays_and_images_is_of_their_contents(tmp_path: Path) -> None:
    from PIL import Image

    def fingerprint(pixel: int) -> str:
        pixels = np.zeros((64, 64), dtype=np.uint8)
        pixels[32, 32] = pixel
        rows = datasets.Dataset.from_list([{"prompt": "a", "picture": Image.fromarray(pixels)}])
        rows.save_to_disk(tmp_path / str(pixel))
        return open_source(SourceOptions(kind=SourceKind.dataset, name=str(tmp_path / str(pixel)))).fingerprint()

    assert fingerprint(1) == fingerprint(1)
    assert fingerprint(1) != fingerprint(2)


def test_fingerprint_is_the_same_in_another_process() -> None:
    program = (
        "from configs.schema import SourceOptions; from rl.data.problems import Problems, open_source;"
        "print(open_source(SourceOptions(name='chain_sum', size=40, prompt='{{ question }}')).fingerprint())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert runs[0] == runs[1] != ""


@pytest.fixture
def mixed(tmp_path: Path) -> DataOptions:
    """Three problems with reasoning, and two of four without."""
    reasoned = write_jsonl(tmp_path / "a.jsonl", [{"q": f"a{i}", "why": "so", "answer": str(i)} for i in range(3)])
    plain = write_jsonl(tmp_path / "b.jsonl", [{"prompt": f"b{i}", "response": f"r{i}"} for i in range(4)])
    thinking = "<think>{{ why }}</think>{{ answer }}"
    return DataOptions(
        train=file_source(reasoned, prompt="{{ q }}", response=thinking),
        also={"plain": file_source(plain, response="{{ response }}", size=2)},
    )


def test_a_mixture_has_the_problems_of_all_its_sources_with_their_own_templates(mixed: DataOptions) -> None:
    problems = open_training(mixed)
    found = [(problem.prompt, *problem.responses) for problem in problems]
    reasoned = [(f"a{i}", f"<think>so</think>{i}") for i in range(3)]
    assert found == [*reasoned, ("b0", "r0"), ("b1", "r1")]
    assert len(problems) == 5
    assert problems.spread() == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError, match="problems 0 to 4, not 5"):
        problems[5]


def test_the_fingerprint_of_a_mixture_notices_each_source(mixed: DataOptions) -> None:
    problems = open_training(mixed)
    mixed.also["plain"].size = 3
    longer = open_training(mixed)
    assert problems.fingerprint() != longer.fingerprint()
    assert Mixture([problems]).fingerprint() != problems.fingerprint()


@pytest.mark.parametrize("indices", [[2, 3], [3, 2], [3, 4]])
def test_rewards_get_none_for_a_column_that_another_source_of_the_mixture_has(
    mixed: DataOptions, indices: list[int]
) -> None:
    """Whichever problems a ticket holds."""
    from rl.data.prompts import PromptSource

    source = PromptSource(open_training(mixed), encoder=None)  # type: ignore[arg-type]  # encodes nothing here
    _, columns = source.columns(indices, samples=2)
    known = {2: ("2", None), 3: (None, "r0"), 4: (None, "r1")}
    assert columns["answer"] == [known[index][0] for index in indices for _ in range(2)]
    assert columns["response"] == [known[index][1] for index in indices for _ in range(2)]


def test_the_verifiers_leave_problems_of_another_source_to_its_own(mixed: DataOptions) -> None:
    completions = ["The answer is 2", "None"]
    assert math(completions, answer=["2", None]) == [1.0, None]
    sudoku = open_source(SourceOptions(name="chain_sum", size=1, prompt="{{ question }}"))[0]
    assert reasoning_gym([sudoku.columns["answer"], "x"], entry=[sudoku.columns["entry"], None]) == [1.0, None]
    pictures = [np.zeros((32, 32, 3), np.uint8)] * 2
    assert [value is None for value in digit_probability(pictures, digit=[3, None])] == [False, True]


def test_one_source_is_no_mixture(mixed: DataOptions) -> None:
    assert isinstance(open_training(DataOptions(train=mixed.train)), Problems)


FILES = ("jsonl", "captions", "mixed_cot", "pairs_jsonl", "image_pairs_jsonl", "mini_sudoku_pairs", "scene_pairs")


@pytest.mark.parametrize("group", FILES)
def test_reinforcement_learning_needs_no_answers_in_files(tmp_path: Path, group: str) -> None:
    """They had to have the column `response`, which nothing but supervised training reads."""
    rows = [{"prompt": "one", "answer": "1"}, {"prompt": "two", "answer": "2"}]
    name = write_jsonl(tmp_path / "a.jsonl", rows)
    also = ["data.also.plain.name=a.jsonl"] if group == "mixed_cot" else []
    config = compose(["recipe=quickstart", f"data={group}", f"data.train.name={name}", *also, "data.evaluation.name=b"])
    for source in config.config.data.training().values():
        problems = open_source(replace(source, name=str(name)), answers=False)
        assert [(p.prompt, p.responses, p.images) for p in problems] == [("one", (), ()), ("two", (), ())]
    if config.config.data.train.kind is SourceKind.file and group != "captions":
        with pytest.raises(DataError, match=r"response|reasoning|chosen"):
            open_source(config.config.data.train)


def test_the_fingerprint_is_the_same_whether_answers_are_read_or_not(tmp_path: Path) -> None:
    rows = [{"prompt": "one", "response": "1"}]
    options = file_source(write_jsonl(tmp_path / "a.jsonl", rows), response="{{ response }}")
    assert open_source(options).fingerprint() == open_source(options, answers=False).fingerprint()


def test_a_plan_of_reinforcement_learning_reads_no_answers(tmp_path: Path) -> None:
    name = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "1 + 1", "answer": "2"}] * 4)
    words = ["recipe=quickstart", "data=jsonl", f"data.train.name={name}", "data.evaluation=null"]
    words += ["evaluation.every=0", "reward=math"]
    plan = planned(compose([*words, "rollout.prompts_per_update=4", "rollout.prompts_per_ticket=4"]))
    assert plan.sources[TicketKind.train].problems[0].responses == ()
    with pytest.raises(DataError, match="response"):
        planned(compose([*words, "algorithm=sft"]))

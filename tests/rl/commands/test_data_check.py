"""`denoiserl data check` names each bad row of each source, and says what the texts are like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.rl.support.command_line import CommandLine


def write(path: Path, *rows: Any) -> Path:
    """A text is written as it is."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def files(train: Path, held_out: Path) -> list[str]:
    return [f"data.train.name={train}", f"data.evaluation.name={held_out}"]


def checked(denoiserl: CommandLine, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    finished = denoiserl("data", "check", *arguments, "--json")
    assert "Traceback" not in finished.output
    return finished.code, json.loads(finished.output)


def test_each_bad_row_is_named_with_its_number_its_line_and_its_column(denoiserl: CommandLine, tmp_path: Path) -> None:
    train = write(
        tmp_path / "a.jsonl",
        {"prompt": "1 + 1 =", "answer": "2"},
        {"prompt": None, "answer": "2"},
        '{"prompt": "no end',
        {"prompt": "  ", "answer": "2"},
        "",
        {"prompt": "2 + 2 ="},
        {"prompt": "3", "answer": "3", "more": 1},
        {"prompt": ["a"], "answer": "2"},
        '{"prompt": "a", "prompt": "b", "answer": ""}',
        {"prompt": "half \ud83d", "answer": "2"},
        {"prompt": "Last", "answer": "2"},
    )
    held_out = write(tmp_path / "b.jsonl", {"prompt": "1  +  1 = ", "answer": "2"}, {"prompt": "LAST", "answer": "1"})
    code, found = checked(denoiserl, "data=jsonl", "data.train.response=null", *files(train, held_out))
    bad = found["sources"]["data.train"]["bad"]
    assert code == 1
    assert [(row["row"], row["line"], row["column"]) for row in bad] == [
        (None, 3, None), (None, 9, None), (1, 2, "prompt"), (2, 4, "prompt"), (3, 6, "answer"), (4, 7, "more"),
        (5, 8, "prompt"), (6, 10, "prompt"),
    ]  # fmt: skip
    for reason, row in zip(
        ["not JSON", "more than once", "null", "empty prompt", "lacks", "has", "a list", "half a character"],
        bad,
        strict=True,
    ):
        assert reason in row["why"]
    assert found["sources"]["data.evaluation"]["bad"] == []
    assert found["overlap"] == {"data.train": [{"evaluation": 0, "training": 0}, {"evaluation": 1, "training": 7}]}
    said = denoiserl("data", "check", "data=jsonl", "data.train.response=null", *files(train, held_out)).output
    assert "row 3, line 6, column answer: 'answer' is a column that the row lacks" in said
    assert "2 of 2 held-out problems have a prompt of data.train: 0 is 0, 1 is 7" in said


def test_lengths_repetitions_and_a_clean_exit(denoiserl: CommandLine, tmp_path: Path) -> None:
    rows = [{"prompt": "a b"}, {"prompt": "A  B"}, {"prompt": "a b"}, {"prompt": "cc"}]
    train, held_out = write(tmp_path / "a.jsonl", *rows), write(tmp_path / "b.jsonl", {"prompt": "d"})
    code, found = checked(denoiserl, "recipe=quickstart", "data=jsonl", *files(train, held_out))
    source = found["sources"]["data.train"]
    assert (code, source["bad"], source["rows"], source["looked_at"]) == (0, [], 4, 4)
    assert source["repeated"] == [{"row": 1, "as": 0}, {"row": 2, "as": 0}]
    assert source["equal"] == 1
    assert source["lengths"]["prompt, characters"] == {"least": 2, "median": 3, "95 %": 4, "most": 4}
    assert source["lengths"]["prompt, tokens"]["most"] >= 3
    assert found["overlap"] == {"data.train": []}
    said = denoiserl("data", "check", "recipe=quickstart", "data=jsonl", *files(train, held_out)).output
    assert "2 rows repeat an earlier prompt, 1 of them in every column: 1 as 0, 2 as 0" in said


def test_prompts_that_are_too_long_are_bad_or_left_out_as_the_run_would_have_it(
    denoiserl: CommandLine, tmp_path: Path
) -> None:
    train = write(tmp_path / "a.jsonl", {"prompt": "1"}, {"prompt": "1 2 3 4 " * 40})
    common = ["recipe=quickstart", "data=jsonl", *files(train, train), "data.max_prompt_tokens=30",
              "data.evaluation=null", "evaluation.every=0"]  # fmt: skip
    code, found = checked(denoiserl, *common)
    source = found["sources"]["data.train"]
    assert code == 1
    (bad,) = source["bad"]
    assert (bad["row"], bad["column"]) == (1, "prompt")
    assert "at most 30" in bad["why"]
    assert source["lengths"]["prompt, tokens"]["most"] > 30
    code, found = checked(denoiserl, *common, "data.too_long=leave_out")
    assert (code, found["sources"]["data.train"]["left_out"]) == (0, [1])


def test_demonstrations_are_looked_at_where_they_are_trained_on(denoiserl: CommandLine, tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", {"prompt": "1", "response": "2"}, {"prompt": "2", "response": ""})
    common = ["recipe=quickstart", "data=jsonl", *files(train, train), "data.evaluation=null", "evaluation.every=0"]
    assert checked(denoiserl, *common)[0] == 0
    code, found = checked(denoiserl, *common, "algorithm=sft")
    assert code == 1
    ((row, column),) = [(each["row"], each["column"]) for each in found["sources"]["data.train"]["bad"]]
    assert (row, column) == (1, "response")
    assert "response, tokens" in found["sources"]["data.train"]["lengths"]


def test_what_no_reward_sees_may_have_columns_of_its_own(denoiserl: CommandLine, tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", {"prompt": "1", "response": "2"}, {"prompt": "2", "response": "3", "more": 1})
    common = ["recipe=quickstart", "data=jsonl", *files(train, train), "algorithm=sft"]
    code, found = checked(denoiserl, *common)
    assert code == 1
    assert found["sources"]["data.train"]["bad"] == []
    assert [row["column"] for row in found["sources"]["data.evaluation"]["bad"]] == ["more"]
    assert any("data.evaluation has the problems of data.train in it" in remark for remark in found["remarks"])


def test_a_source_that_cannot_be_opened_is_one_bad_source(denoiserl: CommandLine, tmp_path: Path) -> None:
    good = write(tmp_path / "a.jsonl", {"prompt": "1"})
    code, found = checked(denoiserl, "data=jsonl", *files(tmp_path / "none.jsonl", good))
    ((row, why),) = [(each["row"], each["why"]) for each in found["sources"]["data.train"]["bad"]]
    assert (code, row) == (1, None)
    assert "cannot read" in why
    assert "coin_flip" in str(checked(denoiserl, "data=chain_sum", "data.train.name=coin_flip", "--rows", "2"))


def test_generated_sources_and_a_part_of_the_rows(denoiserl: CommandLine) -> None:
    code, found = checked(denoiserl, "data=chain_sum", "--rows", "5", "data.train.size=100")
    assert (code, found["sources"]["data.train"]["looked_at"], found["sources"]["data.train"]["rows"]) == (0, 5, 100)
    said = denoiserl("data", "check", "data=chain_sum", "--rows", "5", "data.train.size=100").output
    assert "have a prompt of data.train (5 of its 100 rows compared)" in said
    assert "in characters" in found["remarks"][0]


def test_rewards_name_the_rows_that_they_cannot_score(denoiserl: CommandLine, tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        {"prompt": "b", "instruction_id_list": ["punctuation:no_commas"], "kwargs": [{}]},
        {"prompt": "c", "instruction_id_list": None, "kwargs": None},
    ]
    train = write(tmp_path / "a.jsonl", *rows)
    code, found = checked(
        denoiserl, "recipe=quickstart", "data=jsonl", *files(train, train), "data.evaluation=null",
        "evaluation.every=0", "reward=instruction_following", "--rewards",
    )  # fmt: skip
    bad = found["sources"]["data.train"]["bad"]
    assert code == 1
    assert [row["row"] for row in bad] == [1, 2]
    assert "no instruction 'punctuation:no_commas'" in bad[0]["why"]
    assert "not_applicable" in bad[1]["why"]

"""Mistakes in the rows of a data set: what is missing, broken, of another kind, or says something else."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.text.tokenizer import load_tokenizer
from tests.benchmarks.mistakes.judge import Mistake
from tests.benchmarks.mistakes.reward_functions import honest
from tests.benchmarks.mistakes.truth import rewards_are, same_run, samples_of
from tests.benchmarks.mistakes.workshop import REWARDS, ROWS, Ended, Workshop

Row = dict[str, Any]
ANSWERED = ["algorithm=sft", "data.train.response='{{ answer }}'"]
PAIRS = [
    "algorithm=dpo",
    "data.train.chosen='{{ answer }}'",
    "data.train.rejected='{{ worse }}'",
    "rollout.group_size=2",
]


def good() -> list[Row]:
    return [{**row, "worse": str(row["number"])} for row in ROWS]


def in_a_row(
    workshop: Workshop,
    what: str,
    change: Callable[[list[Row]], Any],
    cause: tuple[str, ...],
    *overrides: str,
    right: Callable[[Ended], str] | None = None,
    suffix: str = "jsonl",
) -> Mistake:
    """A run on the good rows after `change`."""
    folder = workshop.place()
    rows = good()
    changed = change(rows)
    file = folder / f"rows.{suffix}"
    text = "".join(json.dumps(row) + "\n" for row in rows) if suffix == "jsonl" else json.dumps(rows)
    file.write_text(changed if isinstance(changed, str) else text)
    return Mistake(what, lambda: workshop.train(workshop.text(folder, *overrides, rows=file)), cause, right)


NO_TEXT: tuple[tuple[str, Any], ...] = (
    ("null", None),
    ("a number", 7),
    ("a fraction", 0.5),
    ("true", True),
    ("a list", ["one", "two"]),
    ("a mapping", {"text": "What is 1 + 1?"}),
    ("an empty text", ""),
    ("spaces", " \n\t "),
    ("messages without a role", [{"content": "What is 1 + 1?"}]),
    ("messages of ShareGPT", [{"from": "human", "value": "What is 1 + 1?"}]),
    ("messages of a wrong role", [{"role": "usr", "content": "What is 1 + 1?"}]),
    ("messages without content", [{"role": "user"}]),
    ("messages with a picture", [{"role": "user", "content": [{"type": "image", "url": "x.png"}]}]),
    ("messages that end with the system's", [{"role": "system", "content": "Be brief."}]),
    ("an empty conversation", []),
    ("half a surrogate", "What is \ud800 + 1?"),
    ("a prompt beyond the limit", "1 " * 90),
)


def no_text(workshop: Workshop, rng: random.Random) -> Mistake:
    index, (what, value) = rng.randrange(len(ROWS)), rng.choice(NO_TEXT)

    def change(rows: list[Row]) -> None:
        rows[index]["prompt"] = value

    return in_a_row(workshop, f"row {index} has as its prompt {what}", change, (f"rows.jsonl/{index}",))


def a_column_is_missing(workshop: Workshop, rng: random.Random) -> Mistake:
    index, column = rng.randrange(len(ROWS)), rng.choice(["prompt", "answer", "number"])
    misspelt = rng.choice([None, column.title(), column + "s"])

    def change(rows: list[Row]) -> None:
        value = rows[index].pop(column)
        if misspelt is not None:
            rows[index][misspelt] = value

    what = f"row {index} has no column {column}" + (f", but {misspelt}" if misspelt else "")
    suffix = rng.choice(["jsonl", "json"])
    return in_a_row(workshop, what, change, (f"rows.{suffix}/", column), suffix=suffix)


TORN: tuple[tuple[str, Callable[[list[str], int], list[str]], tuple[str, ...]], ...] = (
    ("is torn", lambda lines, at: [*lines[:at], lines[at][: len(lines[at]) // 2], *lines[at + 1 :]], ("not JSON",)),
    ("is torn, and the file ends there", lambda lines, at: [*lines[:at], lines[at][:9]], ("not JSON",)),
    ("is a list", lambda lines, at: [*lines[:at], "[1, 2]", *lines[at + 1 :]], ("object",)),
    ("is a number", lambda lines, at: [*lines[:at], "3", *lines[at + 1 :]], ("object",)),
    ("is Python", lambda lines, at: [*lines[:at], "{'prompt': 'x', 'answer': '1'}", *lines[at + 1 :]], ("not JSON",)),
    ("has another behind it", lambda lines, at: [*lines[:at], lines[at] * 2, *lines[at + 1 :]], ("not JSON",)),
    (
        "says its prompt twice",
        lambda lines, at: [*lines[:at], lines[at].replace('"answer"', '"prompt"'), *lines[at + 1 :]],
        ("prompt",),
    ),
    (
        "has a number that is none",
        lambda lines, at: [*lines[:at], lines[at].replace(f'"number": {at}', '"number": NaN'), *lines[at + 1 :]],
        ("NaN",),
    ),
    ("has a comma too many", lambda lines, at: [*lines[:at], lines[at][:-1] + ",}", *lines[at + 1 :]], ("not JSON",)),
)


def a_torn_line(workshop: Workshop, rng: random.Random) -> Mistake:
    at, (what, change, cause) = rng.randrange(len(ROWS)), rng.choice(TORN)

    def torn(rows: list[Row]) -> str:
        return "\n".join(change([json.dumps(row) for row in rows], at)) + "\n"

    return in_a_row(workshop, f"line {at + 1} {what}", torn, (f"line {at + 1}", *cause))


def spelt_like_a_control_token(workshop: Workshop, rng: random.Random) -> Mistake:
    index, place = rng.randrange(len(ROWS)), rng.choice(["begins", "ends", "middle"])
    tokenizer = load_tokenizer(workshop.model())
    token = rng.choice(sorted(token for token in tokenizer.all_special_tokens if token != tokenizer.unk_token))
    text = {"begins": f"{token}What?", "ends": f"What?{token}", "middle": f"What {token} is 1?"}[place]

    def change(rows: list[Row]) -> None:
        rows[index]["prompt"] = text
        del rows[index + 1 :], rows[:index]

    def right(ended: Ended) -> str:
        group = ended.run.trajectories(0)[0]
        template = tokenizer.apply_chat_template(
            [{"role": "user", "content": "What is 1?"}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        special = set(tokenizer.all_special_ids)
        held = [sum(each in special for each in ids) for ids in (group.prompt_ids.tolist(), template)]
        return "" if held[0] == held[1] else f"the prompt has {held[0]} control tokens, the template makes {held[1]}"

    where = f"rows.jsonl/{0}"
    return in_a_row(
        workshop,
        f"a prompt in which the control token {token} {place} stands",
        change,
        (where, token),
        "data.train.size=null",
        "rollout.prompts_per_update=1",
        "rollout.prompts_per_ticket=1",
        right=right if place == "middle" else None,
    )


def conversational_and_plain(workshop: Workshop, rng: random.Random) -> Mistake:
    """The same prompts, some as messages: the same tokens, so the same run to the bit."""
    which = rng.sample(range(len(ROWS)), rng.randrange(1, len(ROWS)))

    def change(rows: list[Row]) -> None:
        for index in which:
            rows[index]["prompt"] = [{"role": "user", "content": rows[index]["prompt"]}]

    def right(ended: Ended) -> str:
        return same_run(ended, workshop.undisturbed()) or rewards_are(ended)

    return in_a_row(workshop, f"rows {sorted(which)} are messages, the others plain text", change, (), right=right)


def duplicates(workshop: Workshop, rng: random.Random) -> Mistake:
    index, times = rng.randrange(len(ROWS)), rng.randrange(2, 5)

    def change(rows: list[Row]) -> None:
        rows += [dict(rows[index]) for _ in range(times)]

    return in_a_row(workshop, f"row {index} is there {times} times more", change, (), right=rewards_are)


def a_column_with_a_taken_name(workshop: Workshop, rng: random.Random) -> Mistake:
    name = rng.choice(["prompts", "completions", "trainer_state", "log_metric", "log_malformed", "rounds", "strict"])

    def change(rows: list[Row]) -> None:
        for row in rows:
            row[name] = 1

    overrides = ["reward.terms.answer.args.strict=1"] if name == "strict" else []
    if name == "rounds":
        overrides.append("reward.terms.answer.function=tokens_per_round")
    return in_a_row(workshop, f"every row has a column {name}", change, (name,), *overrides)


def a_number_that_is_none(workshop: Workshop, rng: random.Random) -> Mistake:
    """In a column that the reward adds: that row's samples have no reward, and no other row's."""
    index, value = rng.randrange(len(ROWS)), rng.choice([None, "seven", [1], "", {"a": 1}])
    folder = workshop.place()
    rows = good()
    rows[index]["number"] = value
    file = workshop.rows(folder, rows)
    given = [f"reward.terms.answer.function={REWARDS}.number_of_the_row", "reward.max_failed_fraction=1.0"]

    def right(ended: Ended) -> str:
        unscored = 0
        for group in ended.run.trajectories(0):
            row = int(group.prompt_id.partition("/")[2])
            unscored += group.group_size * (row == index)
            texts = [text for _, text, _ in samples_of(ended)]
            known = {text: honest(text) for text in texts}
            for text, reward in _of_group(ended, group.prompt_id):
                expected = math.nan if row == index else known[text] + rows[row]["number"]
                if not (math.isclose(reward, expected, rel_tol=1e-6) or (reward != reward and expected != expected)):
                    return f"a sample of row {row} has the reward {reward}, and should have {expected}"
        found = ended.trained.metrics[0]["reward/unscored"]
        return (
            "" if found == unscored else f"{found} samples are counted as unscored, and {unscored} are of the bad row"
        )

    return Mistake(
        f"row {index} has {value!r} in a column of numbers that the reward adds",
        lambda: workshop.train(workshop.text(folder, *given, rows=file)),
        (),
        right,
    )


def _of_group(ended: Ended, prompt_id: str) -> list[tuple[str, float]]:
    table = ended.run.samples(0)
    table = table[table["prompt_id"] == prompt_id]
    return list(zip(table["text"], table["reward"], strict=True))


def a_demonstration(workshop: Workshop, rng: random.Random) -> Mistake:
    index = rng.randrange(len(ROWS))
    what, value = rng.choice(
        [
            ("null", None),
            ("a list", ["4"]),
            ("a number", 4.5),
            ("an empty text", ""),
            ("spaces", "  "),
            ("longer than the limit", "4 " * 40),
            ("closed by a stop token", None),
            ("messages of two", [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
            ("half a surrogate", "4 \ud800"),
        ]
    )
    if what == "closed by a stop token":
        tokenizer = load_tokenizer(workshop.model())
        value = f"4{tokenizer.eos_token}"

    def change(rows: list[Row]) -> None:
        rows[index]["answer"] = value

    return in_a_row(
        workshop, f"the demonstration of row {index} is {what}", change, (f"rows.jsonl/{index}",), *ANSWERED
    )


def a_pair(workshop: Workshop, rng: random.Random) -> Mistake:
    index = rng.randrange(len(ROWS))
    what = rng.choice(["the same twice", "the same but for a space", "null and a text", "a text and messages"])

    def change(rows: list[Row]) -> None:
        row = rows[index]
        row["worse"] = {
            "the same twice": row["answer"],
            "the same but for a space": row["answer"] + " ",
            "null and a text": None,
            "a text and messages": [{"role": "user", "content": row["answer"]}],
        }[what]

    return in_a_row(workshop, f"the pair of row {index} is {what}", change, (f"rows.jsonl/{index}",), *PAIRS)


FILES: tuple[tuple[str, str, bytes, tuple[str, ...]], ...] = (
    ("a CSV with a short line", "rows.csv", b"prompt,answer\na,1\nb\nc,3\n", ("line 3", "1 cells")),
    ("a CSV with a long line", "rows.csv", b"prompt,answer\na,1\nb,2,3\n", ("line 3", "3 cells")),
    ("a CSV with one name twice", "rows.csv", b"prompt,prompt\na,1\n", ("two columns",)),
    ("a CSV with an open quote", "rows.csv", b'prompt,answer\n"a,1\nb,2\n', ("CSV",)),
    ("a CSV without rows", "rows.csv", b"prompt,answer\n", ("no rows",)),
    ("a CSV by semicolons", "rows.csv", b"prompt;answer\na;1\nb;2\n", ("prompt",)),
    ("a CSV in Latin 1", "rows.csv", b"prompt,answer\nna\xefve,1\n", ("rows.csv", "utf-8")),
    ("a CSV with an empty prompt", "rows.csv", b"prompt,answer\na,1\n,2\n", ("rows.csv/1", "empty")),
    ("JSONL in UTF-16", "rows.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\n'.encode("utf-16"), ("line 1",)),
    ("JSONL in Latin 1", "rows.jsonl", b'{"prompt": "na\xefve"}\n', ("line 1",)),
    ("an empty file", "rows.jsonl", b"", ("no rows",)),
    ("empty lines only", "rows.jsonl", b"\n\n \n", ("no rows",)),
    ("one mapping for all rows", "rows.json", b'{"prompt": ["a", "b"]}', ("rows.json", "list")),
    ("a list of texts", "rows.json", b'["a", "b"]', ("row 0",)),
    ("JSON that says its prompt twice", "rows.json", b'[{"prompt": "a", "prompt": "b"}]', ("prompt",)),
    ("JSON in JSONL's clothes", "rows.json", b'{"prompt": "a"}\n{"prompt": "b"}\n', ("not JSON",)),
    ("JSONL in JSON's clothes", "rows.jsonl", b'[{"prompt": "a"},\n {"prompt": "b"}]\n', ("line 1",)),
    ("Parquet that is none", "rows.parquet", b"PAR1 but no more", ("Parquet",)),
    ("a file of an unknown kind", "rows.txt", b"a\nb\n", ("rows.txt", "extension")),
    ("a compressed file", "rows.jsonl", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", ("line 1",)),
)


def a_file(workshop: Workshop, rng: random.Random) -> Mistake:
    what, name, content, cause = rng.choice(FILES)
    folder = workshop.place()
    file = folder / name
    file.write_bytes(content)
    return Mistake(what, lambda: workshop.train(workshop.text(folder, rows=file)), cause)


def no_file(workshop: Workshop, rng: random.Random) -> Mistake:
    folder = workshop.place()
    file = rng.choice([folder / "not_there.jsonl", folder])
    if file == folder:
        (folder / "rows.jsonl").mkdir()
        file = folder / "rows.jsonl"
    return Mistake(
        f"data.train.name={file.name}, which is {'a folder' if file.exists() else 'not there'}",
        lambda: workshop.train(workshop.text(folder, rows=file)),
        (str(file),),
    )


PICTURES: tuple[tuple[str, Callable[[bytes], Any]], ...] = (
    ("torn", lambda png: png[: len(png) // 2]),
    ("no picture", lambda png: b"not a picture"),
    ("empty", lambda png: b""),
    ("not there", lambda png: None),
    ("grey", lambda png: "L"),
    ("transparent", lambda png: "RGBA"),
    ("of another size", lambda png: "size"),
    ("null", lambda png: "null"),
    ("a number", lambda png: "number"),
)


def a_picture(workshop: Workshop, rng: random.Random) -> Mistake:
    """In demonstrations of an image model."""
    index, (what, change) = rng.randrange(3), rng.choice(PICTURES)
    folder = workshop.place()
    rows: list[Row] = []
    for place in range(3):
        _picture(folder / f"{place}.png")
        rows.append({"prompt": "red", "image": f"{place}.png"})
    changed = change((folder / f"{index}.png").read_bytes())
    if isinstance(changed, bytes):
        (folder / f"{index}.png").write_bytes(changed)
    elif changed is None:
        (folder / f"{index}.png").unlink()
    elif changed in ("null", "number"):
        rows[index]["image"] = {"null": None, "number": 7}[changed]
    else:
        _picture(folder / f"{index}.png", *{"L": ("L", 32), "RGBA": ("RGBA", 32), "size": ("RGB", 24)}[changed])
    file = workshop.rows(folder, rows)
    given = ["data=captions", f"data.train.name={file}", "data.train.size=null", "data.train.prompt='{{ prompt }}'"]
    own = ["algorithm=sft", "algorithm.likelihood.kind=elbo", "data.train.image=image"]
    return Mistake(
        f"the picture of row {index} is {what}",
        lambda: workshop.train(workshop.images(folder, *given, *own)),
        (f"{index}",),
    )


def _picture(file: Path, mode: str = "RGB", size: int = 32) -> None:
    from PIL import Image

    Image.new(mode, (size, size)).save(file)


KINDS = (
    no_text,
    no_text,
    a_column_is_missing,
    a_torn_line,
    a_torn_line,
    spelt_like_a_control_token,
    conversational_and_plain,
    duplicates,
    a_column_with_a_taken_name,
    a_number_that_is_none,
    a_demonstration,
    a_pair,
    a_file,
    a_file,
    no_file,
    a_picture,
)

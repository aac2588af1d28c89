"""docs/api.md is run as it stands, and docs/coming_from.md names options that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

import rl
from configs.algorithm_options import AdvantageKind, Denominator, KlEstimator, Ratio
from configs.compose import PACKAGE, options
from configs.fields import type_of, without_none
from configs.schema import Config
from rl.api.registration import Kind
from rl.records.run_folder import RunFolder
from tests.documentation import ROOT, blocks

PAGE_FILE = "docs/api.md"
BY_HAND, PLAIN, RUNS, OWN = blocks(PAGE_FILE, "python")
LINES = 15
"""Of the example that a reader repeats."""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_update_by_hand_is_short_and_moves_the_policy(elsewhere):
    assert len([line for line in BY_HAND.splitlines() if line.strip()]) <= LINES
    names: dict = {}
    exec(BY_HAND, names)
    policy, samples, config = (names[name] for name in ("policy", "samples", "config"))
    moved = rl.log_probs(policy, samples, config).values
    assert not moved.equal(names["replayed"].values)
    after = rl.loss(rl.log_probs(policy, samples, config), advantages=names["worth"], options=config)
    assert float(after) < float(names["objective"])  # the step lowered it


@pytest.mark.parametrize("block", [PLAIN, OWN], ids=["plain arrays", "parts of your own"])
def test_the_other_examples(block, elsewhere):
    exec(block, {"__name__": "__main__"})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_example_of_a_run(elsewhere):
    names: dict = {}
    exec(RUNS, names)
    assert names["same"].updates == 2


def test_the_table_names_the_library():
    text = (ROOT / PAGE_FILE).read_text()
    listed = re.findall(r"^\| `(\w+)[`(]", text.split("## One update")[0], re.MULTILINE)
    assert sorted(listed) == sorted(rl.__all__)
    first_cells = re.findall(r"^\| (`.*?) \|", text.split("## Parts of your own")[1], re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(first_cells)) == list(get_args(Kind))


def test_the_table_of_an_open_run_names_what_it_has():
    rows = (ROOT / PAGE_FILE).read_text().split("| of an open run | |")[1].split("\n\n")[0]
    names = re.findall(r"`(\w+)", "".join(row.split("|")[1] for row in rows.splitlines() if row.startswith("| `")))
    assert len(names) > 15
    public = {name for name in vars(RunFolder) if not name.startswith("_")} - {"path", "name", "tokenizer"}
    assert set(names) == public


FOREIGN = ROOT / "docs/coming_from.md"
SECTIONS = tuple(f"{name}." for name in Config.__dataclass_fields__)


def ours() -> list[str]:
    """What stands in code in the right columns."""
    rows = [line.split(" | ") for line in FOREIGN.read_text().splitlines() if line.startswith("| ")]
    return [code for _, *right in rows for cell in right for code in re.findall(r"`([^`]+)`", cell)]


def test_every_option_of_the_tables_exists():
    named = [code.replace("TERM", "answer").partition("=") for code in ours() if code.startswith(SECTIONS)]
    assert len(named) > 60
    for path, _, value in named:
        hint = without_none(type_of(path))
        if value and isinstance(hint, type) and hasattr(hint, "__members__"):
            assert value in hint.__members__, (path, value)
    with pytest.raises(ValueError, match="does not exist"):  # the control
        type_of("algorithm.clip_hihg")


def test_every_algorithm_and_function_of_the_tables_exists():
    chosen = [code.removeprefix("algorithm=") for code in ours() if code.startswith("algorithm=")]
    assert len(chosen) >= 6
    assert set(chosen) <= set(options("algorithm", [PACKAGE]))
    functions = [match[1] for code in ours() if (match := re.match(r"rl\.(\w+)", code))]
    assert set(functions) <= set(rl.__all__)


def test_values_that_the_tables_translate_to_exist():
    values = {"algorithm.denominator": Denominator, "algorithm.ratio": Ratio, "algorithm.advantage": AdvantageKind}
    values["algorithm.kl.estimator"] = KlEstimator
    found = 0
    for line in FOREIGN.read_text().splitlines():
        for option, kind in values.items():
            if (place := line.find(f"`{option}`: ")) < 0:
                continue
            said = line[place:].split(";")[0]
            for value in re.findall(r"(?:is|are) `(\w+)`", said):
                assert value in kind.__members__, (option, value)
                found += 1
    assert found > 10

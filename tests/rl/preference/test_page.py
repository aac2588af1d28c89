"""docs/preference_models.md: its commands are possible, its table has the options, its messages are the code's."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import fields
from enum import Enum
from pathlib import Path

import pytest
import yaml
from omegaconf import MISSING, OmegaConf

from configs.compose import compose, options_of
from rewards.model_folder import RECORD
from rewards.options import RewardOptions
from rewards.registry import resolve
from rl.data.rows import DataError
from rl.preference.options import PreferenceOptions, check
from rl.preference.pairs import LEAST_HELD_OUT, SHOWN, BadRow, refuse
from rl.preference.training import PICTURE, REPORT
from tests.benchmarks.overoptimisation import verdict
from tests.documentation import ROOT, blocks, commands

PAGE = "docs/preference_models.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
COMMANDS = [shlex.split(command)[1:] for command in commands(PAGE) if command.startswith("denoiserl ")]


def test_there_are_commands_of_each_kind() -> None:
    assert [name for name, *_ in COMMANDS] == ["pairs", "train-reward", "train"] * 2 + ["train-reward"]


@pytest.mark.parametrize("words", [words for name, *words in COMMANDS if name == "train-reward"])
def test_models_are_possible(words: list[str]) -> None:
    check(options_of(PreferenceOptions, words))


@pytest.mark.parametrize("words", [words for name, *words in COMMANDS if name != "train-reward"])
def test_configurations_compose(words: list[str]) -> None:
    for option in ("--output", "--gap"):
        if option in words:
            place = words.index(option)
            del words[place : place + 2]
    compose(words)


def test_the_table_has_every_option_with_its_default() -> None:
    table = TEXT.partition("## Options")[2].partition("\n## ")[0]
    rows = {name: value.strip(" `") for name, value in re.findall(r"^\| `(\w+)` \|(.*?)\|", table, re.M)}
    assert list(rows) == [each.name for each in fields(PreferenceOptions)]
    for each in fields(PreferenceOptions):
        shown = rows[each.name].replace("1e-5", "1.0e-5")
        value = each.default.value if isinstance(each.default, Enum) else each.default
        assert shown == "" if value == MISSING else yaml.safe_load(shown) == value, each.name


def test_what_is_written_has_these_names() -> None:
    for name in (REPORT, PICTURE, RECORD):
        assert f"| `{name}` |" in TEXT
    assert f"fewer\nthan {LEAST_HELD_OUT} prompts" in TEXT
    assert f"up to {SHOWN}," in TEXT


def test_bad_rows_are_named_so() -> None:
    rows = [
        BadRow(17, "rejected", "it is the same as `chosen`, so neither is better"),
        BadRow(402, "chosen", "it is null"),
    ]
    with pytest.raises(DataError) as caught:
        refuse(rows, Path("pairs.jsonl"), 800)
    assert str(caught.value) in TEXT


def test_the_reward_is_one() -> None:
    (text,) = blocks(PAGE, "yaml")
    reward = yaml.safe_load(text)["reward"]
    options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RewardOptions), reward))
    assert all(callable(resolve(term.function)) for term in options.terms.values())


def test_the_figures_are_those_of_the_evidence() -> None:
    figures = json.loads((ROOT / "docs/evidence/overoptimisation.json").read_text())
    section = TEXT.partition("## Where proxy and truth part")[2].partition("\n## ")[0]
    for coefficient in ("0", "0.3"):
        found = figures[f"kl={coefficient}"]
        assert {name: found[name] for name in ("first", "peak", "last", "parts_at")} == verdict(found["curve"])
        for name in ("first", "peak", "last"):
            proxy, truth = found[name]["proxy"], found[name]["truth"]
            shown = " | ".join((coefficient, "[a-z ]+", str(found[name]["update"]), f"{proxy['value']:.2f} .*"))
            solved = [f"{100 * truth[end]:.1f}" for end in ("value", "low", "high")]
            row = shown.replace("|", r"\|") + r" \| {} % \({} to {}\) \|".format(*solved)
            assert re.search(row, section), row
        parts = found["parts_at"] or f"not within {found['last']['update']} updates"
        assert f"| {coefficient} | proxy and truth part | {parts} |" in section

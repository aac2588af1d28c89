"""The examples of docs/checks.md, and that it has every reward of `rewards.checks`."""

from __future__ import annotations

import datasets
import pyarrow.parquet
import pytest
import yaml
from omegaconf import OmegaConf

from rewards.options import RewardOptions
from rewards.registry import REGISTERED, resolve_term
from tests.documentation import ROOT, blocks, commands, run_command

PAGE = "docs/checks.md"


def test_the_page_has_every_reward_of_the_room():
    page = (ROOT / PAGE).read_text()
    named = [name for name, path in REGISTERED.items() if path.startswith("rewards.checks.")]
    assert len(named) == 11
    assert all(f"\n| `{name}` |" in page for name in named)


@pytest.mark.parametrize("command", commands(PAGE))
def test_commands_run(command, monkeypatch, capsys):
    assert "answer_tag: null" in run_command(command, monkeypatch, capsys)


@pytest.mark.parametrize("text", blocks(PAGE, "yaml"))
def test_configurations_name_real_functions(text):
    reward = yaml.safe_load(text)["reward"]
    options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RewardOptions), reward))
    assert [resolve_term(name, term).__name__ for name, term in options.terms.items()] == [
        "xml_format", "exact_match", "length",
    ]  # fmt: skip


def test_pairs_are_ordered_by_their_label_and_ties_left_out(tmp_path):
    (code,) = blocks(PAGE, "python")
    names = {}
    exec(compile(code, PAGE, "exec"), names)
    rows = [{"caption": "a", "jpg_0": b"x", "jpg_1": b"y", "label_0": label} for label in (1.0, 0.0, 0.5)]
    names["write"](datasets.Dataset.from_list(rows), str(tmp_path / "pairs.parquet"))
    written = pyarrow.parquet.read_table(tmp_path / "pairs.parquet").to_pylist()
    assert [(row["chosen"], row["rejected"]) for row in written] == [(b"x", b"y"), (b"y", b"x")]

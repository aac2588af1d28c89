"""Null takes out a named part that a file brought along, and nothing else; what is not there is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from configs.compose import compose, recompose
from configs.errors import ConfigError

COT = ["recipe=quickstart", "data=mixed_cot", "data.train.name=a.jsonl", "data.evaluation=null"]
LENGTH = ["reward.terms.length.function=my.length", "reward.terms.length.weight=0.1"]


def test_a_term_a_source_and_a_criterion_are_taken_out(tmp_path: Path) -> None:
    assert compose(["recipe=quickstart", "reward.terms.answer=null", *LENGTH]).config.reward.terms.keys() == {"length"}
    assert compose([*COT, "data.also.plain=null"]).config.data.also == {}
    kept = tmp_path / "config.yaml"
    criteria = ["reward.terms.answer.criteria.shape_of_it=0.5", "reward.terms.answer.criteria.truth=1"]
    kept.write_text(compose(["recipe=quickstart", *criteria]).yaml)
    again = recompose(kept, ["reward.terms.answer.criteria.shape_of_it=null"])
    assert again.config.reward.terms["answer"].criteria == {"truth": 1.0}
    assert "shape_of_it" not in again.yaml


def test_a_recipe_takes_out_what_it_builds_on(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    mine = tmp_path / "recipe" / "mine.yaml"
    head = "# @package _global_\ndefaults: [quickstart, _self_]\nreward: {terms: {"
    mine.write_text(head + "answer: null, length: {function: my.length}}}\n")
    composed = compose(["recipe=mine"], tmp_path)
    assert composed.config.reward.terms.keys() == {"length"}
    assert OmegaConf.select(composed.resolved, "reward.terms").keys() == {"length"}
    mine.write_text(head + "anser: null}}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: null takes out reward\.terms\.anser, which is not there"):
        compose(["recipe=mine"], tmp_path)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("reward.terms.anser=null", r"reward\.terms has answer; did you mean answer"),
        ("data.also.plain=null", r"data\.also has none"),
        ("reward.terms.answer.weight=null", "expected a number"),
        ("reward.terms=null", "expected a mapping"),
        ("data.train=null", "expected a section"),
    ],
)
def test_nothing_else_is(override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        compose(["recipe=quickstart", override])


def test_null_in_free_arguments_stays_a_value() -> None:
    composed = compose(["recipe=quickstart", "reward.terms.answer.args.strict=null"])
    assert composed.config.reward.terms["answer"].args == {"strict": None}

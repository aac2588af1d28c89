"""JSON of a schema, tags, lengths, texts, patterns and choices: what is paid, what is not, and what is an error."""

from __future__ import annotations

import json

import pytest

from rewards.checks.json_schema import json_schema
from rewards.checks.length import length
from rewards.checks.matching import exact_match, regex_match
from rewards.checks.multiple_choice import multiple_choice
from rewards.checks.xml_format import xml_format
from rewards.options import RewardOptions, RewardTerm
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import ScoreRequest

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TREE = {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False}
GOOD = '{"name": "Ada", "age": 36}'


def one(function, text, **arguments):
    """(score, whether the text is malformed)."""
    told = []
    (score,) = function(completions=[text], prompts=["p"], log_malformed=lambda *each: told.append(each), **arguments)
    return score, bool(told)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GOOD, (1.0, False)),
        (f"\n {GOOD} \n", (1.0, False)),
        (f"Here it is:\n```json\n{GOOD}\n```\nDone.", (1.0, False)),
        (f"```\n{GOOD}\n```", (1.0, False)),
        ('{"name": "Ada", "age": -1}', (0.0, False)),
        ('{"name": "Ada"}', (0.0, False)),
        ("[]", (0.0, False)),
        ("3", (0.0, False)),
        (f"Here it is: {GOOD}", (0.0, True)),
        (f"```json\n{GOOD}\n```\n```json\n{GOOD}\n```", (0.0, True)),  # two blocks are two answers
        (f"```json\n{GOOD}", (0.0, True)),
        (f"```python\n{GOOD}\n```", (0.0, True)),
        ('{"name": "Ada", "age": 1, "age": 2}', (0.0, True)),
        ('{"name": "Ada", "age": NaN}', (0.0, True)),
        ('{"name": "Ada", "age": 1e999}', (0.0, True)),
        ('{"name": "Ada", "age": ' + "9" * 5000 + "}", (0.0, True)),
        ("[" * 100_000, (0.0, True)),
        ("[" * 40 + "]" * 40, (0.0, True)),
        ('"' + "[" * 40 + '"', (0.0, False)),  # a text is no depth
        ('"' + '\\"' * 40_000, (0.0, True)),
        ('"' + "a" * 100_001 + '"', (0.0, True)),
        ("", (0.0, True)),
    ],
)
def test_json_that_a_schema_describes(text, found):
    assert one(json_schema, text, schema=PERSON) == found
    assert one(json_schema, text, schema=[json.dumps(PERSON)]) == found


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "objekt"}, "'objekt' is not valid"),
        ("{", "is no JSON"),
        ("true", "pays for anything"),
        ([7], "not int"),
        ({"$ref": "https://example.com/a.json"}, "what is not in it"),
        ({"$ref": "#/nowhere"}, "what is not in it"),
        ({"$ref": "#"}, "itself without an end"),
    ],
)
def test_a_schema_that_says_nothing_is_an_error_of_the_data(schema, reason):
    with pytest.raises(ValueError, match=reason):
        one(json_schema, GOOD, schema=schema)


def test_a_schema_may_describe_itself_and_may_be_missing():
    deep = '{"next": ' * 31 + "{}" + "}" * 31
    assert one(json_schema, deep, schema=TREE) == (1.0, False)
    assert json_schema(completions=["1", "{}"], schema=[None, TREE]) == [None, 1.0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        ("<think>\na\n</think>\n\n<answer>\nb\n</answer>\n", 1.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>a</think>", 0.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
        ("<think>a<answer>b</answer></think>", 0.0),
        ("<think>a</think><answer>b", 0.0),
        ("<think></think><answer>b</answer>", 0.0),
        ("<think>a</think> so <answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer> c", 0.0),
        ("</think><think>a<answer>b</answer>", 0.0),
        ("<Think>a</Think><answer>b</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_tags_in_their_order(text, found):
    assert one(xml_format, text) == (found, False)


def test_options_of_tags():
    text = "First <think>a</think> so <answer>b</answer>."
    assert one(xml_format, text, text_around=True) == (1.0, False)
    assert one(xml_format, "<a></a>", tags=["a"], least_characters=0) == (1.0, False)
    assert one(xml_format, "<a>12</a>", tags="a", least_characters=3) == (0.0, False)
    for wrong in ({"tags": []}, {"tags": ["a", "a"]}, {"least_characters": -1}):
        with pytest.raises(ValueError, match="xml_format"):
            one(xml_format, text, **wrong)


def test_lengths_fall_on_a_slope():
    texts = ["", "a", "ab", "abc", "abcd", "abcdef", "abcdefgh"]
    lengths = {"unit": "characters", "least": 2, "most": 4}
    assert length(completions=texts, **lengths) == [0, 0, 1, 1, 1, 0, 0]
    assert length(completions=texts, **lengths, slope=4) == [0.5, 0.75, 1, 1, 1, 0.5, 0]
    assert length(completions=["a b  c", "a"], unit="words", least=2) == [1, 0]
    assert length(completions=["", ""], completion_ids=[[1] * 3, [1] * 5], most=4, slope=2) == [1, 0.5]


@pytest.mark.parametrize(
    "wrong", [{}, {"least": 3, "most": 2}, {"least": -1}, {"most": 3, "slope": -1}, {"most": 3, "unit": "lines"}]
)
def test_a_length_without_meaning_is_an_error(wrong):
    with pytest.raises(ValueError, match="length"):
        one(length, "a", **{"unit": "characters", **wrong})
    with pytest.raises(ValueError, match="needs the tokens"):
        one(length, "a", most=3)


@pytest.mark.parametrize(
    ("text", "answer", "options", "found"),
    [
        ("Paris", "Paris", {}, 1.0),
        (" Paris\n", "Paris", {}, 1.0),
        ("paris", "Paris", {}, 0.0),
        ("PARIS", "Paris", {"ignore_case": True}, 1.0),
        ("Paris, France", "Paris", {}, 0.0),
        ("Paris.", "Paris", {}, 0.0),
        ("Paris.", "Paris", {"ignore_punctuation": True}, 1.0),
        ("the city", "city", {"ignore_articles": True}, 1.0),
        ("a  b", "a b", {}, 1.0),
        ("a  b", "a b", {"ignore_space": False}, 0.0),
        ("caf\u0065\u0301", "caf\u00e9", {}, 1.0),
        ("7", 7, {}, 1.0),
        ("two", ["2", "two"], {}, 1.0),
        ("", "x", {}, 0.0),
        ("<answer>x</answer>", "x", {"answer_tag": "answer"}, 1.0),
        ("anything", None, {}, None),
    ],
)
def test_the_same_text(text, answer, options, found):
    assert one(exact_match, text, answer=[answer], **options) == (found, False)
    assert one(exact_match, text, solution=[answer], **options) == (found, False)


@pytest.mark.parametrize("answer", ["", "  ", [], ["a", ""], True, 1.5, {"a": 1}])
def test_an_answer_that_nothing_is_left_of_is_an_error_of_the_data(answer):
    with pytest.raises(ValueError, match="answer"):
        one(exact_match, "", answer=[answer])
    with pytest.raises(ValueError, match="nothing is left"):
        one(exact_match, "", answer=["?!"], ignore_punctuation=True)
    assert one(exact_match, "x", answer=["x"], answer_tag="answer") == (0.0, True)


def test_patterns():
    assert one(regex_match, "a12", pattern=r"a\d+") == (1.0, False)
    assert one(regex_match, "xa12", pattern=r"a\d+") == (0.0, False)
    assert one(regex_match, "xa12", pattern=r"a\d+", whole=False) == (1.0, False)
    assert one(regex_match, "A1", pattern=[r"a\d"], ignore_case=True) == (1.0, False)
    assert one(regex_match, "<answer>7</answer>", pattern=r"\d", answer_tag="answer") == (1.0, False)
    assert one(regex_match, "7", pattern=r"\d", answer_tag="answer") == (0.0, True)
    assert regex_match(completions=["1", "a"], pattern=[None, "a"]) == [None, 1.0]


@pytest.mark.parametrize(("pattern", "whole"), [("(", True), ("a*", True), ("a*", False), ("|a", False), (7, True)])
def test_a_pattern_that_is_none_or_pays_for_nothing_is_an_error_of_the_data(pattern, whole):
    with pytest.raises(ValueError, match="pattern"):
        one(regex_match, "a", pattern=[pattern], whole=whole)


def test_a_pattern_without_end_costs_its_sample_and_no_other():
    terms = {"form": RewardTerm(function="regex_match", args={"pattern": "(a+)+b"})}
    scorer = Scorer(RewardOptions(terms=terms, timeout_seconds=0.3))
    try:
        scores = scorer.score(ScoreRequest(["p"] * 2, ["a" * 60, "aab"]))
    finally:
        scorer.stop()
    assert [(each.index, each.kind) for each in scores.failures] == [(0, "timeout")]
    assert scores.total[1] == 1.0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("B", (1.0, False)),
        ("b", (1.0, False)),
        ("(B)", (1.0, False)),
        ("B.", (1.0, False)),
        ("**B**", (1.0, False)),
        ("B) Paris", (1.0, False)),
        ("It is Paris.\nB", (1.0, False)),
        ("The answer is B.", (1.0, False)),
        ("The answer is (B) Paris, because A is a river.", (1.0, False)),
        ("Answer: B", (1.0, False)),
        ("**Answer:** B", (1.0, False)),
        (r"\boxed{B}", (1.0, False)),
        (r"\boxed{\text{B}}", (1.0, False)),
        ("<answer>B</answer>", (1.0, False)),
        ("A is wrong, so <answer> (B) Paris </answer>", (1.0, False)),
        ("C", (0.0, False)),
        ("The answer is C.", (0.0, False)),
        # hedging
        ("A or B", (0.0, True)),
        ("A B C D", (0.0, True)),
        ("A\nB", (0.0, True)),
        ("(A) (B)", (0.0, True)),
        ("The answer is A or B.", (0.0, True)),
        ("The answer is A. The answer is B.", (0.0, True)),
        ("The answer is A/B/C/D", (0.0, True)),
        ("<answer>A</answer><answer>B</answer>", (0.0, True)),
        ("<answer>A, B</answer>", (0.0, True)),
        (r"\boxed{A} \boxed{B}", (0.0, True)),
        (r"<answer>A</answer> \boxed{B}", (0.0, True)),
        # no choice
        ("", (0.0, True)),
        ("A cat sat on the mat.", (0.0, True)),
        ("Because", (0.0, True)),
        ("E", (0.0, True)),
        ("<answer>Paris</answer>", (0.0, True)),
        ("<answer>" * 2000, (0.0, True)),
    ],
)
def test_a_choice_is_one_letter(text, found):
    assert one(multiple_choice, text, answer=["B"]) == found


def test_answers_of_data_sets():
    assert one(multiple_choice, "B", answer=[1], choices=[["x", "y"]]) == (1.0, False)
    assert one(multiple_choice, "E", answer=["(e)"], letters="abcde") == (1.0, False)
    assert multiple_choice(completions=["A"], answer=[None]) == [None]
    for wrong in ({"answer": ["E"]}, {"answer": [4]}, {"answer": [True]}, {"answer": [""]}, {"answer": ["Paris"]}):
        with pytest.raises(ValueError, match="none of the letters"):
            one(multiple_choice, "A", **wrong)
    with pytest.raises(ValueError, match="2 to 26"):
        one(multiple_choice, "A", answer=["A"], choices=[["x"]])
    with pytest.raises(ValueError, match="two or more"):
        one(multiple_choice, "A", answer=["A"], letters="AA")

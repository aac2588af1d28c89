"""Messages in the columns, in TRL's formats, become what TRL's own helpers make of them; what is no text is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from transformers import PreTrainedTokenizerBase

from configs.errors import UserError
from configs.schema import Config, DataOptions, SourceKind, SourceOptions
from models.text import chat_templates
from models.text.tokenizer import load_tokenizer
from rl.api.prompts import as_problems
from rl.api.sampling import Samples
from rl.api.scoring import _request
from rl.commands.pairs import _identity
from rl.data.encode import encode_prompt, encode_response
from rl.data.problems import Problem, open_source, open_training
from rl.data.prompts import PromptSource
from rl.data.rows import DataError
from rl.modality.image import ImageModality

USER = {"role": "user", "content": "What colour is the sky?"}
BLUE = {"role": "assistant", "content": "It is blue."}
GREEN = {"role": "assistant", "content": "It is green."}
SYSTEM = {"role": "system", "content": "Be brief."}
TURNS = [USER, BLUE, {"role": "user", "content": "Why?"}]


@pytest.fixture(scope="module")
def trl() -> ModuleType:
    """`trl.data_utils` alone: the whole of TRL takes seconds to import."""
    found = importlib.util.find_spec("trl")
    assert found is not None
    assert found.submodule_search_locations
    path = Path(found.submodule_search_locations[0]) / "data_utils.py"
    spec = importlib.util.spec_from_file_location("trl_data_utils_alone", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> PreTrainedTokenizerBase:
    """A character a token, with ChatML; <|im_start|> and <|im_end|> are texts of it, <|end|> is the stop token."""
    tokenizer = load_tokenizer(model)
    tokenizer.chat_template = chat_templates.CHATML.replace("<|im_end|>\\n", "<|end|>")
    return tokenizer


def source(path: Path, rows: list[dict], **options: Any) -> SourceOptions:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SourceOptions(kind=SourceKind.file, name=str(path), **options)


def first(path: Path, row: dict, **options: Any) -> Problem:
    return open_source(source(path / "a.jsonl", [row], **options))[0]


ANSWER = {"response": "{{ completion }}"}
PAIR = {"chosen": "{{ chosen }}", "rejected": "{{ rejected }}"}
FORMATS = {
    "prompt only": ({"prompt": [USER]}, {}),
    "several turns": ({"prompt": [SYSTEM, *TURNS]}, {}),
    "to be continued": ({"prompt": [USER, {"role": "assistant", "content": "It is"}]}, {}),
    "prompt and completion": ({"prompt": [SYSTEM, USER], "completion": [BLUE]}, ANSWER),
    "pair": ({"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]}, PAIR),
    "pair with implicit prompt": ({"chosen": [USER, BLUE], "rejected": [USER, GREEN]}, {**PAIR, "prompt": None}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_messages_have_the_tokens_that_trl_gives_them(
    name: str, tmp_path: Path, tokenizer: PreTrainedTokenizerBase, trl: ModuleType
) -> None:
    row, options = FORMATS[name]
    problem = first(tmp_path, row, **options)
    wanted = trl.apply_chat_template(trl.maybe_extract_prompt(row) if "chosen" in row else row, tokenizer)
    prompt = encode_prompt(tokenizer, problem.conversation or problem.prompt, None, 1000)
    assert tokenizer.decode(prompt) == wanted["prompt"]
    stops = tokenizer.convert_tokens_to_ids(["<|end|>"])
    answers = [encode_response(tokenizer, text, stops, 100) for text in problem.responses]
    expected = [wanted[key] for key in ("completion", "chosen", "rejected") if key in wanted]
    assert [tokenizer.decode(ids) for ids in answers] == expected


def test_the_last_of_all_messages_is_the_demonstration(tmp_path: Path) -> None:
    problem = first(tmp_path, {"messages": [*TURNS, GREEN]}, response="{{ messages }}", prompt=None)
    assert problem.conversation is not None
    assert (list(problem.conversation.messages), problem.responses) == (TURNS, ("It is green.",))
    assert problem.shown == TURNS
    assert problem.prompt == "user: What colour is the sky?\n\nassistant: It is blue.\n\nuser: Why?"


def test_one_message_of_the_user_is_what_its_text_is(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    messages, text = (first(tmp_path, {"prompt": prompt}) for prompt in ([USER], USER["content"]))
    assert messages.prompt == text.prompt
    for system in (None, "Be brief."):
        assert messages.conversation is not None
        same = [encode_prompt(tokenizer, each, system, 1000) for each in (messages.conversation, text.prompt)]
        np.testing.assert_array_equal(*same)


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [("The sky is blue.", "The sky is green."), ("The sky is black.", "The sky is blue."), ("ab cd", "ab cdef")],
)
def test_a_pair_of_texts_begins_with_its_prompt(tmp_path: Path, trl: ModuleType, chosen: str, rejected: str) -> None:
    problem = first(tmp_path, {"chosen": chosen, "rejected": rejected}, **PAIR, prompt=None)
    assert [problem.prompt + answer for answer in problem.responses] == [chosen, rejected]
    if rejected != "ab cdef":  # there TRL stops a character early
        wanted = trl.extract_prompt({"chosen": chosen, "rejected": rejected})
        assert (problem.prompt, *problem.responses) == (wanted["prompt"], wanted["chosen"], wanted["rejected"])
    else:
        assert problem.responses == ("", "ef")


def test_tables_of_messages_and_tools_reach_the_chat_template(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Arrow gives every message the keys of all; parts of type text are text."""
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": "up"}}]}
    rows = [{"prompt": [USER, call, {"role": "tool", "content": "blue"}], "tools": '[{"name": "look"}]'}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    problem = open_source(SourceOptions(kind=SourceKind.file, name=str(tmp_path / "a.parquet")))[0]
    assert problem.conversation is not None
    assert list(problem.conversation.messages) == [USER, {**call, "content": ""}, {"role": "tool", "content": "blue"}]
    assert problem.conversation.options == {"tools": [{"name": "look"}]}
    template, tokenizer.chat_template = tokenizer.chat_template, "{{ tools | length }}{{ thinking }}"
    try:
        other = first(tmp_path, {**rows[0], "chat_template_kwargs": {"thinking": "x"}})
        assert other.conversation is not None
        assert tokenizer.decode(encode_prompt(tokenizer, other.conversation, None, 10)) == "1x"
    finally:
        tokenizer.chat_template = template
    assert problem.condition != other.condition
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert first(tmp_path, {"prompt": parts}).prompt == "ab"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, r"column prompt, .*a int is no text"),
        (0.1, "a float is no text.*`| string`"),
        (True, "a bool is no text"),
        ({"a": 1}, "a mapping is no text"),
        (["a", "b"], "a list is no text.*join"),
        ([], "a list is no text"),
        ([{"role": "user"}], "message 0, has a content of type NoneType"),
        ([{"role": "user", "content": 3}], "message 0, has a content of type int"),
        ([{"role": "user", "content": [{"type": "image"}]}], "has a content of type list"),
        ([{"role": "poet", "content": "a"}], "has the role 'poet'; chat templates know system"),
        ([{"from": "human", "value": "a"}], "has the keys from, value: name them `role` and `content`"),
        ([SYSTEM], "ends with a message of the system"),
    ],
)
@pytest.mark.parametrize("option", ["prompt", "chosen"])
def test_what_is_no_text_is_refused_with_row_and_column(tmp_path: Path, option: str, value: Any, message: str) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    problems = open_source(source(tmp_path / "a.jsonl", [row, {**row, option: value}], **PAIR))
    if value == [SYSTEM] and option == "chosen":
        message = "the chosen of a.jsonl/1 has messages of system, and an answer is one of the assistant"
    with pytest.raises(DataError, match=message.replace("column prompt", f"column {option}")) as caught:
        problems[1]
    assert "a.jsonl/1" in str(caught.value)
    assert option in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "Q: {{ prompt }}",
        "{{ prompt }}\n",
        "{{ prompt | trim }}",
        "{{ prompt ~ '!' }}",
        "{{ '%s' | format(prompt) }}",
        "{{ '{}'.format(prompt) }}",
        "{{ prompt | join(' ') }}",
        "{{ prompt | string }}",
        "{% for message in prompt %}{{ message }}{% endfor %}",
        "{% set text %}{{ prompt }}{% endset %}{{ text }}",
        "{{ (prompt | list) ~ '' }}",
    ],
)
def test_messages_become_no_text_on_any_way(tmp_path: Path, template: str) -> None:
    with pytest.raises(DataError, match=r"a.jsonl/0, column prompt.*is no text, and would be printed as Python"):
        first(tmp_path, {"prompt": [USER]}, prompt=template)


def test_templates_may_read_messages_and_write_numbers(tmp_path: Path) -> None:
    row = {"prompt": [USER], "numbers": [1, 2], "target": 3, "score": 0.5}
    for template, text in [
        ("{{ prompt[0].content }}", "What colour is the sky?"),
        ("{{ numbers | join(' ') }} = {{ target }}", "1 2 = 3"),
        ("{{ target | string }}", "3"),
        ("{{ numbers | tojson }}", "[1, 2]"),
        ("{{ '%.2f' | format(score) }}", "0.50"),
    ]:
        assert first(tmp_path, row, prompt=template).prompt == text
    with pytest.raises(DataError, match=r"column score, .*a float is no text"):
        first(tmp_path, row, prompt="{{ target }} {{ score }}")


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"prompt": "a", "chosen": [USER, BLUE], "rejected": [USER, GREEN]}, PAIR, "set the option `prompt`.* to null"),
        ({"prompt": [USER], "completion": [BLUE, USER]}, ANSWER, "the response of a.jsonl/0 has messages of assistant"),
        (
            {"prompt": [USER], "completion": [{**BLUE, "reasoning_content": "Hm."}]},
            ANSWER,
            "has reasoning_content beside its content, which would not be trained",
        ),
        ({"completion": "It is blue."}, {**ANSWER, "prompt": None}, "nothing in a text tells its prompt"),
        ({"completion": [BLUE]}, {**ANSWER, "prompt": None}, "begin with no message in common"),
        (
            {"chosen": "a", "rejected": [GREEN]},
            {**PAIR, "prompt": None},
            "a text and messages have no prompt in common",
        ),
        ({"prompt": [USER], "tools": "{"}, {}, "tools beside it that are not JSON"),
        ({"prompt": [USER], "chat_template_kwargs": [1]}, {}, "chat_template_kwargs of type list"),
        ({"prompt": "a"}, {"perturbed": "{{ other }}", "prompt": "{{ prompt }}"}, "'other' is undefined"),
        ({"prompt": "a"}, {"prompt": None}, "prompt=null of .* takes prompts out of answers"),
    ],
)
def test_formats_that_cannot_be_are_named(tmp_path: Path, row: dict, options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        first(tmp_path, row, **options)


def test_equal_answers_of_an_implicit_prompt_leave_something_to_compare(tmp_path: Path) -> None:
    """So that they are refused as equal answers, and not as an answer without messages."""
    problem = first(tmp_path, {"chosen": [USER, BLUE], "rejected": [USER, BLUE]}, **PAIR, prompt=None)
    assert problem.responses == ("It is blue.", "It is blue.")


def test_two_system_messages_are_one_too_many(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    problem = first(tmp_path, {"prompt": [SYSTEM, USER]})
    assert problem.conversation is not None
    with pytest.raises(DataError, match=r"a.jsonl/0 has a system message, and data.system_prompt is another one"):
        encode_prompt(tokenizer, problem.conversation, "Be long.", 1000, problem.id)


class Silent:
    """Encodes nothing."""

    def prompt(self, problem: Problem) -> None:
        pass


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a", "answer": "1"}, {"prompt": "b"}], "/1 has no column 'answer', which its first row has"),
        ([{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c", "answer": "1"}], "/2 has a column 'answer' of its own"),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_row_without_a_column_that_rewards_get_is_named_at_the_start(
    tmp_path: Path, rows: list[dict], message: str, suffix: str
) -> None:
    """It would be scored as if the cell were there, and null."""
    text = json.dumps(rows) if suffix == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / f"a.{suffix}").write_text(text)
    options = SourceOptions(kind=SourceKind.file, name=str(tmp_path / f"a.{suffix}"))
    for data in (DataOptions(train=options), DataOptions(train=options, also={"more": options})):
        prompts = PromptSource(open_training(data), Silent())  # type: ignore[arg-type]
        prompts.check(scored=False)
        with pytest.raises(DataError, match=message):
            prompts.check()
    options.size = len(rows) - 1
    PromptSource(open_source(options), Silent()).check()  # type: ignore[arg-type]


def test_image_models_read_texts(tmp_path: Path) -> None:
    problem = first(tmp_path, {"prompt": [USER]})
    with pytest.raises(DataError, match=r"the prompt of a.jsonl/0 is a conversation, and image models read a text"):
        ImageModality(Config()).prompt(problem)


def test_prompts_of_the_library_may_be_messages() -> None:
    (problem,) = as_problems([[SYSTEM, USER]])
    assert (problem.id, problem.shown) == ("prompt/0", [SYSTEM, USER])
    with pytest.raises(DataError, match="the prompt of prompt/0 ends with a message of the system"):
        as_problems([[SYSTEM]])
    with pytest.raises(UserError, match="prompt 0 is a dict: give texts, lists of messages"):
        as_problems([USER])  # type: ignore[list-item]


def test_samples_without_a_column_that_others_have_are_not_scored_as_if_it_were_null() -> None:
    known, unknown = Problem("a/0", "p", {"answer": "1"}), Problem("prompt/0", "p", {})
    samples = Samples([known, unknown], [], [["1"], ["1"]], None, None, tokenizer=object())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="problem prompt/0 has no column 'answer'"):
        _request(samples, None, {})
    request, _ = _request(samples, None, {"answer": ["1", None]})
    assert request.columns == {"answer": ["1", None]}


def test_a_text_is_no_list_of_values() -> None:
    """Each of its letters would be a value."""
    for given in (("ab", None, {}), (["a", "b"], "pq", {}), (["a", "b"], None, {"answer": "12"})):
        with pytest.raises(UserError, match="is one str: give a list with one value a sample"):
            _request(*given)
    with pytest.raises(UserError, match="column 'answer' is one dict"):
        _request(["a"], None, {"answer": {"a": 1}})  # type: ignore[dict-item]


def test_pairs_of_a_policy_keep_the_messages_of_their_prompt(tmp_path: Path) -> None:
    row = {"prompt": TURNS, "tools": [{"name": "look"}], "chat_template_kwargs": {"thinking": True}}
    written = _identity(first(tmp_path, row))
    again = first(tmp_path, {**written, "chosen": "a", "rejected": "b"}, **PAIR)
    assert again.conversation == first(tmp_path, row).conversation

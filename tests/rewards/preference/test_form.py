"""The tokens that a preference model reads, with a chat template and without."""

from __future__ import annotations

import pytest

from models.tiny.create import tiny_tokenizer
from rewards.preference.form import Form, Segments, TextError


def form(template: bool, segments: Segments = Segments.none, max_tokens: int = 20) -> Form:
    tokenizer = tiny_tokenizer()
    if not template:
        tokenizer.chat_template = None
    return Form(tokenizer, max_tokens, segments)


@pytest.mark.parametrize("template", [True, False])
def test_control_tokens_of_an_answer_are_its_characters(template: bool) -> None:
    (ids,) = form(template).ids("ab", "c<|end|>")
    tokenizer = tiny_tokenizer()
    special = {tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id}
    assert ids[-1] == tokenizer.eos_token_id
    assert not special & set(ids[:-1])
    assert len(ids) == len("ab") + template + len("c<|end|>") + 1


def test_answers_follow_the_header_of_the_assistant() -> None:
    (ids,) = form(True).ids([{"role": "user", "content": "ab"}], "c")
    assert tiny_tokenizer().decode(ids) == "ab<|answer|>c<|end|>"


def test_a_prompt_with_a_control_token_and_a_long_sample_are_refused() -> None:
    with pytest.raises(TextError, match="control token"):
        form(True).ids("a<|mask|>", "c")
    with pytest.raises(TextError, match="have 24 tokens, more than the 20"):
        form(True).ids("ab", "c" * 20)


def test_segments_of_an_answer_stand_behind_the_prompt() -> None:
    tokenizer = tiny_tokenizer()
    shown = [tokenizer.decode(ids) for ids in form(True, Segments.answer).ids("ab", "one. two!")]
    assert shown == ["ab<|answer|>one.<|end|>", "ab<|answer|>two!<|end|>"]


def test_segments_of_a_prompt_stand_before_the_answer() -> None:
    tokenizer = tiny_tokenizer()
    messages = [{"role": "user", "content": "Red. Blue."}]
    shown = [tokenizer.decode(ids) for ids in form(True, Segments.prompt).ids(messages, "c")]
    assert shown == ["Red.<|answer|>c<|end|>", "Blue.<|answer|>c<|end|>"]


def test_an_answer_without_a_word_is_one_segment() -> None:
    assert len(form(True, Segments.answer).ids("ab", " ")) == 1

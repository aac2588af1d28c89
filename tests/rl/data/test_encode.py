"""Prompts and demonstrations become the tokens the model expects, or an error that names the problem."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rl.data.encode import encode_prompt, encode_response
from rl.data.rows import DataError

SPECIAL = ["<pad>", "<mask>", "<system>", "<user>", "<assistant>", "<end>"]
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *"abcdefgh =+"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", mask_token="<mask>", eos_token="<end>", chat_template=TEMPLATE
    )


def test_prompt_ends_where_the_assistant_starts(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = encode_prompt(tokenizer, "a+b", "cd", max_tokens=100)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == "<system>cd<end><user>a+b<end><assistant>"


def test_no_system_message_without_a_system_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.decode(encode_prompt(tokenizer, "a", None, max_tokens=100)) == "<user>a<end><assistant>"


def test_response_ends_with_the_first_stop_token(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = encode_response(tokenizer, "a=b", stop_ids=(5, 0), max_tokens=4)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == "a=b<end>"
    assert encode_response(tokenizer, "", stop_ids=(5,), max_tokens=4).tolist() == [5]


def test_too_long_is_an_error_with_the_problem_and_both_lengths(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(encode_prompt(tokenizer, "abcd", None, max_tokens=7)) == 7
    with pytest.raises(DataError, match=r"the prompt of sums/3 has 7 tokens, more than data.max_prompt_tokens=6"):
        encode_prompt(tokenizer, "abcd", None, max_tokens=6, problem_id="sums/3")
    with pytest.raises(DataError, match=r"the response of sums/3 has 5 tokens, more than .*max_new_tokens=4"):
        encode_response(tokenizer, "abcd", (5,), max_tokens=4, problem_id="sums/3")


def test_a_tokenizer_without_chat_template_is_named(tokenizer: PreTrainedTokenizerFast) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(DataError, match=r"sums/3: .*chat.template"):
        encode_prompt(bare, "a", None, max_tokens=10, problem_id="sums/3")

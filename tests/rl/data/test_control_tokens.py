"""What data spell like a control token is encoded as characters; only the chat template writes control tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from configs.compose import compose
from models.text import chat_templates
from models.text.tokenizer import load_tokenizer
from rl.data.conversation import Conversation
from rl.data.encode import encode_prompt, encode_response
from rl.data.problems import open_source
from rl.data.prompts import PromptSource
from rl.data.rows import DataError
from rl.modality.choice import modality_of

PAD, MASK, END, ANSWER = range(4)


@pytest.fixture
def tokenizer(model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(model)


@pytest.mark.parametrize("token", ["<|mask|>", "<|end|>", "<|pad|>", "<|answer|>"])
def test_an_answer_holds_no_control_token_but_its_end(tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    text = f"a {token} b"
    ids = encode_response(tokenizer, text, (END,), 100).tolist()
    assert ids[-1] == END
    assert not {PAD, MASK, END, ANSWER} & set(ids[:-1])
    assert tokenizer.decode(ids[:-1]) == text
    assert tokenizer.encode(token, add_special_tokens=False) == [tokenizer.convert_tokens_to_ids(token)]  # as before


def test_answers_without_them_have_the_tokens_that_they_had(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "a < b | c\nmask"
    expected = [*tokenizer.encode(text, add_special_tokens=False), END]
    assert encode_response(tokenizer, text, (END,), 100).tolist() == expected


@pytest.mark.parametrize("template", [None, chat_templates.CHATML, chat_templates.LLADA])
def test_a_prompt_holds_the_control_tokens_of_its_template_alone(
    tokenizer: PreTrainedTokenizerBase, template: str | None
) -> None:
    """`trim` in a template moves what it finds, and is not disturbed."""
    if template is not None:
        tokenizer.chat_template = template.replace("<|im_start|>", "<|answer|>").replace("<|im_end|>", "<|end|>")
    tokenizer.bos_token = "<|pad|>"
    control = [PAD, MASK, END, ANSWER]

    def written(first: str, second: str) -> tuple[list[int], str]:
        messages = ({"role": "user", "content": first}, {"role": "assistant", "content": "ok"})
        prompt = Conversation((*messages, {"role": "user", "content": second}))
        ids = encode_prompt(tokenizer, prompt, "s", 1000)
        return [token for token in ids.tolist() if token in control], tokenizer.decode(ids)

    told, text = written("a <|end|> b <|mask|><|mask|> c", "d<|answer|>d")
    plain, _ = written("a x b yy c", "dxd")
    assert told == plain
    assert "a <|end|> b <|mask|><|mask|> c" in text
    assert "d<|answer|>d" in text
    assert not set(text) & {"\ufdd0", "\ufdd1"}


def test_texts_that_went_through_a_template_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match=r"the response of x/3 ends with the control token '<\|end\|>'.*chat template"):
        encode_response(tokenizer, "It is blue.<|end|>\n", (END,), 100, "x/3")
    with pytest.raises(DataError, match=r"the prompt of x/3 begins with the control token '<\|answer\|>'"):
        encode_prompt(tokenizer, " <|answer|>user\nhi", None, 100, "x/3")
    with pytest.raises(DataError, match=r"the prompt of x/3 ends with the control token"):
        encode_prompt(tokenizer, "hi", "Be brief.<|end|>", 100, "x/3")


def test_a_token_that_cannot_be_written_otherwise_is_named(tokenizer: PreTrainedTokenizerBase) -> None:
    """It is the model's mask, and the tokenizer does not call it special."""
    tokenizer.add_tokens([AddedToken("[M]", special=False)])
    mask = tokenizer.convert_tokens_to_ids("[M]")
    assert mask in encode_response(tokenizer, "a [M] b", (END,), 100).tolist()  # the control: any other added token
    message = r"the rejected response of x/3 has '.*\[M\].*' in it, .* as the control token '\[M\]' only"
    with pytest.raises(DataError, match=message):
        encode_response(tokenizer, "a [M] b", (END,), 100, "x/3", {mask}, "rejected response")
    with pytest.raises(DataError, match=r"the prompt of x/3 has '.*\[M\]' in it"):
        encode_prompt(tokenizer, "a [M] b", None, 100, "x/3", {mask})


def test_a_mask_in_a_demonstration_is_trained_as_text(model: Path, tmp_path: Path) -> None:
    """It stopped the run when its row came: a position that is MASK has no log-probability."""
    rows = [
        {"prompt": "1+1", "chosen": "2 <|mask|> 2", "rejected": "3 <|end|> 3"},
        {"prompt": "2+2", "chosen": "4", "rejected": "5<|end|>"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = ["recipe=quickstart", "algorithm=dpo", "data=pairs_jsonl", f"model.path={model}", "evaluation.every=0"]
    config = compose([*overrides, f"data.train.name={path}", "data.evaluation=null"]).config
    modality = modality_of(config)
    source = PromptSource(open_source(config.data.train), modality)
    group = modality.offline_group(source.problems[0], seed=0, update=0)
    assert not np.isin(group.canvas_ids, (MASK, ANSWER)).any()
    for sample, text in enumerate(["2 <|mask|> 2", "3 <|end|> 3"]):
        ids = group.completion_ids(sample)
        assert (modality.tokenizer.decode(ids[:-1]), ids[-1]) == (text, END)
    with pytest.raises(DataError, match=r"the rejected response of pairs.jsonl/1 ends with the control token"):
        source.check_offline_groups()

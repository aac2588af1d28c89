"""A plain Llama, Qwen2 or Qwen3 of the user's becomes a diffusion model, and what is exported of it says so."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import transformers

from models.options import ModelOptions
from models.text.checkpoint import load_text_policy
from models.text.description import read_text_spec
from models.text.export import export_text_policy
from models.text.families import FAMILIES, CheckpointError
from models.text.spec import text_spec
from tests.models.text.published import END, MASK, PUBLISHED, ROWS, tiny_tokenizer, write_checkpoint
from tests.models.text.test_architecture import all_logits, clean_row, random_ids

PLAIN = {"a2d-llama": "llama", "a2d-qwen2": "qwen2", "a2d-qwen3": "qwen3"}


@pytest.fixture(params=PLAIN)
def plain(request, tmp_path):
    """(family, folder) of what transformers' own class saves: no mask token, no padding token."""
    family = FAMILIES[request.param]
    torch.manual_seed(0)
    network = family.network_class(family.network_config(PUBLISHED[request.param].config))
    network.save_pretrained(tmp_path / "plain")
    tokenizer = tiny_tokenizer(mask=False)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "plain")
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["model_type"] == PLAIN[request.param]
    return request.param, tmp_path / "plain"


@pytest.mark.parametrize("block_length", [None, 4])
def test_it_is_loaded_with_a_mask_token_and_its_export_needs_no_option(plain, tmp_path, block_length):
    name, folder = plain
    options = ModelOptions(path=str(folder), family=name, mask_token="<mask>", block_length=block_length)
    policy, tokenizer = load_text_policy(options)
    assert (policy.spec.mask_id, policy.spec.pad_id, policy.spec.block_length) == (MASK, END, block_length)
    stock = getattr(transformers, f"{FAMILIES[name].network}ForCausalLM").from_pretrained(folder).eval()
    ids = random_ids()
    visible = torch.ones(1, 1, len(ids), len(ids), dtype=torch.bool)
    with torch.no_grad():
        expected = stock(input_ids=ids[None], attention_mask=visible).logits[0]
    torch.testing.assert_close(all_logits(policy, clean_row(ids, None)), expected, rtol=0, atol=1e-5)

    export_text_policy(policy, tokenizer, tmp_path / "export", folder)
    written = json.loads((tmp_path / "export" / "config.json").read_text())
    assert (written["model_type"], written["mask_token_id"]) == (name, MASK)
    again, _ = load_text_policy(ModelOptions(path=str(tmp_path / "export")))
    assert again.spec == policy.spec
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), policy.parameters(), strict=True))


def test_without_a_mask_token_it_is_refused_by_name(plain):
    name, folder = plain
    with pytest.raises(CheckpointError, match=r"without a mask token.*model\.mask_token"):
        read_text_spec(ModelOptions(path=str(folder), family=name))
    with pytest.raises(CheckpointError, match=r"model\.mask_token='<hole>': the tokenizer has no such token"):
        read_text_spec(ModelOptions(path=str(folder), family=name, mask_token="<hole>"))


def test_a_mask_token_that_the_checkpoint_names_otherwise_is_refused(tmp_path):
    write_checkpoint(tmp_path, PUBLISHED["sdar"])
    with pytest.raises(CheckpointError, match=rf"model\.mask_token='a' is 0, but the checkpoint names {MASK}"):
        read_text_spec(ModelOptions(path=str(tmp_path), mask_token="a"))


def test_the_published_mask_id_is_not_taken_where_the_tokenizer_has_another_token():
    family = dataclasses.replace(FAMILIES["a2d-qwen3"], vocab_size=ROWS, mask_id=3, stop_ids=(END,), pad_id=END)
    with pytest.raises(CheckpointError, match=r"mask token of family a2d-qwen3 is 3.*has 'd' there.*mask_token"):
        text_spec(family, PUBLISHED["a2d-qwen3"].config, {}, tiny_tokenizer(mask=False))


def test_an_export_of_a_checkpoint_that_was_named_by_the_option_says_its_family(tmp_path):
    """A checkpoint of A2D that was saved by transformers' own class says qwen3, and so did what was exported of it."""
    published = PUBLISHED["a2d-qwen3"]
    config = published.config | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "mask_token_id": MASK}
    write_checkpoint(tmp_path / "source", dataclasses.replace(published, config=config))
    policy, tokenizer = load_text_policy(ModelOptions(path=str(tmp_path / "source"), family="a2d-qwen3"))
    export_text_policy(policy, tokenizer, tmp_path / "export", tmp_path / "source")
    assert load_text_policy(ModelOptions(path=str(tmp_path / "export")))[0].spec == policy.spec

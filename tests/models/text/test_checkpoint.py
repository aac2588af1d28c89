"""Loading: what a policy is after it, and one clear error for everything that can be wrong with a checkpoint."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.options import LoraOptions, ModelOptions, Precision
from models.text.checkpoint import build_text_policy, load_text_policy, published_config
from models.text.description import read_text_spec
from models.text.families import CheckpointError
from tests.models.text.published import END, MASK, PUBLISHED, ROWS, tiny_tokenizer, write_checkpoint
from tests.models.text.test_architecture import all_logits, clean_row, random_ids


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path / "model", PUBLISHED["llada"])
    return tmp_path / "model"


def options(folder, **changes) -> ModelOptions:
    return ModelOptions(path=str(folder), **changes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_spec_of_a_checkpoint(tmp_path, name):
    published = PUBLISHED[name]
    write_checkpoint(tmp_path, published)
    policy, tokenizer = load_text_policy(options(tmp_path))
    spec = policy.spec
    assert read_text_spec(options(tmp_path)) == spec
    assert (spec.mask_id, spec.pad_id, spec.stop_ids) == (MASK, END, (END,))
    assert (spec.block_length, spec.logit_shift) == (published.block_length, published.logit_shift)
    assert (spec.vocab_size, spec.tokenizer_size, spec.max_length) == (ROWS, 30, 64)
    assert spec.forbidden_ids == (MASK, *range(30, ROWS))
    assert not policy.training
    assert all(parameter.requires_grad for parameter in policy.parameters())
    assert tokenizer("abc").input_ids == [0, 1, 2]
    assert published_config(policy) == published.config


def test_shards_give_the_same_policy_as_one_file(tmp_path):
    write_checkpoint(tmp_path / "one", PUBLISHED["sdar"])
    write_checkpoint(tmp_path / "many", PUBLISHED["sdar"], shards=3)
    one, many = (load_text_policy(options(tmp_path / name))[0] for name in ("one", "many"))
    for (name, expected), actual in zip(one.named_parameters(), many.parameters(), strict=True):
        assert torch.equal(actual, expected), name


@pytest.mark.parametrize("name", ["llada", "dream", "sdar"])
def test_bf16_rounds_the_weights_but_not_the_rotary_frequencies(tmp_path, name):
    write_checkpoint(tmp_path, PUBLISHED[name])
    full, _ = load_text_policy(options(tmp_path))
    half, _ = load_text_policy(options(tmp_path, precision=Precision.bf16))
    for expected, actual in zip(full.parameters(), half.parameters(), strict=True):
        assert torch.equal(actual, expected.to(torch.bfloat16))
    sizes = PUBLISHED[name].sizes
    half_width = sizes.head_width // 2
    frequencies = sizes.rope_theta ** (-torch.arange(half_width) / half_width)
    for policy in (full, half):
        torch.testing.assert_close(policy.network.model.rotary_emb.inv_freq, frequencies, rtol=1e-6, atol=0)
    logits = all_logits(half, clean_row(random_ids(), None))
    assert logits.dtype == torch.float32
    assert (logits - all_logits(full, clean_row(random_ids(), None))).abs().max() < 0.2


def test_tied_embeddings_stay_tied(tmp_path):
    write_checkpoint(tmp_path, PUBLISHED["llada-tied"])
    policy, _ = load_text_policy(options(tmp_path))
    assert policy.network.lm_head.weight is policy.network.model.embed_tokens.weight


def test_loading_reads_and_changes_no_global_random_state(folder):
    before = torch.get_rng_state()
    load_text_policy(options(folder, lora=LoraOptions(rank=2)))
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_survive_the_file_they_came_from(folder):
    policy, _ = load_text_policy(options(folder))
    before = policy.network.lm_head.weight.detach().clone()
    (folder / "model.safetensors").write_bytes(b"")
    assert torch.equal(policy.network.lm_head.weight, before)


def test_options_turn_on_gradient_checkpointing(folder):
    assert not load_text_policy(options(folder))[0].network.is_gradient_checkpointing
    assert load_text_policy(options(folder, gradient_checkpointing=True))[0].network.is_gradient_checkpointing


def test_tokenizer_in_qwen2s_two_files_with_an_unknown_class(folder):
    """Dream and TraDo publish no tokenizer.json, and name a class of their own."""
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    special = {"3": {"content": "<|end|>", "special": True}, str(MASK): {"content": "<|mask|>", "special": True}}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "DreamTokenizer",
                "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
                "added_tokens_decoder": special,
                "mask_token": "<|mask|>",
                "eos_token": "<|end|>",
                "pad_token": "<|end|>",
                "chat_template": "{{ messages[0]['content'] }}",
            }
        )
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"mask_token_id": None}))
    _, tokenizer = load_text_policy(options(folder))
    ids = tokenizer("abb<|mask|>").input_ids
    assert ids[:2] == [2, 1]
    assert ids[2:] == [tokenizer.mask_token_id]


def test_missing_chat_template(folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match=r"no chat template.*add chat_template\.jinja"):
        read_text_spec(options(folder))


def test_build_text_policy_is_seeded_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    config = PUBLISHED["dream"].config
    first, again, other = (build_text_policy(config, tiny_tokenizer(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.network.lm_head.weight, other.network.lm_head.weight)
    weights = dict(first.network.named_parameters())
    assert abs(weights["model.layers.0.mlp.up_proj.weight"].std().item() - 0.02) < 0.002
    assert weights["model.norm.weight"].eq(1).all()
    assert weights["model.layers.0.self_attn.q_proj.bias"].eq(0).all()
    assert torch.isfinite(all_logits(first, clean_row(random_ids(), None))).all()


# What can be wrong with a checkpoint.


def test_missing_folder():
    with pytest.raises(CheckpointError, match="'no/such-model' is not a folder and not reachable on the hub"):
        read_text_spec(options("no/such-model"))
    with pytest.raises(CheckpointError, match="there is no such folder"):
        load_text_policy(options("/no/such/folder"))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_file(folder, file):
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=file):
        load_text_policy(options(folder))


def test_missing_shard(tmp_path):
    write_checkpoint(tmp_path, PUBLISHED["llada"], shards=2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors"):
        load_text_policy(options(tmp_path))


@pytest.mark.parametrize("keep", [4, 200, -100])
def test_truncated_weights(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated or corrupt"):
        load_text_policy(options(folder))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_unreadable_json(folder, file):
    (folder / file).write_text('{"model_type": ')
    with pytest.raises(CheckpointError, match=str(folder)):
        load_text_policy(options(folder))


def test_unknown_family_names_the_checkpoint(folder):
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(CheckpointError, match=rf"{folder}.*model_type='gpt2'.*known families"):
        read_text_spec(options(folder))


def change_tensors(folder, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_missing_tensor(folder):
    change_tensors(folder, lambda tensors: tensors.pop("model.transformer.blocks.1.ff_proj.weight"))
    message = r"model\.safetensors: no tensor model\.transformer\.blocks\.1\.ff_proj\.weight"
    with pytest.raises(CheckpointError, match=message):
        load_text_policy(options(folder))


def test_unexpected_tensor(folder):
    change_tensors(folder, lambda tensors: tensors.update({"model.transformer.blocks.0.q_norm.weight": torch.ones(8)}))
    with pytest.raises(CheckpointError, match=r"unexpected tensor model\.transformer\.blocks\.0\.q_norm\.weight"):
        load_text_policy(options(folder))


def test_wrong_shape(folder):
    change_tensors(folder, lambda tensors: tensors.update({"model.transformer.wte.weight": torch.zeros(ROWS, 16)}))
    with pytest.raises(CheckpointError, match=r"wte\.weight has shape \(40, 16\).*\(40, 32\)"):
        load_text_policy(options(folder))


def test_tied_checkpoint_may_repeat_the_embedding_as_head_but_not_another(tmp_path):
    tensors = write_checkpoint(tmp_path, PUBLISHED["llada-tied"])
    head, embedding = "model.transformer.ff_out.weight", tensors["model.transformer.wte.weight"]
    change_tensors(tmp_path, lambda tensors: tensors.update({head: embedding.clone()}))
    load_text_policy(options(tmp_path))
    change_tensors(tmp_path, lambda tensors: tensors.update({head: embedding + 1}))
    with pytest.raises(CheckpointError, match=r"ff_out\.weight.*tied"):
        load_text_policy(options(tmp_path))

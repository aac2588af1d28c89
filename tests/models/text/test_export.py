"""Exported checkpoints are the published ones again: same names, same bits, same config, and loadable by others."""

from __future__ import annotations

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import Qwen3ForCausalLM

from models.lora import add_adapters, merged_state_dict
from models.options import LoraOptions, ModelOptions
from models.text.checkpoint import build_text_policy, load_text_policy
from models.text.export import export_text_policy
from models.text.families import FAMILIES, CheckpointError
from tests.models.text.published import PUBLISHED, tiny_tokenizer, write_checkpoint
from tests.models.text.test_architecture import all_logits, clean_row, random_ids
from tests.models.text.test_lora import disturb


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("with_source", [True, False])
def test_round_trip_is_bitwise(tmp_path, name, with_source):
    source, target = tmp_path / "source", tmp_path / "target"
    tensors = write_checkpoint(source, PUBLISHED[name])
    (source / "modeling_llada.py").write_text("published = 'code'\n")
    policy, tokenizer = load_text_policy(ModelOptions(path=str(source)))
    export_text_policy(policy, tokenizer, target, source if with_source else None)

    exported = load_file(target / "model.safetensors")
    assert exported.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert torch.equal(exported[key], tensor), key
    assert json.loads((target / "config.json").read_text()) == PUBLISHED[name].config
    assert (target / "modeling_llada.py").exists() == with_source

    again, its_tokenizer = load_text_policy(ModelOptions(path=str(target)))
    assert again.spec == policy.spec
    assert its_tokenizer.get_vocab() == tokenizer.get_vocab()
    assert its_tokenizer.chat_template == tokenizer.chat_template


def test_shards_replace_what_was_there(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    tensors = write_checkpoint(source, PUBLISHED["sdar"], shards=2)
    policy, tokenizer = load_text_policy(ModelOptions(path=str(source)))
    export_text_policy(policy, tokenizer, target, source)
    export_text_policy(policy, tokenizer, target, source, max_shard_size=20_000)
    assert not (target / "model.safetensors").exists()
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert {file.name for file in target.glob("*.safetensors")} == set(index["weight_map"].values())
    for key, file in index["weight_map"].items():
        assert torch.equal(load_file(target / file)[key], tensors[key])
    export_text_policy(policy, tokenizer, target, source)
    assert not (target / "model.safetensors.index.json").exists()
    load_text_policy(ModelOptions(path=str(target)))


def test_a_policy_built_from_scratch_is_exported_and_loaded(tmp_path):
    policy = build_text_policy(PUBLISHED["a2d-qwen3"].config, tiny_tokenizer(), seed=3)
    export_text_policy(policy, tiny_tokenizer(), tmp_path)
    loaded, _ = load_text_policy(ModelOptions(path=str(tmp_path)))
    inputs = clean_row(random_ids(), None)
    assert torch.equal(all_logits(loaded, inputs), all_logits(policy, inputs))


@pytest.mark.parametrize("name", ["llada", "sdar"])
def test_adapters_are_merged(tmp_path, name):
    write_checkpoint(tmp_path / "source", PUBLISHED[name])
    policy, tokenizer = load_text_policy(ModelOptions(path=str(tmp_path / "source"), lora=LoraOptions(rank=2)))
    disturb(policy)
    export_text_policy(policy, tokenizer, tmp_path / "target", tmp_path / "source")
    loaded, _ = load_text_policy(ModelOptions(path=str(tmp_path / "target")))
    inputs = clean_row(random_ids(), None)
    torch.testing.assert_close(all_logits(loaded, inputs), all_logits(policy, inputs), rtol=0, atol=1e-5)


def test_adapter_folder_is_loaded_by_peft_onto_the_same_class(load, tmp_path):
    policy, _ = load("sdar")
    base = Qwen3ForCausalLM(policy.network.config).eval()
    base.load_state_dict(policy.network.state_dict())
    add_adapters(policy, LoraOptions(rank=2, alpha=6.0), seed=0)
    disturb(policy)
    export_text_policy(policy, tiny_tokenizer(), tmp_path / "adapter", adapter_only=True)
    peft_model = PeftModel.from_pretrained(base, tmp_path / "adapter")
    ids = random_ids()[None]
    mask = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool)
    with torch.no_grad():
        actual = peft_model(input_ids=ids, attention_mask=mask).logits[0]
    torch.testing.assert_close(actual, all_logits(policy, clean_row(ids[0], None)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("adapter_only", [False, True])
def test_half_is_the_nearest_fp16(load, tmp_path, adapter_only):
    policy, _ = load("sdar")
    add_adapters(policy, LoraOptions(rank=2), seed=0)
    disturb(policy)
    for name, half in (("whole", False), ("half", True)):
        export_text_policy(policy, tiny_tokenizer(), tmp_path / name, adapter_only=adapter_only, half=half)
    file = "adapter_model.safetensors" if adapter_only else "model.safetensors"
    whole, halved = load_file(tmp_path / "whole" / file), load_file(tmp_path / "half" / file)
    assert {tensor.dtype for tensor in whole.values()} == {torch.float32}
    assert whole.keys() == halved.keys()
    assert all(torch.equal(halved[key], whole[key].half()) for key in whole)


def test_half_of_a_number_beyond_fp16_is_refused_by_name_and_nothing_is_deleted(load, tmp_path):
    policy, _ = load("sdar")
    export_text_policy(policy, tiny_tokenizer(), tmp_path, half=True)
    before = (tmp_path / "model.safetensors").read_bytes()
    parameter = next(iter(policy.parameters()))
    with torch.no_grad():
        parameter.view(-1)[3] = -7e4
    with pytest.raises(CheckpointError, match=r"fp16 holds numbers up to 65504.*\(70000\); export without --half"):
        export_text_policy(policy, tiny_tokenizer(), tmp_path, half=True)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_adapter_folder_is_loaded_by_peft_onto_the_published_module_names(load, tmp_path):
    """LLaDA's own code has other module names, and calls both the head and the MLP's last layer `ff_out`."""
    policy, tensors = load("llada")
    add_adapters(policy, LoraOptions(rank=2), seed=0)
    disturb(policy)
    export_text_policy(policy, tiny_tokenizer(), tmp_path / "adapter", adapter_only=True)

    published = module_tree(tensors)
    merged = PeftModel.from_pretrained(published, tmp_path / "adapter").merge_and_unload().state_dict()
    for name, tensor in merged_state_dict(policy).items():
        torch.testing.assert_close(merged[FAMILIES["llada"].published_name(name)], tensor, rtol=0, atol=1e-6)


def module_tree(tensors: dict[str, torch.Tensor]) -> nn.Module:
    """Modules that hold the tensors under their names; nothing computes."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, leaf, _ = name.split(".")
        parent = root
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        linear = nn.Linear(*reversed(tensor.shape), bias=False) if tensor.dim() == 2 else nn.Module()
        linear.weight = nn.Parameter(tensor.clone())
        parent.add_module(leaf, linear)
    return root


def test_refusals(load, tmp_path):
    policy, _ = load("llada")
    with pytest.raises(ValueError, match="no adapters"):
        export_text_policy(policy, tiny_tokenizer(), tmp_path / "new", adapter_only=True)
    with pytest.raises(ValueError, match="would be overwritten"):
        export_text_policy(policy, tiny_tokenizer(), tmp_path / "llada", tmp_path / "llada")

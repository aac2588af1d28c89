"""The registry against published numbers, and what it refuses."""

from __future__ import annotations

import dataclasses

import jinja2
import pytest
import torch

from models.text.families import FAMILIES, CheckpointError, recognise
from models.text.spec import text_spec
from tests.models.text.published import END, MASK, PUBLISHED, ROWS, tiny_tokenizer

# Embedding rows, mask, pad, stop tokens, logit shift and block of the published checkpoints (sources in families.py).
PUBLISHED_NUMBERS = {
    "llada": (126464, 126336, 126081, {126081, 126348}, 0, None),
    "mmada": (126464 + 8192, 126336, 126081, {126081, 126348}, 0, None),
    "dream": (152064, 151666, 151643, {151643, 151645}, 1, None),
    "sdar": (151936, 151669, 151643, {151643, 151645}, 0, 4),
    "a2d-qwen3": (151936, 151669, 151643, {151643, 151645}, 0, None),
    "a2d-qwen2": (151936, 151665, 151643, {151643, 151645}, 0, None),
    "a2d-llama": (None, None, None, set(), 0, None),
}

# The fields of the published config.json that size the network, and the checkpoint's number of weights.
LLADA_8B = {
    "model_type": "llada",
    "d_model": 4096,
    "n_layers": 32,
    "n_heads": 32,
    "n_kv_heads": 32,
    "mlp_hidden_size": 12288,
    "vocab_size": 126464,
    "embedding_size": 126464,
    "max_sequence_length": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "weight_tying": False,
}
DREAM_7B = {
    "model_type": "Dream",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
}
SDAR_4B = {
    "model_type": "sdar",
    "hidden_size": 2560,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 9728,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "rope_scaling": None,
    "sliding_window": None,
    "use_sliding_window": False,
}


def test_every_family_is_covered():
    assert set(PUBLISHED_NUMBERS) == set(FAMILIES)
    assert {PUBLISHED[name].config["model_type"] for name in PUBLISHED} == {
        model_type for family in FAMILIES.values() for model_type in family.model_types
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_published_numbers(name):
    family = FAMILIES[name]
    rows, mask, pad, stops, shift, block = PUBLISHED_NUMBERS[name]
    assert (family.vocab_size, family.mask_id, family.pad_id) == (rows, mask, pad)
    assert (set(family.stop_ids), family.logit_shift, family.block_length) == (stops, shift, block)


@pytest.mark.parametrize(
    ("config", "weights"),
    [(LLADA_8B, 8_015_581_184), (DREAM_7B, 7_615_616_512), (SDAR_4B, 8_822_848_512 // 2)],
    ids=["LLaDA-8B", "Dream-7B (Qwen2.5-7B)", "SDAR-4B (its safetensors index, bf16)"],
)
def test_network_has_as_many_weights_as_the_published_checkpoint(config, weights):
    family = recognise(config)
    with torch.device("meta"):
        network = family.network_class(family.network_config(config))
    assert sum(parameter.numel() for parameter in network.parameters()) == weights
    assert network.config.rope_parameters["rope_theta"] == config["rope_theta"]


@pytest.mark.parametrize("name", FAMILIES)
def test_recognised_by_model_type_by_architecture_and_by_name(name):
    family = FAMILIES[name]
    for model_type in family.model_types:
        assert recognise({"model_type": model_type}) is family
    for architecture in family.architectures:
        assert recognise({"model_type": "custom", "architectures": [architecture]}) is family
    assert recognise({"model_type": "qwen3"}, name) is family


def test_an_unknown_name_of_the_users_lists_the_known_and_the_nearest():
    with pytest.raises(CheckpointError, match=r"unknown model family 'sdr'.*llada, mmada, dream.*did you mean 'sdar'"):
        recognise({"model_type": "llada"}, "sdr")


@pytest.mark.parametrize(
    ("model_type", "architecture", "what"),
    [
        ("llada2_moe", "LLaDA2MoeModelLM", "LLaDA 2, a mixture of experts"),
        ("llada", "LLaDAMoEModelLM", "LLaDA-MoE, a mixture of experts"),
        ("sdar_moe", "SDARMoeForCausalLM", "SDAR-MoE, a mixture of experts"),
        ("Fast_dLLM_Qwen", "Fast_dLLM_QwenForCausalLM", "Fast-dLLM v2, which shifts"),
        ("aurora_moe", "AuroraMoeModel", "by its name a mixture of experts"),
        ("lada", "LadaModel", "of no known family; known families: llada, mmada"),
    ],
)
def test_a_network_that_is_not_implemented_is_named_and_none_is_guessed(model_type, architecture, what):
    with pytest.raises(CheckpointError, match=what) as refusal:
        recognise({"model_type": model_type, "architectures": [architecture]})
    assert "did you mean" not in str(refusal.value)


@pytest.mark.parametrize("plain", ["llama", "qwen2", "qwen3"])
def test_an_autoregressive_checkpoint_is_told_the_way_in(plain):
    with pytest.raises(CheckpointError, match=rf"autoregressive model.*model\.family=a2d-{plain}, .*block_length"):
        recognise({"model_type": plain, "architectures": ["XForCausalLM"]})


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("llada", "alibi", True),
        ("llada", "include_qkv_bias", True),
        ("llada", "layer_norm_type", "default"),
        ("llada", "scale_logits", True),
        ("dream", "use_sliding_window", True),
        ("sdar", "hidden_act", "gelu"),
        ("sdar", "quantization_config", {"bits": 4}),
    ],
)
def test_a_field_that_would_change_the_computation_is_refused(name, field, value):
    with pytest.raises(CheckpointError, match=field):
        FAMILIES[name].network_config(PUBLISHED[name].config | {field: value})


@pytest.mark.parametrize(("name", "field"), [("llada", "n_layers"), ("llada", "rope_theta"), ("sdar", "hidden_size")])
def test_a_missing_field_is_named(name, field):
    config = {key: value for key, value in PUBLISHED[name].config.items() if key != field}
    with pytest.raises(CheckpointError, match=field):
        FAMILIES[name].network_config(config)


def test_block_causal_attention_with_a_logit_shift_is_refused():
    with pytest.raises(ValueError, match=r"dream.*logit shift.*last token of the block before"):
        dataclasses.replace(FAMILIES["dream"], block_length=32)
    config = PUBLISHED["dream"].config | {"block_size": 32}
    with pytest.raises(CheckpointError, match=r"block_size=32.*shifts its logits"):
        text_spec(FAMILIES["dream"], config, {}, tiny_tokenizer())


@pytest.mark.parametrize(("block_size", "expected"), [(None, None), (8, 8)])
def test_block_size_of_the_checkpoint_goes_before_the_family(block_size, expected):
    for name in ("sdar", "a2d-qwen3", "llada"):
        spec = text_spec(FAMILIES[name], PUBLISHED[name].config | {"block_size": block_size}, {}, tiny_tokenizer())
        assert spec.block_length == expected


@pytest.mark.parametrize("block_size", [0, -4, "4"])
def test_impossible_block_size_is_refused(block_size):
    with pytest.raises(CheckpointError, match="block_size"):
        text_spec(FAMILIES["sdar"], PUBLISHED["sdar"].config | {"block_size": block_size}, {}, tiny_tokenizer())


def test_published_ids_hold_for_the_published_vocabulary_without_any_declaration():
    spec = text_spec(FAMILIES["llada"], LLADA_8B, {}, tiny_tokenizer(mask=False))
    assert spec.mask_id == 126336
    assert spec.stop_ids[:2] == (126081, 126348)
    assert spec.vocab_size == 126464
    assert spec.tokenizer_size == 30
    assert spec.max_length == 4096


def test_generation_config_adds_stop_tokens():
    spec = text_spec(FAMILIES["sdar"], PUBLISHED["sdar"].config, {"eos_token_id": [3, END]}, tiny_tokenizer())
    assert spec.stop_ids == (3, END)


def without(config: dict, *fields: str) -> dict:
    return {key: value for key, value in config.items() if key not in fields}


def test_mask_token_from_the_tokenizer_alone():
    config = without(PUBLISHED["sdar"].config, "mask_token_id")
    assert text_spec(FAMILIES["sdar"], config, {}, tiny_tokenizer()).mask_id == MASK


def test_tokenizer_without_a_mask_token_says_how_to_add_one():
    config = without(PUBLISHED["sdar"].config, "mask_token_id")
    with pytest.raises(CheckpointError, match=r"without a mask token.*mask_token_id.*add_special_tokens"):
        text_spec(FAMILIES["sdar"], config, {}, tiny_tokenizer(mask=False))


def test_contradicting_mask_tokens_are_refused():
    with pytest.raises(CheckpointError, match=rf"mask_token_id=5.*'<mask>' is {MASK}"):
        text_spec(FAMILIES["sdar"], PUBLISHED["sdar"].config | {"mask_token_id": 5}, {}, tiny_tokenizer())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_token_id": ROWS}, f"mask token {ROWS} is outside"),
        ({"mask_token_id": END}, "must be its own"),
        ({"vocab_size": 20}, "tokenizer of another checkpoint"),
    ],
)
def test_impossible_tokens_are_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        text_spec(FAMILIES["sdar"], PUBLISHED["sdar"].config | change, {}, tiny_tokenizer(mask=False))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "llada",
            "<s><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            "mmada",
            "<s><|start_header_id|>user<|end_header_id|>\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n",
        ),
        (
            "dream",
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("sdar", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"),
        ("a2d-qwen3", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"),
        ("a2d-qwen2", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_chat_templates_render_the_published_prompts(name, expected):
    template = jinja2.Environment().from_string(FAMILIES[name].chat_template)
    messages = [{"role": "user", "content": "hi"}]
    assert template.render(messages=messages, add_generation_prompt=True, bos_token="<s>") == expected

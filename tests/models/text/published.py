"""Tiny random checkpoints in exactly the layout that each family publishes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tests.models.text import reference

ROWS = 40
MASK, END = 28, 29


@dataclass(frozen=True)
class Published:
    config: dict[str, Any]
    names: reference.Names
    sizes: reference.Sizes
    logit_shift: int = 0
    block_length: int | None = None


def _llada(model_type: str, architecture: str, tied: bool) -> Published:
    sizes = reference.Sizes(ROWS, 32, 48, 2, 4, 2, 8, rope_theta=5e5, norm_epsilon=1e-5, tied=tied)
    config = {
        "architectures": [architecture],
        "model_type": model_type,
        "auto_map": {"AutoModelForCausalLM": "modeling_llada.LLaDAModelLM"},
        "activation_type": "silu",
        "alibi": False,
        "attention_layer_norm": False,
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "d_model": 32,
        "embedding_size": ROWS,
        "eos_token_id": END,
        "include_bias": False,
        "include_qkv_bias": False,
        "init_std": 0.02,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "mask_token_id": MASK,
        "max_sequence_length": 64,
        "mlp_hidden_size": 48,
        "multi_query_attention": None,
        "n_heads": 4,
        "n_kv_heads": 2,
        "n_layers": 2,
        "pad_token_id": END,
        "rms_norm_eps": 1e-05,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": 500000.0,
        "scale_logits": False,
        "vocab_size": ROWS,
        "weight_tying": tied,
    }
    return Published(config, reference.LLADA, sizes)


def _qwen(model_type: str, architecture: str, tied: bool, **extra: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "attn_implementation": "flex_attention",
        "attention_dropout": 0.0,
        "eos_token_id": END,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "max_window_layers": 2,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
        "vocab_size": ROWS,
        **extra,
    }


def _qwen_sizes(head_width: int, tied: bool, qkv_bias: bool) -> reference.Sizes:
    return reference.Sizes(
        ROWS, 32, 48, 2, 4, 2, head_width, rope_theta=1e6, norm_epsilon=1e-6, tied=tied, qkv_bias=qkv_bias
    )


PUBLISHED = {
    "llada": _llada("llada", "LLaDAModelLM", tied=False),
    "llada-tied": _llada("llada", "LLaDAModelLM", tied=True),
    "mmada": _llada("mmada", "MMadaModelLM", tied=False),
    "dream": Published(
        _qwen("Dream", "DreamModel", False, mask_token_id=MASK, pad_token_id=END),
        reference.QWEN2,
        _qwen_sizes(8, tied=False, qkv_bias=True),
        logit_shift=1,
    ),
    "sdar": Published(
        _qwen("sdar", "SDARForCausalLM", False, head_dim=16, mask_token_id=MASK, block_size=4, debug=False),
        reference.QWEN3,
        _qwen_sizes(16, tied=False, qkv_bias=False),
        block_length=4,
    ),
    "a2d-qwen3": Published(
        _qwen("a2d-qwen3", "A2DQwen3LMHeadModel", True, head_dim=16),
        reference.QWEN3,
        _qwen_sizes(16, tied=True, qkv_bias=False),
    ),
    "a2d-qwen2": Published(
        _qwen("a2d-qwen2", "A2DQwen2LMHeadModel", True), reference.QWEN2, _qwen_sizes(8, tied=True, qkv_bias=True)
    ),
    "a2d-llama": Published(
        _qwen("a2d-llama", "A2DLlamaLMHeadModel", False, head_dim=8, attention_bias=False, mlp_bias=False),
        reference.QWEN2,
        _qwen_sizes(8, tied=False, qkv_bias=False),
    ),
}


def random_tensors(published: Published, seed: int = 0) -> dict[str, Tensor]:
    """Weights large enough that every part of the network shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * (0.15 if len(shape) > 1 else 0.2)
        + (1.0 if "norm" in name or "ln_f" in name else 0.0)
        for name, shape in reference.shapes(published.names, published.sizes).items()
    }


def tiny_tokenizer(mask: bool = True) -> PreTrainedTokenizerFast:
    """26 letters, space, and the special tokens; 30 ids behind which 10 rows of the embedding are unused."""
    words = [*"abcdefghijklmnopqrstuvwxyz ", "<unk>", "<mask>", "<end>"]
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    special = {"mask_token": "<mask>"} if mask else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="<end>", pad_token="<end>", **special
    )
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


def write_checkpoint(folder: Path, published: Published, *, shards: int = 1, seed: int = 0) -> dict[str, Tensor]:
    """Writes config.json, tokenizer and weights; returns the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(published.config, indent=2))
    tensors = random_tensors(published, seed)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return tensors
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[shard::shards])
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return tensors

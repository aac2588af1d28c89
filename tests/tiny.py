"""Tiny random policies of both attention kinds, for exactness tests."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from models.exact_attention import EXACT
from models.text.policy import TextPolicy
from models.text.spec import TextSpec


def tiny_policy(
    family: str = "sdar",
    *,
    words: int = 8,
    block_length: int = 4,
    scale: float = 3.0,
    seed: int = 0,
    max_length: int = 128,
    logit_shift: int | None = None,
) -> TextPolicy:
    """Two layers, `words` ordinary tokens of which the last is the stop token, then padding, then MASK.

    Args:
        scale: multiplies the head, so that the distributions are far from uniform.
    """
    pad, mask = words, words + 1
    size = {
        "vocab_size": words + 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": max_length,
        "tie_word_embeddings": False,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if family == "sdar":
            network = Qwen3ForCausalLM(Qwen3Config(head_dim=16, **size))
        elif family == "dream":
            network = Qwen2ForCausalLM(Qwen2Config(**size))
        else:
            network = LlamaForCausalLM(LlamaConfig(**size))
        for parameter in network.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
        network.lm_head.weight.data *= scale
    # As a network that is loaded to a CPU (models.checkpoint). Attention of transformers' own choice leaves a replay up
    # to 1.1e-5 from its record, by the processor's instruction set; this one at most 1.7e-6.
    network.set_attn_implementation(EXACT)
    spec = TextSpec(
        family=family,
        block_length=block_length if family == "sdar" else None,
        logit_shift=logit_shift if logit_shift is not None else int(family == "dream"),
        mask_id=mask,
        pad_id=pad,
        stop_ids=(words - 1,),
        vocab_size=words + 2,
        tokenizer_size=words + 2,
        max_length=max_length,
    )
    return TextPolicy(network.eval(), spec)

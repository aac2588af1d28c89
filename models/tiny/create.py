"""Untrained tiny policies: `python -m models.tiny.create block|full FOLDER`. `make bases` trains them.

`block` is a block-causal SDAR, `full` a bidirectional LLaDA. Both read any ASCII text: a token is a printable character
with the space or line break before it, so that a 4x4 Sudoku is sixteen tokens.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from models.text.checkpoint import build_text_policy
from models.text.export import export_text_policy

SPECIAL = ("<|pad|>", "<|mask|>", "<|end|>", "<|answer|>")
PRINTABLE = [chr(code) for code in range(33, 127)]
WIDTH, LAYERS, HEADS, FEED_FORWARD, POSITIONS = 96, 4, 4, 256, 256


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = [*SPECIAL, " ", "\n", *(prefix + character for prefix in ("", " ", "\n") for character in PRINTABLE)]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[ \n]?[^ \n]|[ \n]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[0],
        mask_token=SPECIAL[1],
        eos_token=SPECIAL[2],
        additional_special_tokens=[SPECIAL[3]],
        chat_template="{% for message in messages %}{{ message.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|answer|>{% endif %}",
        clean_up_tokenization_spaces=False,
    )


def tiny_config(kind: str, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """A config.json in the layout that the family publishes."""
    ids = {
        "mask_token_id": tokenizer.mask_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if kind == "block":
        return ids | {
            "architectures": ["SDARForCausalLM"],
            "model_type": "sdar",
            "block_size": 4,
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": FEED_FORWARD,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "head_dim": WIDTH // HEADS,
            "max_position_embeddings": POSITIONS,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        }
    return ids | {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "vocab_size": len(tokenizer),
        "embedding_size": len(tokenizer),
        "d_model": WIDTH,
        "mlp_hidden_size": FEED_FORWARD,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "n_kv_heads": HEADS,
        "max_sequence_length": POSITIONS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "weight_tying": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "rope": True,
        "alibi": False,
    }


def main(kind: str, folder: str) -> None:
    tokenizer = tiny_tokenizer()
    export_text_policy(build_text_policy(tiny_config(kind, tokenizer), tokenizer, seed=0), tokenizer, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])

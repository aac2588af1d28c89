"""Pairs that anyone can tell apart, and tiny untrained bases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from models.tiny.create import tiny_tokenizer
from rl.preference.options import PreferenceOptions

PROMPTS = [f"say {first}{second}" for first in "abcdefgh" for second in "12345678"]


def rows(count: int = 64) -> list[dict[str, Any]]:
    return [{"prompt": PROMPTS[place], "chosen": "yes", "rejected": "no"} for place in range(count)]


def write(file: Path, content: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in content))
    return file


def causal_base(folder: Path) -> Path:
    """A Llama of one layer, whose configuration names no padding token."""
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=48, num_labels=1, **size)
        LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def text_options(root: Path, **changed: Any) -> PreferenceOptions:
    given = {"pairs": str(root / "pairs.jsonl"), "base": str(root / "base"), "output": str(root / "model")}
    return PreferenceOptions(
        **{**given, "held_out": 0.5, "epochs": 6, "batch_size": 8, "learning_rate": 1e-2, **changed}
    )

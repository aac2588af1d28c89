"""Tokenizers and frozen text encoders of the tiny image bases: CLIP's classes with few words and random weights.

An encoder need not understand prompts here, only tell them apart: the denoiser, which is trained, learns what the words
mean. Random embeddings of words and places do that, and cost no training.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

WORDS = (
    *("a", "an", "the", "one", "two", "three"),
    *("red", "green", "blue", "yellow"),
    *("circle", "square", "triangle", "circles", "squares", "triangles"),
    *("above", "below", "left", "right", "of", "to", "and"),
    *("digit", "zero", "four", "five", "six", "seven", "eight", "nine"),
)
"""Words of one token; any other text falls back to smaller pieces, down to its bytes."""

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
MAX_TOKENS = 16
"""Tokens of a prompt with its start and end; the longest prompt of the scenes has ten."""
WIDTH = 64


def prompt_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-pair encoding with merges that make every word of `WORDS` one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    trainer = trainers.BpeTrainer(vocab_size=100_000, end_of_word_suffix=WORD_END, show_progress=False)
    # One pass to exhaustion: a word whose pieces can still be merged is merged further.
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator([" ".join(WORDS)], trainer)
    merges: Any = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(letter + WORD_END for letter in alphabet), *(left + right for left, right in merges)]
    vocabulary = {piece: index for index, piece in enumerate([*dict.fromkeys(pieces), START, END])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def text_encoder_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def scramble(encoder: CLIPTextModel | CLIPTextModelWithProjection, seed: int) -> None:
    """Random weights that keep the scale of what passes through, so that different prompts stay apart."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(generator=generator)
            elif isinstance(module, nn.Linear):
                module.weight.normal_(std=module.in_features**-0.5, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()


def silent_t5(width: int) -> tuple[T5Tokenizer, T5EncoderModel]:
    """A T5 that says nothing: zeros, exactly, which is what the pipeline puts in place of one that is absent.

    The bases were trained without it (`model.max_sequence_length=0`); `DiffusionPipeline.from_pretrained` takes no
    Stable Diffusion 3 whose folder has none.
    """
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((f"▁{word}", -1.0) for word in WORDS)]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=MAX_TOKENS)
    config = T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=8, num_layers=1, num_heads=1)
    encoder = T5EncoderModel(config)
    nn.init.zeros_(encoder.encoder.final_layer_norm.weight)
    return tokenizer, encoder.eval()

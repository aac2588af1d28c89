"""The published text architectures, written a second time in plain PyTorch from their papers and public code.

Pre-norm transformer with RMSNorm (arXiv 1910.07467), rotary positions on half-split pairs (arXiv 2104.09864), SwiGLU
(arXiv 2002.05202), grouped keys (arXiv 2305.13245). Qwen2 has biases on q, k and v; Qwen3 a norm per head of q and k.
Takes weights in their published names. Slow, and independent of transformers and of `models`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Names:
    """Published tensor names, without `.weight` and `.bias`; `{}` is the layer."""

    embedding: str
    final_norm: str
    head: str
    attention_norm: str
    mlp_norm: str
    query: str
    key: str
    value: str
    output: str
    gate: str
    up: str
    down: str
    query_norm: str | None = None
    key_norm: str | None = None


LLADA = Names(
    embedding="model.transformer.wte",
    final_norm="model.transformer.ln_f",
    head="model.transformer.ff_out",
    attention_norm="model.transformer.blocks.{}.attn_norm",
    mlp_norm="model.transformer.blocks.{}.ff_norm",
    query="model.transformer.blocks.{}.q_proj",
    key="model.transformer.blocks.{}.k_proj",
    value="model.transformer.blocks.{}.v_proj",
    output="model.transformer.blocks.{}.attn_out",
    gate="model.transformer.blocks.{}.ff_proj",
    up="model.transformer.blocks.{}.up_proj",
    down="model.transformer.blocks.{}.ff_out",
)
QWEN2 = Names(
    embedding="model.embed_tokens",
    final_norm="model.norm",
    head="lm_head",
    attention_norm="model.layers.{}.input_layernorm",
    mlp_norm="model.layers.{}.post_attention_layernorm",
    query="model.layers.{}.self_attn.q_proj",
    key="model.layers.{}.self_attn.k_proj",
    value="model.layers.{}.self_attn.v_proj",
    output="model.layers.{}.self_attn.o_proj",
    gate="model.layers.{}.mlp.gate_proj",
    up="model.layers.{}.mlp.up_proj",
    down="model.layers.{}.mlp.down_proj",
)
QWEN3 = Names(
    **vars(QWEN2)
    | {
        "query_norm": "model.layers.{}.self_attn.q_norm",
        "key_norm": "model.layers.{}.self_attn.k_norm",
    }
)


@dataclass(frozen=True)
class Sizes:
    vocabulary: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    key_heads: int
    head_width: int
    rope_theta: float
    norm_epsilon: float
    tied: bool = False
    qkv_bias: bool = False


def shapes(names: Names, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Every tensor of a published checkpoint, and its shape."""
    found = {f"{names.embedding}.weight": (sizes.vocabulary, sizes.width), f"{names.final_norm}.weight": (sizes.width,)}
    if not sizes.tied:
        found[f"{names.head}.weight"] = (sizes.vocabulary, sizes.width)
    queries, keys = sizes.heads * sizes.head_width, sizes.key_heads * sizes.head_width
    for layer in range(sizes.layers):
        for name, rows in [(names.query, queries), (names.key, keys), (names.value, keys)]:
            found[f"{name.format(layer)}.weight"] = (rows, sizes.width)
            if sizes.qkv_bias:
                found[f"{name.format(layer)}.bias"] = (rows,)
        found[f"{names.output.format(layer)}.weight"] = (sizes.width, queries)
        found[f"{names.gate.format(layer)}.weight"] = (sizes.mlp_width, sizes.width)
        found[f"{names.up.format(layer)}.weight"] = (sizes.mlp_width, sizes.width)
        found[f"{names.down.format(layer)}.weight"] = (sizes.width, sizes.mlp_width)
        for name in (names.attention_norm, names.mlp_norm):
            found[f"{name.format(layer)}.weight"] = (sizes.width,)
        for name in filter(None, (names.query_norm, names.key_norm)):
            found[f"{name.format(layer)}.weight"] = (sizes.head_width,)
    return found


def logits(
    tensors: dict[str, Tensor], names: Names, sizes: Sizes, ids: Tensor, positions: Tensor, allowed: Tensor
) -> Tensor:
    """(N, V) logits of one row, before any shift.

    Args:
        ids, positions: (N,).
        allowed: (N, N) bool, query by key.
    """

    def norm(x: Tensor, name: str) -> Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + sizes.norm_epsilon) * tensors[f"{name}.weight"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ tensors[f"{name}.weight"].T + tensors.get(f"{name}.bias", torch.zeros(()))

    def rotate(x: Tensor) -> Tensor:  # (N, heads, head_width)
        half = sizes.head_width // 2
        frequencies = sizes.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)
        angle = positions[:, None, None].float() * frequencies
        first, second = x[..., :half], x[..., half:]
        return torch.cat(
            [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1
        )

    x = tensors[f"{names.embedding}.weight"][ids]
    for layer in range(sizes.layers):
        h = norm(x, names.attention_norm.format(layer))
        query = linear(h, names.query.format(layer)).unflatten(-1, (sizes.heads, sizes.head_width))
        key = linear(h, names.key.format(layer)).unflatten(-1, (sizes.key_heads, sizes.head_width))
        value = linear(h, names.value.format(layer)).unflatten(-1, (sizes.key_heads, sizes.head_width))
        if names.query_norm and names.key_norm:
            query, key = norm(query, names.query_norm.format(layer)), norm(key, names.key_norm.format(layer))
        query, key = rotate(query), rotate(key)
        heads = []
        for head in range(sizes.heads):
            shared = head * sizes.key_heads // sizes.heads
            scores = query[:, head] @ key[:, shared].T / sizes.head_width**0.5
            heads.append(scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ value[:, shared])
        x = x + linear(torch.cat(heads, dim=-1), names.output.format(layer))
        h = norm(x, names.mlp_norm.format(layer))
        gated = functional.silu(linear(h, names.gate.format(layer))) * linear(h, names.up.format(layer))
        x = x + linear(gated, names.down.format(layer))
    x = norm(x, names.final_norm)
    return linear(x, names.embedding if sizes.tied else names.head)

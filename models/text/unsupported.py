"""Published diffusion language models whose networks are not implemented, so that an error can say what they are."""

from __future__ import annotations

from collections.abc import Collection

_EXPERTS = "a mixture of experts, and its layers are not implemented"
UNSUPPORTED = {
    "llada2_moe": f"LLaDA 2, {_EXPERTS}",
    "LLaDA2MoeModelLM": f"LLaDA 2, {_EXPERTS}",
    "LLaDAMoEModel": f"LLaDA-MoE, {_EXPERTS}",
    "LLaDAMoEModelLM": f"LLaDA-MoE, {_EXPERTS}",
    "sdar_moe": f"SDAR-MoE, {_EXPERTS}",
    "SDARMoeForCausalLM": f"SDAR-MoE, {_EXPERTS}",
    "rnd1": f"RND1, {_EXPERTS}",
    "RND1": f"RND1, {_EXPERTS}",
    "Fast_dLLM_Qwen": "Fast-dLLM v2, which shifts its logits within blocks, and that is not implemented",
    "Fast_dLLM_QwenForCausalLM": "Fast-dLLM v2, which shifts its logits within blocks, and that is not implemented",
    "diffusion_gemma": "DiffusionGemma, whose decoder over an encoded prompt is not implemented",
    "DiffusionGemmaForBlockDiffusion": "DiffusionGemma, whose decoder over an encoded prompt is not implemented",
    "a2d-qwen3_5": "A2D of Qwen3.5, whose linear attention is not implemented",
    "a2d-modernbert": "A2D of ModernBERT, an encoder that is not implemented",
    "llava_llada": "LLaDA-V, which looks at pictures; its vision tower is not implemented",
    "LlavaLLaDAModelLM": "LLaDA-V, which looks at pictures; its vision tower is not implemented",
}
"""`model_type` or a member of `architectures` -> what it is, in the authors' public code (2026-11)."""


def what_it_is(model_type: object, architectures: Collection[object]) -> str:
    """What a checkpoint of no known family is; architectures say more than a model_type that two networks share."""
    names = [str(name) for name in (*architectures, model_type)]
    known = next((UNSUPPORTED[name] for name in names if name in UNSUPPORTED), None)
    if known is None and any("moe" in name.lower() for name in names):
        return f"by its name {_EXPERTS}"
    return known or "of no known family"

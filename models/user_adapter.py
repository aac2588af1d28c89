"""Attention to a vector of the user beside the attention to the prompt (PPD, arXiv 2501.06655).

It is the decoupled cross-attention of IP-Adapter (arXiv 2308.06721, section 3.2.2), with a user in place of an image:

    output = attention(Q, K_prompt, V_prompt) + scale x attention(Q, K_user, V_user)

The user's vector is projected to a few tokens; K_user and V_user are new projections of these, and share the prompt's
queries. All modules are diffusers' own, so that a stock pipeline loads them as an IP-Adapter. V_user starts at zero:
the adapted network computes what the loaded one did. Without the second term it is the reference model of a preference
loss, which knows no user and costs no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from models.options import UserAdapterOptions
from models.policy import Policy

TOKENS = 4
"""Of a user. Files of this format do not say how many there are, and their readers take 4."""

AnyPolicy = TypeVar("AnyPolicy", bound=Policy)


def add_user_adapter(policy: Policy, options: UserAdapterOptions, seed: int) -> None:
    """Puts the adapter into the policy and freezes everything else. The policy computes what it did before.

    Args:
        seed: of the adapter's first weights; torch's global generators are left as they were.

    Raises:
        ValueError: the network is no U-Net.
    """
    # Here, because this module is asked about text models too, which do not wait for diffusers.
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
    from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection

    network: Any = policy.network
    if not isinstance(network, UNet2DConditionModel):
        raise ValueError(
            f"model.user_adapter is for the U-Nets of Stable Diffusion 1, 2 and XL, and this network is a "
            f"{type(network).__name__}; choose such a model, or model.user_adapter=null"
        )
    network.requires_grad_(False)
    precision = {"dtype": network.dtype, "device": network.device}
    width = network.config.cross_attention_dim
    processors = dict(network.attn_processors)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
        projection = ImageProjection(options.dimension, width, TOKENS)
        for name in processors:
            if name.endswith("attn2.processor"):  # attention to the prompt; attn1 is the picture's to itself
                queries = network.get_submodule(name.removesuffix(".processor")).to_q.out_features
                processor = IPAdapterAttnProcessor2_0(queries, width, (TOKENS,), options.scale)
                nn.init.zeros_(processor.to_v_ip[0].weight)
                processors[name] = processor.to(**precision)
    network.set_attn_processor(processors)
    network.encoder_hid_proj = MultiIPAdapterImageProjection([projection]).to(**precision)
    network.register_to_config(encoder_hid_dim_type="ip_image_proj")


def has_user_adapter(policy: Policy) -> bool:
    return getattr(policy.network, "encoder_hid_proj", None) is not None


@contextmanager
def without_user(policy: AnyPolicy) -> Iterator[AnyPolicy]:
    """The policy as it was before `add_user_adapter`, for the duration of the block, whatever users it is given."""
    attentions = _attentions(policy)
    scales = [attention.scale for attention in attentions]
    for attention in attentions:
        attention.scale = [0.0]  # diffusers then leaves the second term out
    try:
        yield policy
    finally:
        for attention, scale in zip(attentions, scales, strict=True):
            attention.scale = scale


def user_adapter_tensors(policy: Policy) -> dict[str, Tensor]:
    """The adapter's weights by the names of an IP-Adapter file, with the scale in V: the file has no field for it."""
    projection = policy.network.encoder_hid_proj.image_projection_layers[0]
    tensors = {f"image_proj.{name.replace('image_embeds', 'proj')}": t for name, t in projection.state_dict().items()}
    for place, attention in enumerate(_attentions(policy)):
        name = f"ip_adapter.{2 * place + 1}"  # the format counts attentions to the picture and to the prompt in turn
        tensors[f"{name}.to_k_ip.weight"] = attention.to_k_ip[0].weight.detach()
        tensors[f"{name}.to_v_ip.weight"] = attention.to_v_ip[0].weight.detach() * attention.scale[0]
    return tensors


def _attentions(policy: Policy) -> list[Any]:
    """diffusers' IPAdapterAttnProcessor2_0, in the network's order."""
    processors = getattr(policy.network, "attn_processors", {})
    return [processor for processor in processors.values() if hasattr(processor, "to_k_ip")]

"""The value network of texts. Its first prediction is 0."""

from __future__ import annotations

from torch import nn

from models.text.policy import TextPolicy


def text_value(policy: TextPolicy) -> TextPolicy:
    """The policy with a head of one number instead of logits: the same backbone, read at the same places (TraceRL's
    value model, arXiv 2509.06949).

    The head is trained, and what of the backbone is trained in the policy: adapters, or everything.

    Args:
        policy: loaded for this; it is changed.
    """
    width, network = policy.network.config.hidden_size, policy.network
    head = nn.utils.skip_init(nn.Linear, width, 1, bias=False, device=policy.device, dtype=network.dtype)
    nn.init.zeros_(head.weight)
    network.lm_head = head
    return policy

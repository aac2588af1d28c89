"""Low-rank adapters (LoRA, arXiv 2106.09685) inside a policy, through PEFT.

PEFT replaces the target layers in place, so the parts of `policy.trained` stay where they are. The reference model of a
KL penalty costs no memory: it is the policy `without_adapters`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from models.options import LoraOptions
from models.policy import Policy
from models.user_adapter import has_user_adapter, without_user

if TYPE_CHECKING:  # PEFT takes a second to import, and most runs have no adapters
    from peft import LoraConfig
    from peft.tuners import lora

ADAPTER = "default"
"""Name of the adapter in PEFT."""


AnyPolicy = TypeVar("AnyPolicy", bound=Policy)


def add_adapters(policy: Policy, options: LoraOptions, seed: int) -> None:
    """Puts adapters into the policy and freezes everything else. The policy computes what it did before.

    Args:
        options: `target_modules` are the last parts of transformers' or diffusers' module names, such as "q_proj" or
            "to_out.0", whatever the published ones are.
        seed: of the adapters' first weights; torch's global generators are left as they were.

    Raises:
        ValueError: a target module does not exist; the message lists the available ones.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if has_adapters(policy):
        raise ValueError("the policy has adapters already; merge them or load it again")
    linear = [name for name, module in policy.adaptable.named_modules() if isinstance(module, nn.Linear)]
    unknown = [
        target for target in options.target_modules if not any(f".{name}".endswith(f".{target}") for name in linear)
    ]
    if unknown or not options.target_modules:
        available = sorted({_short_name(name) for name in linear})
        raise ValueError(f"model.lora.target_modules: {unknown} not found; available: {available}")
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # PEFT only divides it by the rank
        target_modules=list(options.target_modules),
        lora_dropout=0.0,
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # PEFT draws on the CPU; torch.manual_seed would seed GPUs too
        inject_adapter_in_model(config, policy.trained, ADAPTER)


@contextmanager
def without_adapters(policy: AnyPolicy) -> Iterator[AnyPolicy]:
    """The policy as it was before it got adapters, for the duration of the block: the reference model."""
    if has_user_adapter(policy):
        with without_user(policy):
            yield policy
        return
    layers = list(_lora_layers(policy).values())
    if not layers:
        raise ValueError("the policy has no adapters: there is no reference model inside it")
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield policy
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def has_adapters(policy: Policy) -> bool:
    """Low-rank ones, or one for users."""
    return bool(_lora_layers(policy)) or has_user_adapter(policy)


def trainable_parameters(policy: Policy) -> dict[str, nn.Parameter]:
    """What an optimizer updates, by name: the adapters where there are some, else every weight."""
    return {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def merged_state_dict(policy: Policy) -> dict[str, Tensor]:
    """The trained part's weights and saved buffers by its library's names, adapters added in; tied weights appear once.

    Without adapters the tensors are the policy's own, not copies.
    """
    layers = _lora_layers(policy)
    saved = policy.trained.state_dict().keys()
    tensors = {name: buffer for name, buffer in policy.trained.named_buffers() if name in saved}
    for name, parameter in policy.trained.named_parameters():
        module, _, leaf = name.rpartition(".")
        if ".lora_" in name:
            continue
        if module.endswith(".base_layer"):
            module = module.removesuffix(".base_layer")
            value = parameter.detach()
            if leaf == "weight":
                value = value + layers[module].get_delta_weight(ADAPTER)
            tensors[f"{module}.{leaf}"] = value
        else:
            tensors[name] = parameter.detach()
    return tensors


def adapter_config(policy: Policy) -> LoraConfig:
    from peft import LoraConfig

    configs: Any = policy.trained.peft_config
    config = configs[ADAPTER]
    assert isinstance(config, LoraConfig)
    return config


def adapter_tensors(policy: Policy) -> dict[tuple[str, str], Tensor]:
    """Adapter weights by (the adapted module's name in the trained part, "lora_A" or "lora_B")."""
    return {
        (module, side): getattr(layer, side)[ADAPTER].weight.detach()
        for module, layer in _lora_layers(policy).items()
        for side in ("lora_A", "lora_B")
    }


def _lora_layers(policy: Policy) -> dict[str, lora.Linear]:
    if not hasattr(policy.trained, "peft_config"):  # which `inject_adapter_in_model` sets
        return {}
    from peft.tuners import lora

    return {name: module for name, module in policy.trained.named_modules() if isinstance(module, lora.Linear)}


def _short_name(module: str) -> str:
    """The part of a module's name that tells its role: "q_proj", or "to_out.0" for an element of a list."""
    parts = module.split(".")
    return ".".join(parts[-2:] if parts[-1].isdigit() else parts[-1:])

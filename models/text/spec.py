"""`TextSpec`, and how what a checkpoint says about its tokens and attention becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.text.families import SHIFT_NEEDS_FULL_ATTENTION, CheckpointError, TextFamily

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TextSpec:
    """What everyone else must know about a text model; declared once per family, adjusted by the checkpoint."""

    family: str
    block_length: int | None
    """Block of the block-causal attention; None is bidirectional."""
    logit_shift: int
    """0: position k's logits are read at k; 1: they are read at k - 1 (Dream)."""
    mask_id: int
    pad_id: int
    stop_ids: tuple[int, ...]
    """A completion ends with the first of these."""
    vocab_size: int
    """Rows of the output head; ids from `tokenizer_size` on exist only as padding of the matrix."""
    tokenizer_size: int
    max_length: int
    """Positions the network was built for."""

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids that mean something to the sampler, and are no text."""
        return frozenset({self.mask_id, self.pad_id, *self.stop_ids})

    @property
    def forbidden_ids(self) -> tuple[int, ...]:
        """Ids that no sampler may produce: MASK, padding that is not also a stop token, and unused matrix rows."""
        special = {self.mask_id, self.pad_id} - set(self.stop_ids)
        return tuple(sorted(special | set(range(self.tokenizer_size, self.vocab_size))))


def text_spec(
    family: TextFamily,
    config: Mapping[str, Any],
    generation_config: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
) -> TextSpec:
    """Spec of a checkpoint; what it declares itself goes before the family's published values.

    Args:
        config: the published config.json.
        generation_config: generation_config.json, empty if there is none.

    Raises:
        CheckpointError: a token is declared nowhere, twice differently, or outside the vocabulary.
    """
    network = family.network_fields(config)
    rows = network["vocab_size"]
    defaults = family if rows == family.vocab_size else None  # the published ids mean nothing in another vocabulary
    tokenizer_size = max(tokenizer.get_vocab().values()) + 1
    if tokenizer_size > rows:
        raise CheckpointError(
            f"the tokenizer has ids up to {tokenizer_size - 1}, but the embedding of config.json has {rows} rows only; "
            "this is the tokenizer of another checkpoint"
        )

    block_length = config.get("block_size", family.block_length)
    if block_length is not None and (not isinstance(block_length, int) or block_length < 1):
        raise CheckpointError(f"config.json says block_size={block_length!r}; it must be a positive integer or null")
    if block_length is not None and family.logit_shift:
        raise CheckpointError(
            f"config.json says block_size={block_length}, but family {family.name} shifts its logits by "
            f"{family.logit_shift}: {SHIFT_NEEDS_FULL_ATTENTION}"
        )

    mask_id = _mask_id(family, config, tokenizer, defaults)
    stop_ids = _distinct(
        [
            *(defaults.stop_ids if defaults else ()),
            *_as_list(generation_config.get("eos_token_id")),
            *_as_list(config.get("eos_token_id")),
            *_as_list(tokenizer.eos_token_id),
        ]
    )
    pad_id = _first(config.get("pad_token_id"), tokenizer.pad_token_id, defaults.pad_id if defaults else None)
    if config.get("model_type") in family.adapts and stop_ids:  # autoregressive models are published without padding
        pad_id = _first(pad_id, stop_ids[0])
    if pad_id is None:
        raise CheckpointError(
            "no padding token: declare pad_token_id in config.json or pad_token in tokenizer_config.json"
        )
    if not stop_ids:
        raise CheckpointError(
            "no stop token: declare eos_token in tokenizer_config.json or eos_token_id in config.json"
        )
    for role, token_id in [("mask", mask_id), ("pad", pad_id), *(("stop", stop_id) for stop_id in stop_ids)]:
        if not 0 <= token_id < rows:
            raise CheckpointError(f"the {role} token {token_id} is outside the embedding's {rows} rows")
    if mask_id in (pad_id, *stop_ids):
        raise CheckpointError(f"the mask token {mask_id} is also the padding token or a stop token; it must be its own")

    return TextSpec(
        family=family.name,
        block_length=block_length,
        logit_shift=family.logit_shift,
        mask_id=mask_id,
        pad_id=pad_id,
        stop_ids=stop_ids,
        vocab_size=rows,
        tokenizer_size=tokenizer_size,
        max_length=network["max_position_embeddings"],
    )


def with_mask_token(config: dict[str, Any], token: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Enters the id of a token that the options name into config.json as its mask.

    Raises:
        CheckpointError: the tokenizer has no such token, or the checkpoint names another one.
    """
    wanted = tokenizer.get_vocab().get(token)
    if wanted is None:
        raise CheckpointError(
            f"model.mask_token={token!r}: the tokenizer has no such token; name one that it has and that no text "
            f"holds, such as one that is reserved"
        )
    named = _first(config.get("mask_token_id"), tokenizer.mask_token_id)
    if named not in (None, wanted):
        raise CheckpointError(
            f"model.mask_token={token!r} is {wanted}, but the checkpoint names {named} as its mask; leave it out"
        )
    config["mask_token_id"] = wanted


def _mask_id(
    family: TextFamily, config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, defaults: TextFamily | None
) -> int:
    declared, known = config.get("mask_token_id"), tokenizer.mask_token_id
    if declared is not None and known is not None and declared != known:
        raise CheckpointError(
            f"config.json says mask_token_id={declared}, but the tokenizer's mask token {tokenizer.mask_token!r} is "
            f"{known}; correct the wrong one"
        )
    if (named := _first(declared, known)) is not None:
        return named
    if defaults is None or defaults.mask_id is None:
        raise CheckpointError(
            "tokenizer without a mask token: neither config.json (mask_token_id) nor the tokenizer (mask_token) has "
            f"one, and the vocabulary is not a published one of family {family.name}. If the model was trained with "
            'a mask token, add "mask_token_id" to config.json, or name it with model.mask_token; if not, name one of '
            "the tokenizer's that no text holds, such as one that is reserved, or add one, "
            "tokenizer.add_special_tokens({'mask_token': '<|mask|>'}), enlarge the embedding and save both: it is no "
            "diffusion model before it was trained with it"
        )
    spelled = next((token for token, place in tokenizer.get_vocab().items() if place == defaults.mask_id), None)
    if spelled is not None and "mask" not in spelled.lower():
        raise CheckpointError(
            f"the mask token of family {family.name} is {defaults.mask_id}, but this tokenizer has {spelled!r} there; "
            "name a token that no text holds with model.mask_token"
        )
    return defaults.mask_id


def _first(*candidates: int | None) -> int | None:
    return next((candidate for candidate in candidates if candidate is not None), None)


def _as_list(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else ids if isinstance(ids, list) else [ids]


def _distinct(ids: list[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(ids))

"""Options of the policy network."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Optional

from omegaconf import MISSING


class Modality(Enum):
    """What the policy generates; decides how it is loaded, sampled and replayed."""

    text = "text"
    """Token sequences, by a masked or block-diffusion language model."""
    image = "image"
    """Images, by a diffusers pipeline."""


class Precision(Enum):
    """Storage type of the weights and activations; log-probabilities are always computed in fp32."""

    fp32 = "fp32"
    """32 bits."""
    bf16 = "bf16"
    """16 bits with the range of fp32; half the memory."""


class TrainedPart(Enum):
    """Which part of the model is trained; the rest is frozen."""

    network = "network"
    """The language model, or the image model's denoiser."""
    text_encoder = "text_encoder"
    """An image model's text encoders, all that its pipeline has (TextCraftor, arXiv 2403.18978)."""


@dataclass
class LoraOptions:
    """Low-rank adapters through PEFT. There is no dropout option: dropout would make the ratio differ from 1."""

    rank: int = 16
    """Rank of the two factors that a layer's update is the product of. Unit: 1."""
    alpha: float = 32.0
    """The update is scaled by alpha / rank. Unit: 1."""
    target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    """Names of the layers that get an adapter, as the network calls them; the default is for language models."""


@dataclass
class UserAdapterOptions:
    """Attention to a vector of the user beside the attention to the prompt (PPD); Stable Diffusion 1, 2 and XL."""

    dimension: int = MISSING
    """Width of the vectors in the column `data.*.user`. Unit: elements."""
    scale: float = 1.0
    """What the attention to the user counts beside the other. Unit: 1."""


@dataclass
class ModelOptions:
    path: str = field(default=MISSING, metadata={"resume": "may change"})
    """Folder or hub id. Text: config.json, safetensors and a tokenizer; `tiny/block` and `tiny/full` are embedded.
    Images: a diffusers pipeline with model_index.json."""
    modality: Modality = Modality.text
    """What the model generates."""
    family: Optional[str] = None  # noqa: UP045 - OmegaConf wants Optional
    """A text model's family in the registry; recognised from config.json when null. An image pipeline names its own. Or
    the dotted path of a `TextFamily` or `ImageFamily` of yours. `a2d-llama`, `a2d-qwen2` and `a2d-qwen3` also take a
    plain Llama, Qwen2 or Qwen3, which they train to be a diffusion model."""
    mask_token: Optional[str] = None  # noqa: UP045
    """Text models: the token that stands for what is not written yet, as the tokenizer spells it, for a checkpoint that
    names none."""
    precision: Precision = Precision.fp32
    """Storage type of weights and activations."""
    train: TrainedPart = TrainedPart.network
    """Which part of the model is trained."""
    lora: Optional[LoraOptions] = None  # noqa: UP045
    """Train adapters only; null trains every weight of the trained part."""
    text_encoder_share: float = 1.0
    """Share of the tuned encoders in a prompt's encoding, the rest being that of the loaded ones (train=text_encoder):
    1 is what is exported, 0 the model as it was. Choose it at evaluation and sampling. Unit: 1."""
    user_adapter: Optional[UserAdapterOptions] = None  # noqa: UP045
    """Condition the model on its user, and train only what that adds; not with `lora`."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: slower, much less memory."""
    block_length: Optional[int] = None  # noqa: UP045
    """Block-causal text models, and those of the families `a2d-*`: tokens of an attention block, in place of the
    checkpoint's `block_size`. Unit: tokens."""
    max_sequence_length: int = 256
    """T5 tokens of an image prompt (SD3, FLUX), at most 512; SD3 runs without T5 if 0. Other models do not read it.
    Unit: tokens."""
    prompt_segments: int = 1
    """Stable Diffusion 1, 2 and XL: a prompt may be this many times as long as the text encoders read. It is split at
    ends of sentences where possible, otherwise between words, and the encoded segments stand behind each other
    (LongAlign, arXiv 2410.11817). 1 refuses longer prompts. Unit: segments."""

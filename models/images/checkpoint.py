"""Reads the parts of a diffusers pipeline folder: the trained network, the prompt encoder, the image codec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from models.files import CheckpointError, find_checkpoint, listed, local_folder, named, opened, weight_files
from models.images.codec import ImageCodec
from models.images.description import Description, read_description
from models.images.policy import ImagePolicy
from models.images.prompt_encoder import PromptEncoder, encoding_pipeline
from models.images.prompt_limits import PromptLimits, load_prompt_tokenizer
from models.images.spec import ImageSpec
from models.lora import add_adapters
from models.options import ModelOptions, TrainedPart
from models.policy import DTYPES
from models.user_adapter import add_user_adapter

SMALL_FILES = ["model_index.json", "*/*.json", "*/*.txt", "*/*.model"]
"""Everything but weights: configurations and tokenizers."""
NETWORK_WEIGHTS = "diffusion_pytorch_model.safetensors"
ENCODER_WEIGHTS = "model.safetensors"

Network = TypeVar("Network", bound=nn.Module)


def load_image_policy(
    options: ModelOptions, *, device: torch.device | str = "cpu", adapter_seed: int = 0
) -> ImagePolicy:
    """The network, in `options.precision`; where the text encoders are trained it is frozen and comes with them.

    The policy is in evaluation mode; training mode computes the same numbers (there is no dropout), and recomputes
    activations if the options say so.

    Args:
        adapter_seed: seed of the adapters' first weights, if the options ask for adapters.

    Raises:
        CheckpointError: the checkpoint cannot be found, or one of its files, fields or tensors is wrong.
    """
    found = _describe(options)
    folder = _download(options, found.family.denoiser, NETWORK_WEIGHTS)
    network = _read_network(found.family.network_class, folder, NETWORK_WEIGHTS, torch_dtype=DTYPES[options.precision])
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if options.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    encoder = None
    if options.train is TrainedPart.text_encoder:
        network.requires_grad_(False)
        encoder = _trained_prompt_encoder(options, device)
    policy = ImagePolicy(network.to(device), found.spec, encoder)
    if options.lora is not None:
        add_adapters(policy, options.lora, adapter_seed)
    if options.user_adapter is not None:
        add_user_adapter(policy, options.user_adapter, adapter_seed)
    return policy.eval()


def load_prompt_encoder(options: ModelOptions, *, device: torch.device | str = "cpu") -> PromptEncoder:
    """The stock pipeline's text encoders, in `options.precision` and frozen, behind its own `encode_prompt`.

    Raises:
        CheckpointError: as `load_image_policy`.
    """
    found = _describe(options)
    pipeline, limits = _encoding_parts(options, found, device)
    return PromptEncoder(found.family, pipeline, limits, options.max_sequence_length)


def _trained_prompt_encoder(options: ModelOptions, device: torch.device | str) -> PromptEncoder:
    """One whose text encoders ask for gradients."""
    found = _describe(options)
    pipeline, limits = _encoding_parts(options, found, device)
    share = options.text_encoder_share
    original = None if share == 1 else load_prompt_encoder(options, device=device)
    encoder = PromptEncoder(found.family, pipeline, limits, options.max_sequence_length, original, share)
    trained: dict[str, Any] = encoder.text_encoders
    for module in trained.values():
        module.requires_grad_(True)
        if options.gradient_checkpointing:
            module.gradient_checkpointing_enable({"use_reentrant": False})
            module.disable_input_require_grads()  # for adapters in one encoder, others would be differentiated too
    return encoder


def _encoding_parts(options: ModelOptions, found: Description, device: torch.device | str) -> tuple[Any, PromptLimits]:
    """The pipeline with frozen encoders, and what its prompts are held to."""
    tokenizers = _read_tokenizers(options, found)
    limits = _limits(options, found, tokenizers)
    components: dict[str, Any] = dict(tokenizers)
    for encoder in found.encoders.values():
        folder = _download(options, encoder, ENCODER_WEIGHTS)
        encoder_class = getattr(transformers, found.index[encoder][1])
        network = _read_network(encoder_class, folder, ENCODER_WEIGHTS, dtype=DTYPES[options.precision])
        components[encoder] = network.to(device).eval().requires_grad_(False)
    if found.family.name == "sd3" and "text_encoder_3" not in components:
        # The pipeline asks the network's config how wide the zeros in place of T5 must be.
        config = SD3Transformer2DModel.load_config(find_checkpoint(options.path, SMALL_FILES) / found.family.denoiser)
        with torch.device("meta"):
            components["transformer"] = SD3Transformer2DModel.from_config(config)
    return encoding_pipeline(found.family, found.index, components), limits


def read_prompt_limits(options: ModelOptions) -> PromptLimits:
    """What `load_prompt_encoder` would hold prompts to, without the weights.

    Raises:
        CheckpointError: as `load_image_policy`.
    """
    found = _describe(options)
    return _limits(options, found, _read_tokenizers(options, found))


def load_image_codec(options: ModelOptions, *, device: torch.device | str = "cpu") -> ImageCodec:
    """The pipeline's VAE, always in fp32: SDXL's overflows in half precision, and rewards look at its pixels.

    Raises:
        CheckpointError: as `load_image_policy`.
    """
    _describe(options)
    folder = _download(options, "vae", NETWORK_WEIGHTS)
    vae = _read_network(AutoencoderKL, folder, NETWORK_WEIGHTS, torch_dtype=torch.float32)
    return ImageCodec(vae.to(device).eval().requires_grad_(False))


def read_image_spec(options: ModelOptions) -> ImageSpec:
    """What `load_image_policy` would put into `policy.spec`, from the JSON files only.

    Raises:
        CheckpointError: one of them is missing or wrong.
    """
    return _describe(options).spec


def read_prompt_width(options: ModelOptions) -> int:
    """Width of a prompt token's embedding, as `load_prompt_encoder` will make it.

    Raises:
        CheckpointError: as `load_image_policy`.
    """
    return _describe(options).prompt_width


def check_image_weights(options: ModelOptions) -> None:
    """Finds missing and truncated weight files by their headers, whose byte ranges must cover the files.

    Costs milliseconds whatever their size. A hub checkpoint is left to the processes that will download it.

    Raises:
        CheckpointError: a file is missing, cut off, or not a safetensors file.
    """
    folder = local_folder(options.path)
    if folder is None:
        return
    found = _describe(options)
    networks = dict.fromkeys([found.family.denoiser, "vae"], NETWORK_WEIGHTS)
    for component, weights in (networks | dict.fromkeys(found.encoders.values(), ENCODER_WEIGHTS)).items():
        _check_files(folder / component, weights)


def _describe(options: ModelOptions) -> Description:
    folder = find_checkpoint(options.path, SMALL_FILES)
    with named(folder):
        return read_description(folder, options.max_sequence_length, options.family)


def _download(options: ModelOptions, component: str, weights: str) -> Path:
    """A component's folder with its weights, in the precision that they were published in first: no fp16 variant."""
    shards = weights.replace(".safetensors", "-*.safetensors")
    return find_checkpoint(options.path, [*SMALL_FILES, f"{component}/{weights}", f"{component}/{shards}"]) / component


def _limits(
    options: ModelOptions, found: Description, tokenizers: Mapping[str, PreTrainedTokenizerBase]
) -> PromptLimits:
    family, segments = found.family, options.prompt_segments
    if family.t5 is not None and segments != 1:
        raise CheckpointError(
            f"model.prompt_segments={segments}, but family {family.name} reads a prompt whole (CLIP and T5); use 1"
        )
    t5 = next((tokenizer for tokenizer, encoder in found.encoders.items() if encoder == family.t5), None)
    return PromptLimits(tokenizers, t5, options.max_sequence_length, segments)


def _read_tokenizers(options: ModelOptions, found: Description) -> dict[str, PreTrainedTokenizerBase]:
    folder = find_checkpoint(options.path, SMALL_FILES)
    return {
        tokenizer: load_prompt_tokenizer(folder / tokenizer, found.index[tokenizer][1], found.texts[encoder])
        for tokenizer, encoder in found.encoders.items()
    }


def _check_files(folder: Path, weights: str) -> None:
    for file in weight_files(folder, weights):
        with opened(file):
            pass


def _read_network(network_class: type[Network], folder: Path, weights: str, **precision: torch.dtype) -> Network:
    """The libraries would draw missing tensors at random, with no more than a warning."""
    _check_files(folder, weights)
    with torch.random.fork_rng(devices=[]):
        network, report = network_class.from_pretrained(  # type: ignore[attr-defined]
            folder,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # reported like the rest
            output_loading_info=True,
            **precision,
        )
    for problem, advice in [
        ("missing_keys", "no tensor"),
        ("mismatched_keys", "tensor of another shape than config.json says:"),
        ("unexpected_keys", "unexpected tensor"),
    ]:
        if names := sorted(key if isinstance(key, str) else str(key[0]) for key in report[problem]):
            raise CheckpointError(f"{folder}: {advice} {listed(names)}")
    return network

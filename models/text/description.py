"""What a checkpoint's small files say: its family, tokenizer and spec. Needs no torch, so the driver reads it, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from models.files import CheckpointError, find_checkpoint, local_folder, named, opened, read_json, weight_files
from models.options import ModelOptions
from models.text.families import TextFamily, named_family, recognise
from models.text.spec import TextSpec, text_spec, with_mask_token
from models.text.tokenizer import load_tokenizer

SMALL_FILES = ["*.json", "*.jinja", "merges.txt", "*.py"]
"""All but the weights. The code is never run here; it goes along into an export, for tools that do run it."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_text_spec(options: ModelOptions) -> TextSpec:
    """What `load_text_policy` would put into `policy.spec`, from the checkpoint's small files only."""
    folder = find_checkpoint(options.path, SMALL_FILES)
    with named(folder):
        return read_description(folder, options)[-1]


def read_tokenizer(options: ModelOptions) -> PreTrainedTokenizerBase:
    """The tokenizer that `load_text_policy` would return, without the weights."""
    folder = find_checkpoint(options.path, SMALL_FILES)
    with named(folder):
        return read_description(folder, options)[2]


def check_weights(options: ModelOptions) -> None:
    """Finds missing and truncated weight files by their headers, whose byte ranges must cover the files.

    Costs milliseconds whatever their size. A hub checkpoint is left to the processes that will download it.

    Raises:
        CheckpointError: a file is missing, cut off, or not a safetensors file.
    """
    folder = local_folder(options.path)
    for file in [] if folder is None else weight_files(folder, WEIGHTS):
        with opened(file, "numpy"):
            pass


def read_description(
    folder: Path, options: ModelOptions
) -> tuple[TextFamily, dict[str, Any], PreTrainedTokenizerBase, TextSpec]:
    """Family, config.json, tokenizer with a chat template, and spec of a checkpoint folder.

    config.json comes with what the options say of the checkpoint, so that an export says it itself: its blocks, its
    mask token, and its family.
    """
    if (folder / "model_index.json").is_file():
        raise CheckpointError(f"checkpoint {folder} is a diffusers pipeline: set model.modality=image")
    config = read_json(folder / "config.json")
    generation = folder / "generation_config.json"
    family = recognise(config, options.family)
    if options.block_length is not None:
        if config.get("block_size", family.block_length) is None and not family.adapts:
            raise CheckpointError(
                f"model.block_length={options.block_length}: {family.name} is bidirectional and has no attention "
                f"blocks; leave it out"
            )
        config["block_size"] = options.block_length
    tokenizer = load_tokenizer(folder)
    if options.mask_token is not None:
        with_mask_token(config, options.mask_token, tokenizer)
    spec = text_spec(family, config, read_json(generation) if generation.is_file() else {}, tokenizer)
    if named_family(config) != family and family.model_types and family.architectures:  # an export says what it is
        config |= {"model_type": family.model_types[0], "architectures": [family.architectures[0]]}
        config |= {"mask_token_id": spec.mask_id, "pad_token_id": spec.pad_id}
    if tokenizer.chat_template is None:
        if spec.vocab_size != family.vocab_size:
            raise CheckpointError(
                f"the tokenizer has no chat template, and that of family {family.name} is for another vocabulary; "
                "add chat_template.jinja to the checkpoint"
            )
        tokenizer.chat_template = family.chat_template
    return family, config, tokenizer, spec

"""Loads a checkpoint's tokenizer from its files, without the checkpoint's own code and whatever its model type."""

from __future__ import annotations

import shlex
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from models.files import CheckpointError, listing


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Tokenizer of a checkpoint folder.

    AutoTokenizer is of no use here: it fails on config.json model types and tokenizer classes that it does not know,
    unless it may run the checkpoint's code. tokenizer.json says everything; Dream and TraDo ship Qwen2's two files.

    Raises:
        CheckpointError: no tokenizer files, or unreadable ones.
    """
    if (folder / "tokenizer.json").is_file():
        loader = PreTrainedTokenizerFast
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        loader = Qwen2Tokenizer
    else:
        raise CheckpointError(
            f"{folder}: no tokenizer: neither tokenizer.json nor vocab.json with merges.txt, but {listing(folder)}. "
            f"hf download OWNER/NAME tokenizer.json --local-dir {shlex.quote(str(folder))} fetches it, where "
            f"OWNER/NAME is the model on the hub"
        )
    try:
        return loader.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise CheckpointError(f"{folder}: unreadable tokenizer: {error}") from error

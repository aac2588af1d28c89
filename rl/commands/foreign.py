"""Exceptions of libraries, told in one message that names the cause and what to do; the original goes into a file.

This is the one place that does so, on the way out of the command line. Whoever uses the library in Python gets the
exception itself.
"""

from __future__ import annotations

import re
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from configs.errors import RUN_FOLDER
from rewards.printable import printable
from rl import OTHERS

OURS = (*OTHERS, "rl")
_TEXT_LIMIT = 600
"""Characters of a library's own message that are shown."""


@dataclass(frozen=True)
class Known:
    library: str
    """Of the exception's class, or of the code that raised it."""
    pattern: str
    """Of `CLASS: message`."""
    fix: str


KNOWN = (
    Known(
        "torch",
        r"OutOfMemoryError|CUDA out of memory",
        "The GPU's memory is full. Lower rollout.prompts_per_ticket or algorithm.micro_batch_tokens, train an "
        "adapter (model.lora), or shard with cluster.zero_stage",
    ),
    Known(
        "",
        r"^MemoryError|can't allocate memory|DefaultCPUAllocator",
        "This machine's memory is full. Lower rollout.prompts_per_ticket or algorithm.micro_batch_tokens, or "
        "start fewer processes",
    ),
    Known(
        "torch",
        r"gloo|NCCL|TCPStore|ProcessGroup",
        "The learners cannot talk to each other. See that GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME, if they are set, "
        "name an interface of this machine, and that the nodes reach each other",
    ),
    Known(
        "safetensors",
        r"",
        "A weight file is damaged, cut short or not safetensors: copy it again from where it came from; of a "
        "run's checkpoint, remove that folder, and the same command goes on from the one before",
    ),
    Known(
        "pyarrow",
        r"",
        "The file is no whole Parquet file: write or copy it again, or name the right one in data.*.name",
    ),
    Known(
        "ray",
        r"OutOfMemoryError|ObjectStoreFullError|OutOfDiskError",
        "Ray ran out of memory or disk on a node. Lower rollout.prompts_per_ticket or "
        "cluster.rollout_workers, or free space in Ray's folder (/tmp/ray)",
    ),
    Known(
        "ray",
        r"",
        "Ray's processes could not do their work. See whether they are alive (`ray status`), and its logs in "
        "/tmp/ray/session_latest/logs; the same command goes on from the last checkpoint",
    ),
    Known(
        "deepspeed",
        r"",
        "DeepSpeed refused the optimizer's settings or state. Check algorithm.optimizer, model.precision and "
        "cluster.zero_stage",
    ),
    Known(
        "datasets",
        r"",
        "The dataset cannot be read. Check data.*.name, its split, and that this machine reaches where it "
        "lies (or has it already)",
    ),
    Known(
        "huggingface_hub",
        r"",
        "The checkpoint or dataset cannot be had. Check its name, HF_TOKEN if it is gated, and the network; a "
        "local folder is given as a path",
    ),
    Known(
        "diffusers",
        r"",
        "The pipeline's folder is not as diffusers expects: compare its model_index.json and its subfolders "
        "with the original, and copy it again if something lacks",
    ),
    Known(
        "transformers",
        r"",
        "The model's folder is not as transformers expects: compare its config.json and tokenizer files with "
        "the original, and copy it again if something lacks",
    ),
)


def told(error: BaseException) -> str:
    """The message for the terminal; writes the original beside the run, or where temporary files lie."""
    frames = traceback.extract_tb(error.__traceback__)
    library = _library(error, frames)
    own = next((frame for frame in reversed(frames) if _package(frame.filename) in OURS), None)
    said = f"{type(error).__name__}: {error}".strip()
    known = next((each for each in KNOWN if each.library in (library, "") and re.search(each.pattern, said)), None)
    if known is not None:
        fix = known.fix
    else:
        fix = "DenoiseRL does not know this one: if options and files are right, the fault is ours; please report it"
    where = f" (from {library}{f', called in {own.name}' if own else ''})" if library else ""
    return f"{printable(said[:_TEXT_LIMIT])}{where}. {fix}. {_kept(error)}"


def _kept(error: BaseException) -> str:
    """Writes the traceback, and says where it is."""
    text = "".join(traceback.format_exception(error))
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}.log"
    folders = [Path(note.removeprefix(RUN_FOLDER)) for note in getattr(error, "__notes__", []) if RUN_FOLDER in note]
    for folder in (*folders, Path(tempfile.gettempdir())):
        try:
            path = folder / name if folder in folders else folder / f"denoiserl-{name}"
            path.write_text(printable(text))
        except OSError:  # a full disk may be the reason for all this
            continue
        return f"The whole traceback is in {path}"
    return f"The whole traceback, which no folder would take:\n{printable(text)}"


def is_ours(error: BaseException) -> bool:
    """Its message names the cause and the fix already."""
    return type(error).__module__.partition(".")[0] in OURS


def _library(error: BaseException, frames: traceback.StackSummary) -> str:
    """Whose exception it is: its class's, or for one of Python's own classes that of the code that raised it."""
    package = type(error).__module__.partition(".")[0].removesuffix("_rust")
    if package != "builtins":
        return package
    files = [frame.filename for frame in frames]
    if error.__cause__ is not None:  # of an actor, whose own frames are text here
        files += re.findall(r'File "([^"]+)"', str(error.__cause__))
    package = _package(files[-1]) if files else ""
    return "" if package in OURS else package


def _package(file: str) -> str:
    """`torch` of .../site-packages/torch/nn/..., `rl` of our own folder."""
    parts = Path(file).parts
    if "site-packages" in parts:
        return Path(parts[parts.index("site-packages") + 1]).stem
    root = Path(__file__).parents[2]
    return Path(file).relative_to(root).parts[0] if Path(file).is_relative_to(root) else ""

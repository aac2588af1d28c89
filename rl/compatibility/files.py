"""Files and folders that are named and not there: found before anything that takes seconds to import."""

from __future__ import annotations

from pathlib import Path

from configs.errors import UserError
from configs.schema import Config
from models.files import HUB_ID, find_checkpoint

FORMATS = (".jsonl", ".json", ".csv", ".parquet")


def check_files(config: Config) -> None:
    """Raises CheckpointError or UserError, which names what is not there."""
    if not HUB_ID.fullmatch(config.model.path):
        find_checkpoint(config.model.path, [])
    for option, source in (("data.train", config.data.train), ("data.evaluation", config.data.evaluation)):
        name = None if source is None else source.name
        if isinstance(name, str) and name.endswith(FORMATS) and not Path(name).exists():
            raise UserError(f"{option}.name={name}: there is no such file; paths are taken from the current folder")

"""Published weights that a reward needs: where they are looked for, and what is said where they are not.

Nothing is downloaded here. A reward process that waits for gigabytes looks like one that hangs, and a file that changes
on a hub would change a reward: the revision is fixed, and whoever starts a run puts its files in place first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

INSTEAD = {"model.safetensors": "pytorch_model.bin"}
"""Weights in the form that some repositories have at their commit; the library loads either."""


@dataclass(frozen=True)
class Checkpoint:
    repository: str
    """On the Hugging Face hub."""
    revision: str | None
    """Commit of the repository that this was written for; None: nobody has named one, whoever uses it has to."""
    files: tuple[str, ...]
    gigabytes: float
    """Of the files together, 1e9 bytes each."""
    licence: str
    """As its repository says."""

    def folder(self, reward: str, path: str | None, revision: str | None = None, argument: str = "path") -> Path:
        """Where the files are: the folder `path`, or the hub's cache on this machine.

        Args:
            reward: who needs them, for the error.
            path: folder with the files, or None.
            revision: instead of the checkpoint's own.
            argument: what `path` is called among the reward's args.

        Raises:
            ValueError: not all of the files are there; says what to download and where to put it.
        """
        if path is not None:
            missing = [name for name in self.files if not any((Path(path) / one).is_file() for one in _forms(name))]
            if not missing:
                return Path(path)
            raise ValueError(
                f"the reward `{reward}` has args.{argument}={path}, which is no folder with {', '.join(missing)}: "
                f"{self._wanted(revision, argument)}"
            )
        if (commit := revision or self.revision) is None:
            raise ValueError(
                f"the reward `{reward}` needs {self.repository}, of which no commit is written down here: name the one "
                f"to use as args.revision, so that the run's files say which it was, or give args.{argument}. "
                f"{self._wanted(None, argument)}"
            )
        from huggingface_hub import try_to_load_from_cache

        found: dict[str, str] = {}
        for name in self.files:
            for one in _forms(name):
                if isinstance(place := try_to_load_from_cache(self.repository, one, revision=commit), str):
                    found[name] = place
        if missing := [name for name in self.files if name not in found]:
            raise ValueError(
                f"the reward `{reward}` needs weights that are not on this machine, and downloads nothing: "
                f"{', '.join(missing)} of {self.repository} at {commit}. {self._wanted(revision, argument)}"
            )
        return Path(found[self.files[0]]).parent

    def _wanted(self, revision: str | None, argument: str) -> str:
        commit = revision or self.revision or "COMMIT"
        return (
            f"Run `hf download {self.repository} {' '.join(self.files)} --revision {commit}` ({self.gigabytes:g} GB, "
            f"licence: {self.licence}) on every machine with reward workers, or put these files into a folder and set "
            f"args.{argument} to it"
        )


def _forms(name: str) -> list[str]:
    return [name, INSTEAD[name]] if name in INSTEAD else [name]


def check_preprocessing(reward: str, choice: str) -> None:
    """Raises ValueError where `args.preprocessing` is neither `published` nor `folder`."""
    if choice not in ("published", "folder"):
        raise ValueError(
            f"the reward `{reward}` has preprocessing={choice!r}: choose published, or folder for what the "
            f"checkpoint's own preprocessor_config.json says"
        )

"""Runs of the system, as small as they get, and the undisturbed ones to compare with."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from cluster.weights import unpack_weights
from configs.compose import compose
from models.tiny.create import main as create
from rl.compatibility import check
from rl.driver.in_process import Trained, train_in_process
from rl.records.run_folder import RunFolder
from rl.run.metrics import Row, deterministic_view
from tests.rl.support.training import SMALL, SMALL_IMAGES

REWARDS = "tests.benchmarks.mistakes.reward_functions"
ROWS = [{"prompt": f"What is {number} + 1?", "answer": str(number + 1), "number": number} for number in range(6)]
SHORT = ["run.updates=1", "run.checkpoint_every=1", "rollout.prompts_per_update=2", "run.keep_trajectories=99"]
FILE = ["data=jsonl", "data.train.size=null", "data.evaluation=null", "data.train.response=null"]


@dataclass(frozen=True)
class Ended:
    """A run that ended well."""

    trained: Trained
    folder: Path
    said: str

    @cached_property
    def run(self) -> RunFolder:
        return RunFolder(self.folder)

    @cached_property
    def weights(self) -> Mapping[str, Tensor]:
        return unpack_weights(self.trained.weights)

    @property
    def history(self) -> list[Row]:
        return deterministic_view(self.trained.metrics)


@dataclass
class Workshop:
    root: Path
    _numbers: Iterable[int] = field(default_factory=count)
    _known: dict[tuple[str, ...], Ended] = field(default_factory=dict)

    def place(self) -> Path:
        """A folder of its own for a run."""
        folder = self.root / f"{next(iter(self._numbers)):04d}"
        folder.mkdir(parents=True)
        return folder

    def clean(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def model(self, name: str = "block") -> Path:
        folder = self.root / "models" / name
        if not folder.exists():
            create(name, str(folder))
        return folder

    def pipeline(self, name: str = "sd3") -> Path:
        folder = self.root / "models" / name
        if not folder.exists():
            from tests.models.pipelines import tiny_pipeline

            tiny_pipeline(name).save_pretrained(folder)
        return folder

    def rows(self, folder: Path, rows: Iterable[Mapping[str, Any]] = ROWS, name: str = "rows.jsonl") -> Path:
        file = folder / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    @cached_property
    def good_rows(self) -> Path:
        (self.root / "data").mkdir(parents=True, exist_ok=True)
        return self.rows(self.root / "data")

    def text(self, folder: Path, *overrides: str, rows: Path | None = None) -> list[str]:
        """Overrides of a run of texts on rows, rewarded by a number that follows from each text."""
        return [
            *SMALL,
            *SHORT,
            *FILE,
            f"model.path={self.model()}",
            f"data.train.name={rows or self.good_rows}",
            f"reward.terms.answer.function={REWARDS}.score",
            f"run.folder={folder}",
            "run.name=mine",
            *overrides,
        ]

    def images(self, folder: Path, *overrides: str) -> list[str]:
        """The same of images of scenes, rewarded by how red they are."""
        own = [f"model.path={self.pipeline()}", f"run.folder={folder}", "run.name=mine", "data.evaluation=null"]
        return [*SMALL_IMAGES, *SHORT, *own, *overrides]

    def train(self, options: list[str], config_dir: Path | None = None) -> Ended:
        """As `denoiserl train` does, in this process."""
        composed = compose(options, config_dir)
        check(composed.config, None)
        said = io.StringIO()
        trained = train_in_process(composed, Console(file=said, width=1000))
        run = composed.config.run
        return Ended(trained, Path(run.folder) / run.name, said.getvalue())

    def undisturbed(self, *overrides: str) -> Ended:
        """The run of `text` with these overrides, made once."""
        if overrides not in self._known:
            self._known[overrides] = self.train(self.text(self.root / f"undisturbed-{len(self._known)}", *overrides))
        return self._known[overrides]

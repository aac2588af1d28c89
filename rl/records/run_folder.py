"""A run folder, opened: configuration, tables, trajectories, checkpoints, weights."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from configs.errors import UserError
from configs.schema import Config
from models.options import Modality
from rl.data.tickets import TicketKind, derive_seed
from rl.records.saved import EVERYTHING, run_configuration, run_weights
from rl.run.checkpoint import complete_checkpoints
from rl.run.metrics import read_rows

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from cluster.weights import PackedWeights
    from rollout.trajectory import Trajectory

OUTCOMES = {"solved": "solved/{}", "reward": "rewards/{}"}
"""Columns of evaluations.jsonl with every problem's outcome, by what it is of; of a term `terms/KIND/TERM`."""
OF_TERM = "terms/"
TEXTS = "texts/"


class Checkpoint(NamedTuple):
    update: int
    """Updates that its weights have seen."""
    folder: Path


@dataclass(frozen=True)
class RunFolder:
    """Everything is read when it is asked for, so that a run that is under way can be looked at again and again."""

    path: Path

    @cached_property
    def config(self) -> Config:
        """What the run was told. A value that comes from an environment variable which is not set now is its name."""
        return run_configuration(self.path, [], unused=EVERYTHING).config

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def yaml(self) -> str:
        """The resolved configuration as text."""
        return (self.path / "config.yaml").read_text()

    @property
    def code(self) -> dict[str, Any]:
        """Commit, uncommitted changes and library versions; empty if the run was killed before it wrote them."""
        return self._json("code.json")

    # How far it is

    @property
    def summary(self) -> dict[str, Any]:
        """What a run writes at its end; empty before."""
        return self._json("summary.json")

    @property
    def updates(self) -> int:
        """Updates that are recorded."""
        rows = read_rows(self.path / "metrics.jsonl")
        return rows[-1]["update"] + 1 if rows else 0

    @property
    def finished(self) -> bool:
        """Whether it came to its end, or was ended by a callback. False is under way, or crashed: `idle_seconds`."""
        summary = self.summary
        return bool(summary) and summary["steps"] == self.updates

    @property
    def idle_seconds(self) -> float:
        """Since something was last written into the folder."""
        newest = max((file.stat().st_mtime for file in self.path.iterdir()), default=self.path.stat().st_mtime)
        return max(0.0, time.time() - newest)

    # Tables

    @property
    def metrics(self) -> pd.DataFrame:
        """One row an update, indexed by `update` (the first is 0); empty before the first."""
        return _table(read_rows(self.path / "metrics.jsonl"))

    @property
    def evaluations(self) -> pd.DataFrame:
        """One row an evaluation, indexed by `update`, the updates done before; without the outcomes."""
        outcomes = (TEXTS, OF_TERM, *(column.format("") for column in OUTCOMES.values()))
        return _table(
            [
                {name: value for name, value in row.items() if not name.startswith(outcomes)}
                for row in read_rows(self.path / "evaluations.jsonl")
            ]
        )

    def outcomes(self, kind: str = "greedy", of: str = "solved") -> pd.DataFrame:
        """A row a problem and sample, a column an evaluation; NaN is unscored.

        Args:
            kind: `greedy` or `sampled`.
            of: `solved`, 1 or 0; `reward`; or the name of a term, for its unweighted values.

        Raises:
            UserError: no evaluation has it; names what those of this kind have.
        """
        import numpy as np
        import pandas as pd

        rows = read_rows(self.path / "evaluations.jsonl")
        names = {what: column.format(kind) for what, column in OUTCOMES.items()}
        terms = f"{OF_TERM}{kind}/"
        names |= {name.removeprefix(terms): name for row in rows for name in row if name.startswith(terms)}
        columns = {row["update"]: np.array(row[names[of]], float) for row in rows if of in names and names[of] in row}
        if not columns:
            there = [what for what, name in names.items() if any(name in row for row in rows)]
            if not there:
                raise UserError(f"{self.path} has no {kind} evaluation")
            undefined = "; with reward.solved_at=null nothing is counted as solved" if of == "solved" else ""
            raise UserError(f"{self.path} has no {of!r} of its {kind} evaluations{undefined}: of={' or '.join(there)}")
        shape = next(iter(columns.values())).shape
        index = pd.MultiIndex.from_product([range(size) for size in shape], names=["problem", "sample"])
        table = pd.DataFrame({update: values.reshape(-1) for update, values in columns.items()}, index)
        return table.rename_axis(columns="update")

    @property
    def failures(self) -> pd.DataFrame:
        """Samples that could not be scored, one row a term: update, index, term, kind, message, completion."""
        import pandas as pd

        return pd.DataFrame(read_rows(self.path / "failures.jsonl"))

    # Samples

    @property
    def sampled_updates(self) -> list[int]:
        """Updates of which samples are kept (`run.keep_trajectories`)."""
        return sorted(int(file.stem[1:]) for file in (self.path / "trajectories").glob("u*.parquet"))

    def trajectories(self, update: int | None = None) -> list[Trajectory]:
        """The kept groups of an update, as they were generated; by default of the newest.

        Raises:
            UserError: none were kept of it, and names those there are; or they are another run's.
            TrajectoryError: the file is broken.
        """
        from rollout.trajectory import read_parquet

        kept = self.sampled_updates
        wanted = kept[-1] if update is None and kept else update
        if wanted not in kept:
            there = ", ".join(map(str, kept)) or "none; a run keeps run.keep_trajectories tickets an update"
            raise UserError(f"{self.path} has no trajectories of update {wanted}; there are: {there}")
        file = self.path / "trajectories" / f"u{wanted:06d}.parquet"
        groups = read_parquet(file)
        for group in groups:
            if not self._drew(group, wanted):
                raise UserError(
                    f"{file} holds samples of update {group.update} with the seed {group.seed}, which are not those of "
                    f"this run's update {wanted}: restore the file, or remove it"
                )
        return groups

    def _drew(self, group: Trajectory, update: int) -> bool:
        """Whether a group was drawn for an update of this run, as far as its numbers say."""
        rollout = self.config.rollout
        if group.update != update:
            return False
        if group.ticket * rollout.prompts_per_ticket // rollout.prompts_per_update != update:
            return True  # a refill, with a seed of its own
        return group.seed == derive_seed(self.config.run.seed, TicketKind.train.value, group.ticket)

    def samples(self, update: int | None = None) -> pd.DataFrame:
        """The same as a table, a row a sample: prompt_id, prompt, sample, reward, log_prob of its trained decisions,
        and of texts `text`, `tokens` and `rounds`. Latents are decoded by `rl.load_policy(run).codec`."""
        import pandas as pd

        from rl.records.decode import prompt_text, texts
        from rollout.trajectory import TextTrajectory

        rows: list[dict[str, Any]] = []
        for group in self.trajectories(update):
            said = texts(group, self.tokenizer) if isinstance(group, TextTrajectory) else None
            for sample in range(group.group_size):
                row: dict[str, Any] = {"prompt_id": group.prompt_id, "sample": sample}
                row["prompt"] = (
                    prompt_text(group, self.tokenizer)
                    if isinstance(group, TextTrajectory)
                    else getattr(group, "caption", "")
                )
                if isinstance(group, TextTrajectory) and said is not None:
                    row["text"] = said[sample]
                    row["tokens"] = int(group.stop_length[sample])
                    row["rounds"] = int(group.reveal[sample].max(initial=0))
                row["reward"] = float("nan") if group.rewards is None else float(group.rewards[sample])
                row["log_prob"] = float(group.logp[sample][group.mask[sample]].sum())
                rows.append(row)
        return pd.DataFrame(rows)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the model that a run of texts started from."""
        from models.files import find_checkpoint
        from models.text.tokenizer import load_tokenizer

        model = self.config.model
        if model.modality is not Modality.text:
            raise UserError(f"{self.path} is a run of an image model, which has no tokenizer of completions")
        return load_tokenizer(find_checkpoint(model.path, ["*.json", "*.jinja", "merges.txt"]))

    @property
    def pictures(self) -> dict[str, dict[int, list[Path]]]:
        """[kind][updates done] the PNG files of the first held-out prompts (image models)."""
        root = self.path / "pictures"
        return {
            kind.name: {int(folder.name[1:]): sorted(folder.glob("*.png")) for folder in sorted(kind.glob("u*"))}
            for kind in (sorted(root.iterdir()) if root.is_dir() else ())
        }

    # Weights

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The complete ones, oldest first."""
        found = complete_checkpoints(self.path / "checkpoints")
        return [Checkpoint(int(folder.name[1:]), folder) for folder in reversed(found)]

    def weights(self, update: int | None = None) -> PackedWeights:
        """What the learners published after so many updates, by default the newest checkpoint's; loads torch."""
        return run_weights(self.path, update)

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.path / name).read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # not there yet, or just being written
            return {}


def open_run(path: str | Path) -> RunFolder:
    """Open a run folder: of a run that has ended, is under way or has crashed.

    Raises:
        UserError: it is no run folder.
        ConfigError: its configuration does not fit this version.
    """
    run = RunFolder(Path(path))
    _ = run.config  # refuses now what is no run folder
    return run


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame(rows)
    return table.set_index("update") if rows else table.rename_axis("update")

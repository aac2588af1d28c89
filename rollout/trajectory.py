"""The contract between rollout and learner: one `Trajectory` holds the samples of one prompt.

The group is the unit of scoring, advantage, failure and transport. Arrays are numpy with exact dtypes; states are never
stored, they are rebuilt. Every array field declares its role, dtype and named axes once (`array(...)`), and slicing,
validation, padding-free transport, byte counting and Parquet follow from that declaration: a new field is one line.

Axes: G samples of the group, D decisions. Text: L = D canvas positions, P prompt tokens, K kept tokens of a truncated
distribution, R rounds. Images: D stored steps, S = D + 1 states, C channels and h x w cells of a latent, H x W pixels,
N levels of the schedule, T prompt tokens of width W, V width of the pooled prompt, U width of a user's vector.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FORMAT_VERSION = 1
NO_SAMPLER = "data"
"""What `sampler` is for samples that nobody drew: answers out of a data set."""


class TrajectoryError(ValueError):
    """A trajectory that breaks its contract."""


class Role(Enum):
    meta = "meta"
    """The same for the whole group."""
    sample = "sample"
    """First axis G: one entry for each sample."""
    step = "step"
    """First axis G: how each sample came about."""
    decision = "decision"
    """Axes (G, D): the common currency of every objective."""


def array(role: Role, dtype: type, axes: str, *, optional: bool = False) -> Any:
    metadata = {"role": role, "dtype": np.dtype(dtype), "axes": tuple(axes.split())}
    if optional:
        return field(default=None, metadata=metadata)
    return field(metadata=metadata)


T = TypeVar("T", bound="Trajectory")


@dataclass(frozen=True, kw_only=True)
class Trajectory(ABC):
    """What text and images share: where the group comes from, its decisions and its rewards."""

    ticket: int
    update: int
    version: int
    """Policy version that generated it."""
    seed: int
    prompt_id: str
    sampler: str
    """The whole sampler contract as canonical JSON; a learner refuses a trajectory whose contract is not its own."""
    counters: dict[str, float] = field(default_factory=dict)
    """What the group cost, such as `nfe`, the denoising rounds of its samples together."""

    uid: np.ndarray = array(Role.sample, np.int64, "G")
    """Key of each sample's noise; unlike a place in a batch it stays with the sample."""
    logp: np.ndarray = array(Role.decision, np.float32, "G D")
    """Log-probability of each decision under the processed distribution that made it."""
    mask: np.ndarray = array(Role.decision, np.bool_, "G D")
    """Decisions that can have changed the reward, and are therefore trained on."""
    rewards: np.ndarray | None = array(Role.sample, np.float64, "G", optional=True)
    """Total reward; NaN where a sample could not be scored."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        for name, declared in self.array_fields().items():
            value = getattr(self, name)
            if value is None and declared.default is None:
                continue
            _check_array(self.prompt_id, name, value, declared.metadata, sizes)
        for name in ("ticket", "update", "version", "seed"):
            if getattr(self, name) < 0:
                raise TrajectoryError(f"trajectory of prompt {self.prompt_id!r}: {name} is negative")
        self._check_finite()

    def _check_finite(self) -> None:
        if not np.isfinite(self.logp[self.mask]).all():
            raise TrajectoryError(
                f"trajectory of prompt {self.prompt_id!r}: a trained decision has a non-finite log-probability; the "
                f"policy's logits overflowed or the token was outside the sampling distribution"
            )

    @classmethod
    def array_fields(cls) -> dict[str, dataclasses.Field]:
        return {f.name: f for f in dataclasses.fields(cls) if "role" in f.metadata}

    @property
    @abstractmethod
    def decision_step(self) -> np.ndarray:
        """(G, D) int64 denoising step of each decision, from 0; negative where there was none."""

    @property
    def group_size(self) -> int:
        return self.logp.shape[0]

    @property
    def nbytes(self) -> int:
        values = (getattr(self, name) for name in self.array_fields())
        return sum(value.nbytes for value in values if value is not None)

    def take(self: T, samples: np.ndarray | list[int]) -> T:
        """The same group with some of its samples."""
        changes = {}
        for name, declared in self.array_fields().items():
            value = getattr(self, name)
            if value is not None and declared.metadata["role"] is not Role.meta:
                changes[name] = value[np.asarray(samples)]
        return dataclasses.replace(self, **changes)

    def with_rewards(self: T, rewards: np.ndarray) -> T:
        return dataclasses.replace(self, rewards=np.asarray(rewards, np.float64))


@dataclass(frozen=True, kw_only=True)
class TextTrajectory(Trajectory):
    """Completions of a masked or block-diffusion language model. `reveal` tells every state on the way if each position
    is revealed at most once; if tokens may be masked again, `proposed_ids` does."""

    prompt_ids: np.ndarray = array(Role.meta, np.int32, "P")
    canvas_ids: np.ndarray = array(Role.sample, np.int32, "G D")
    """Final ids from the first position behind the prompt through the whole terminal block; MASK if never revealed."""
    canvas_length: np.ndarray = array(Role.sample, np.int32, "G")
    """Positions of the canvas that the model saw; the rest is padding of the group."""
    stop_length: np.ndarray = array(Role.sample, np.int32, "G")
    """Kept tokens, the stop token included."""
    reveal: np.ndarray = array(Role.step, np.int16, "G D")
    """1-based round of the sample in which a position was revealed, the last one if it was remasked; 0: never."""
    support: np.ndarray | None = array(Role.decision, np.int32, "G D K", optional=True)
    """Ids that survived top-k / top-p, padded with -1; present only when the distribution was truncated. The learner
    renormalises over the same ids: a support recomputed under new weights could exclude the recorded token."""
    proposed_ids: np.ndarray | None = array(Role.step, np.int32, "G R D", optional=True)
    """Token that each round put at each position which was masked before it, whether it was kept or not; -1 elsewhere.
    Present when asked for, and where tokens may be remasked: it is then the only record of the states on the way."""
    proposed_logp: np.ndarray | None = array(Role.step, np.float32, "G R D", optional=True)
    """Log-probability of each proposed token under the processed distribution; 0 elsewhere."""

    @property
    def decision_step(self) -> np.ndarray:
        return self.reveal.astype(np.int64) - 1

    def canvas_at(self, round_index: int, mask_id: int) -> np.ndarray:
        """(G, L) the canvas that round `round_index` (1-based) looked at."""
        if self.proposed_ids is None:
            return np.where(self.reveal < round_index, self.canvas_ids, mask_id)
        predicted = self.proposed_ids >= 0  # (G, R, L)
        before = predicted[:, : round_index - 1].any(1)
        now_or_later = predicted[:, round_index - 1 :]
        now = now_or_later[:, :1].any(1)
        masked = now | (now_or_later.any(1) & ~before)
        shown = np.where(before, self.estimate_at(round_index - 1), self.canvas_ids)
        # What a sample's last round proposed behind the stop and did not keep is not there.
        ended = ~np.any(now_or_later, axis=(1, 2))[:, None]
        return np.where(ended, self.canvas_ids, np.where(masked, mask_id, shown))

    def estimate_at(self, round_index: int) -> np.ndarray:
        """(G, L) what round `round_index` (1-based; 0: before the first) took the finished canvas to be: its proposals
        where it saw masks, what it saw elsewhere; -1 where nothing has been proposed yet."""
        assert self.proposed_ids is not None
        if round_index == 0:
            return np.full(self.canvas_ids.shape, -1, np.int32)
        proposed = self.proposed_ids[:, :round_index]  # (G, r, L)
        latest = np.where(proposed >= 0, np.arange(round_index)[:, None], 0).max(1, keepdims=True)
        return np.take_along_axis(proposed, latest, axis=1)[:, 0]

    def completion_ids(self, sample: int) -> np.ndarray:
        return self.canvas_ids[sample, : self.stop_length[sample]]


@dataclass(frozen=True, kw_only=True)
class ImageTrajectory(Trajectory):
    """Denoising chains of an image diffusion or flow model: the stored span of steps, and what conditioned them.

    A decision is one stochastic step. Only the span from the first to the last trained step is stored. Where none is
    stored (a rollout by the ODE, or one that no replay learns from), the finished image is the one decision: D = 1 with
    logp 0, and no latents. So it is with images out of a data set, which have neither `final` nor a condition before
    the learner encodes them.
    """

    logp: np.ndarray = array(Role.decision, np.float64, "G D")
    """A log-density of 65536 elements is near 1e5, where fp32 resolves no less than 0.008 nats."""
    caption: str
    first_step: int
    """Step of the schedule at which the stored span starts."""
    levels: np.ndarray = array(Role.meta, np.float64, "N level")
    """Time, signal and noise of every level of the schedule, exactly as the sampler used them."""
    guided: np.ndarray = array(Role.meta, np.bool_, "D")
    """Whether a stored step ran with classifier-free guidance."""
    embeds: np.ndarray | None = array(Role.meta, np.float32, "T W", optional=True)
    """Embedded prompt, once for the whole group."""
    pooled: np.ndarray | None = array(Role.meta, np.float32, "V", optional=True)
    unconditional_embeds: np.ndarray | None = array(Role.meta, np.float32, "T W", optional=True)
    """Embedded empty prompt; only with classifier-free guidance."""
    unconditional_pooled: np.ndarray | None = array(Role.meta, np.float32, "V", optional=True)
    user: np.ndarray | None = array(Role.meta, np.float32, "U", optional=True)
    """Vector of the user that the group is for; None for a model without a user adapter."""
    latents: np.ndarray | None = array(Role.step, np.float32, "G S C h w", optional=True)
    """States around the stored steps: step k goes from latents[:, k] to latents[:, k + 1]."""
    final: np.ndarray | None = array(Role.sample, np.float32, "G C h w", optional=True)
    """Clean latents."""
    image: np.ndarray | None = array(Role.sample, np.uint8, "G H W rgb", optional=True)
    """Decoded; present in images out of a data set."""

    @property
    def decision_step(self) -> np.ndarray:
        return np.broadcast_to(self.first_step + np.arange(self.logp.shape[1]), self.logp.shape)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latents is not None and self.latents.shape[1] != self.logp.shape[1] + 1:
            raise TrajectoryError(
                f"trajectory of prompt {self.prompt_id!r}: {self.latents.shape[1]} states around {self.logp.shape[1]} "
                f"steps"
            )

    def _check_finite(self) -> None:
        for name in ("latents", "final"):
            values = getattr(self, name)
            if values is not None and not np.isfinite(values).all():
                raise TrajectoryError(
                    f"trajectory of prompt {self.prompt_id!r}: {name} are not finite. Before the first update: the "
                    f"checkpoint's weights are damaged, or the network overflows; try model.precision=fp32, or a lower "
                    f"rollout.denoising.guidance. Later: training has diverged; go on from an earlier checkpoint with "
                    f"a lower algorithm.optimizer.learning_rate"
                )
        super()._check_finite()


def _check_array(prompt_id: str, name: str, value: Any, declared: Any, sizes: dict[str, int]) -> None:
    where = f"trajectory of prompt {prompt_id!r}: {name}"
    if not isinstance(value, np.ndarray):
        raise TrajectoryError(f"{where} is {type(value).__name__}, not a numpy array")
    if value.dtype != declared["dtype"]:
        raise TrajectoryError(f"{where} has dtype {value.dtype}, not {declared['dtype']}")
    if value.ndim != len(declared["axes"]):
        raise TrajectoryError(f"{where} has shape {value.shape}, not ({', '.join(declared['axes'])})")
    for axis, size in zip(declared["axes"], value.shape, strict=True):
        if sizes.setdefault(axis, size) != size:
            raise TrajectoryError(f"{where} has {size} entries on axis {axis}, other fields have {sizes[axis]}")


def contract(options: Any) -> str:
    """Sampler options, a dataclass, as canonical JSON. An option that came later is left out where it is not set, so
    that the contracts of earlier runs stay what they were."""
    tree = dataclasses.asdict(options)
    for declared in dataclasses.fields(options):
        if declared.metadata.get("contract") == "if set" and tree[declared.name] is None:
            del tree[declared.name]
    return json.dumps(tree, sort_keys=True, default=lambda value: value.value)


def write_parquet(trajectories: list[Trajectory], path: Path | str) -> None:
    """One row a group. An array is a flat list column and a `<name>.shape` column, so its dtype and bits survive."""
    if not trajectories:
        raise TrajectoryError("no trajectories to write")
    kind = type(trajectories[0])
    columns: dict[str, pa.Array] = {}
    for declared in dataclasses.fields(kind):
        values = [getattr(trajectory, declared.name) for trajectory in trajectories]
        if "role" not in declared.metadata:
            columns[declared.name] = pa.array([json.dumps(v) if isinstance(v, dict) else v for v in values])
            continue
        arrow_type = pa.from_numpy_dtype(declared.metadata["dtype"])
        flat = [None if v is None else v.reshape(-1) for v in values]
        columns[declared.name] = pa.array(flat, pa.list_(arrow_type))
        shapes = [None if v is None else list(v.shape) for v in values]
        columns[f"{declared.name}.shape"] = pa.array(shapes, pa.list_(pa.int32()))
    table = pa.table(columns).replace_schema_metadata({"denoiserl": f"{kind.__name__} {FORMAT_VERSION}"})
    pq.write_table(table, path, compression="zstd")


def read_parquet(path: Path | str) -> list[Trajectory]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise TrajectoryError(f"{path} cannot be read as Parquet: {error}; restore the file, or remove it") from error
    header = (table.schema.metadata or {}).get(b"denoiserl", b"").decode().split()
    kinds = {kind.__name__: kind for kind in (TextTrajectory, ImageTrajectory)}
    if len(header) != 2 or header[0] not in kinds:
        raise TrajectoryError(
            f"{path} is not a trajectory file: its Parquet metadata has no `denoiserl` entry; name one of a run folder"
        )
    if int(header[1]) != FORMAT_VERSION:
        raise TrajectoryError(f"{path} has format version {header[1]}; this program reads version {FORMAT_VERSION}")
    kind = kinds[header[0]]
    return [_from_row(kind, row) for row in table.to_pylist()]


def _from_row(kind: type[Trajectory], row: dict[str, Any]) -> Trajectory:
    arguments: dict[str, Any] = {}
    for declared in dataclasses.fields(kind):
        value: Any = row.get(declared.name)  # an optional array may be younger than the file
        if "role" in declared.metadata:
            if value is not None:
                value = np.array(value, declared.metadata["dtype"]).reshape(row[f"{declared.name}.shape"])
        elif declared.name == "counters":
            value = json.loads(value)
        arguments[declared.name] = value
    return kind(**arguments)

"""The whole configuration, typed. Each default lives here, in `algorithm_options` or a package's `options.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Optional

from omegaconf import MISSING

from cluster.options import ClusterOptions
from configs.algorithm_options import AlgorithmOptions
from models.options import ModelOptions
from rewards.options import JudgeOptions, RewardOptions
from rollout.options import RolloutOptions


class SourceKind(Enum):
    reasoning_gym = "reasoning_gym"
    """Problems that reasoning-gym generates and verifies."""
    scenes = "scenes"
    """Prompts of the scene world, with pictures as demonstrations; splits `train` and `held_out`."""
    digits = "digits"
    """Prompts for handwritten digits, with pictures of them; splits `train`, `reward` and `held_out`."""
    file = "file"
    """JSONL, JSON, CSV or Parquet, by extension."""
    dataset = "dataset"
    """Anything `datasets.load_dataset` or `load_from_disk` opens."""


class TooLong(Enum):
    """What becomes of a row whose prompt, or whose trained answer, has more tokens than fit."""

    refuse = "refuse"
    """It ends the run before anything starts, and is named."""
    leave_out = "leave_out"
    """It is left out and counted; every row is read and encoded at the start to find out."""


TEXT_ANSWERS = ("response", "chosen", "rejected")
IMAGE_ANSWERS = ("image", "chosen_image", "rejected_image")
"""Options of a source for what offline training shows: a demonstration, or a pair of a better and a worse answer."""


@dataclass
class SourceOptions:
    kind: SourceKind = SourceKind.reasoning_gym
    """What the source is."""
    name: str = field(default=MISSING, metadata={"resume": "may change"})
    """Task name, file path, or dataset id; scenes and digits only label their problems with it."""
    split: str = "train"
    """Part of a data set, of the scenes or of the digits; files and reasoning-gym have none."""
    size: Optional[int] = None  # noqa: UP045
    """Number of problems; null takes all (reasoning_gym and the training scenes have no end and need a number). Unit:
    problems."""
    seed: int = 0
    """Of the reasoning-gym task, of the scenes, or of the order of the digits. Unit: 1."""
    args: dict[str, Any] = field(default_factory=dict)
    """Options of the reasoning-gym task, or of `load_dataset`; for scenes `careless`, the fraction of demonstrations
    that violate their prompt."""
    prompt: Optional[str] = "{{ prompt }}"  # noqa: UP045
    """Jinja template over the columns of one row. Null takes the prompt out of the answers: the messages, or the text,
    that `chosen` and `rejected` begin with, or all messages of `response` but the last."""
    perturbed: Optional[str] = None  # noqa: UP045
    """Jinja template of a changed prompt, whose completions answer `prompt` worse; for `denoiserl pairs`."""
    response: Optional[str] = None  # noqa: UP045
    """Jinja template of the demonstration, for supervised training of a text model."""
    chosen: Optional[str] = None  # noqa: UP045
    """Jinja template of the better answer of a pair, for preference training of a text model."""
    rejected: Optional[str] = None  # noqa: UP045
    """The same for the worse one."""
    image: Optional[str] = None  # noqa: UP045
    """Column with the demonstration's image, for supervised training of an image model. An image is a path (in a file:
    relative to it), encoded bytes, or what `datasets` decodes; rewards do not see it."""
    chosen_image: Optional[str] = None  # noqa: UP045
    """Column with the better image of a pair, for preference training of an image model."""
    rejected_image: Optional[str] = None  # noqa: UP045
    """The same for the worse one."""
    user: Optional[str] = None  # noqa: UP045
    """Column with the vector of the user that a problem is for (model.user_adapter): a list of numbers, or the path of
    an .npy file (in a file: relative to it). Rewards see it."""


if TYPE_CHECKING:
    Sources = dict[str, SourceOptions]
else:  # while a configuration is composed, null takes out what a file brought along
    Sources = dict[str, Optional[SourceOptions]]  # noqa: UP045


@dataclass
class DataOptions:
    train: SourceOptions = field(default_factory=SourceOptions)
    """What is learned from."""
    also: Sources = field(default_factory=dict)
    """Further training sources by a name of yours, shuffled together with `train`; the `size` of each is its share.
    `data.also.NAME=null` takes one out that a file brought along."""
    evaluation: Optional[SourceOptions] = field(default=None, metadata={"resume": "other evaluations"})  # noqa: UP045
    """Held-out problems; null evaluates nothing."""
    system_prompt: Optional[str] = None  # noqa: UP045
    """System message before each prompt of a text model; null is none."""
    max_prompt_tokens: int = 1024
    """A longer prompt is never cut; `too_long` says what becomes of it. Unit: tokens."""
    too_long: TooLong = TooLong.refuse
    """What becomes of a row with a prompt of more than `max_prompt_tokens`, or more than an image model reads, or with
    a demonstration of more than `rollout.sampler.max_new_tokens`. The count is noted at the start."""

    def training(self) -> dict[str, SourceOptions]:
        """The training sources by the names of their options."""
        return {"data.train": self.train, **{f"data.also.{name}": source for name, source in self.also.items()}}


@dataclass
class EvaluationOptions:
    every: int = field(default=10, metadata={"resume": "may change"})
    """Updates between held-out evaluations; 0 never. The first and the last update are always evaluated. Unit:
    updates."""
    samples: int = field(default=1, metadata={"resume": "other evaluations"})
    """Sampled completions of each problem, beside the greedy one; 0 evaluates greedily only. Unit: samples."""
    images_per_prompt: int = field(default=1, metadata={"resume": "other evaluations"})
    """Images: greedy ones of each prompt, from different first noises (GenEval, arXiv 2310.11513: 4). Unit: samples."""
    prompts_per_ticket: int = field(default=128, metadata={"resume": "other evaluations"})
    """Prompts that one worker generates together in an evaluation. Unit: prompts."""


@dataclass
class RunOptions:
    name: str = field(default=MISSING, metadata={"resume": "may change"})
    """Name of the run, and of its folder in `folder`."""
    folder: str = field(default="runs", metadata={"resume": "may change"})
    """Where the folders of runs lie."""
    seed: int = 0
    """Of the order of the problems, of all noise and of all masks. Unit: 1."""
    updates: int = field(default=100, metadata={"resume": "may change"})
    """Updates of the run: rollouts that are learned from. Unit: updates."""
    checkpoint_every: int = field(default=10, metadata={"resume": "may change"})
    """Updates between checkpoints; 0 never. Unit: updates."""
    keep_checkpoints: int = field(default=2, metadata={"resume": "may change"})
    """Newest checkpoints that are kept. Unit: checkpoints."""
    snapshot_gib: float = field(default=2.0, metadata={"resume": "may change"})
    """Largest state of the learners that is copied into memory after each update, so that a signal ends the run with a
    checkpoint of the last completed one; with a larger state, or 0, the newest checkpoint on the disk is what is left.
    Unit: GiB."""
    resume: bool = field(default=True, metadata={"resume": "may change"})
    """Go on from the newest complete checkpoint of the run folder, if there is one. False starts anew and keeps an
    earlier run of that name under NAME.1, NAME.2, ..."""
    keep_trajectories: int = field(default=1, metadata={"resume": "may change"})
    """Tickets of each update whose trajectories are written to the run folder. Unit: tickets."""


@dataclass
class Config:
    """Everything that a run can be told."""

    model: ModelOptions = field(default_factory=ModelOptions)
    """The policy's network."""
    algorithm: AlgorithmOptions = field(default_factory=AlgorithmOptions)
    """How it learns."""
    reward: RewardOptions = field(default_factory=RewardOptions)
    """What a sample is worth."""
    judge: Optional[JudgeOptions] = None  # noqa: UP045
    """A judge that the run serves by vLLM, for terms with function=judge or judge_win_rate; null serves none."""
    data: DataOptions = field(default_factory=DataOptions)
    """The problems."""
    rollout: RolloutOptions = field(default_factory=RolloutOptions)
    """How samples are made."""
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    """Held-out evaluations."""
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    """The processes and what each may use."""
    run: RunOptions = field(default_factory=RunOptions)
    """The run as a whole."""

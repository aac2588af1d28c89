"""The Ray actors: thin shells that bring a worker, its weights and its device together.

The driver and every actor import this module. What takes seconds to import is therefore imported in the methods of the
one actor that needs it: a reward worker starts without torch, a rollout worker without a learner, the driver without
either.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import ray
from ray.util import get_node_ip_address

from cluster.objects import fetched
from cluster.weights import PackedWeights, load_weights, pack_weights
from configs.algorithm_options import ObjectiveKind
from configs.schema import Config
from models.options import Precision
from rewards.conversation import Prompt
from rewards.judge.terms import placed
from rewards.registry import RewardError
from rewards.scoring.scores import ScoreRequest, Scores, TermScores
from rewards.scoring.worker import RewardWorker
from rl.algorithm.requirements import needs_reference
from rl.data.tickets import Ticket, TicketKind
from rl.driver.imports import collector_paused
from rl.driver.step_rewards import score_steps
from rl.learner.report import Parity
from rl.modality.choice import modality_of
from rl.modality.trial import Trial
from rl.serving.judge import FOLDER, Whereabouts
from rollout.worker import Completions, RolloutRequest, RolloutWorker

if TYPE_CHECKING:
    import torch

    from models.policy import Policy
    from rewards.judge.server import Served
    from rl.learner.engine import Engine
    from rl.learner.groups import Group
    from rl.learner.parity import ParityCheck, Reference
    from rl.learner.state_files import StateFiles
    from rollout.trajectory import Trajectory


class GroupReference(NamedTuple):
    """A `Group` whose trajectory may lie in the object store."""

    trajectory: ray.ObjectRef | Trajectory
    advantage: np.ndarray
    valid: np.ndarray
    imitated: np.ndarray | None = None


def device_and_threads(threads: int) -> torch.device:
    """Ray shows each actor only its own GPU, if it has one."""
    with collector_paused():
        import torch

    torch.set_num_threads(threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class RolloutActor:
    """Generates a ticket under the weights that come with it; a restarted one catches up by itself."""

    def __init__(self, config: Config, threads: int) -> None:
        self.config = config
        self.device = device_and_threads(threads)
        self.worker: RolloutWorker | None = None
        self.version: int | None = None

    def ready(self) -> None:
        """Load the policy. Not in the constructor: of an error there, Ray reports no more than that the actor died."""
        with collector_paused():
            self.worker = modality_of(self.config).rollout_worker(self.device)
        self.version = None

    def run(self, request: RolloutRequest, weights: PackedWeights) -> tuple[Any, ...]:
        """The ticket's trajectories, one object each, then its completions, and its statistics last."""
        if self.worker is None:  # died while idle, and Ray has started it again
            self.ready()
        from models.lora import trainable_parameters

        assert self.worker is not None
        if self.version != weights.version:
            load_weights(trainable_parameters(self.worker.policy), weights)
            self.version = weights.version
        trajectories, completions, statistics = self.worker.run(request)
        return (*trajectories, completions, statistics)


class RewardActor:
    """Scores a ticket's completions under deadlines."""

    def __init__(
        self,
        config: Config,
        printed: Path | None = None,
        judge: Callable[[], Served] | None = None,
        pool: str | None = None,
    ) -> None:
        """
        Args:
            printed: file for what reward functions print; None leaves that to this process's own output.
            judge: says where the judge of the run is.
            pool: whose terms it scores; None: all terms.
        """
        self.part = None if pool is None else config.reward.by_pool[pool]
        folder = None if printed is None else printed.parents[1] / FOLDER
        name = "0" if printed is None else printed.stem
        self.whereabouts = None if judge is None else Whereabouts(judge, folder, name)
        served = None if self.whereabouts is None else self.whereabouts.file
        self.worker = RewardWorker(placed(config.reward, folder, served), printed, self.part)

    def ready(self) -> None:
        if self.whereabouts is not None:
            self.whereabouts.start()
        self.worker.ready()

    def try_out(self, trial: Trial) -> None:
        """Raises RewardError if a term cannot score it."""
        self.worker.try_out(replace(_request(trial.completions, trial.prompts, trial.columns), update=0))

    def score(
        self,
        completions: Completions,
        prompts: list[Prompt],
        columns: dict[str, list[Any]],
        ticket: Ticket,
        seconds: float,
    ) -> tuple[Scores | TermScores, np.ndarray | None]:
        """Scores of the finished samples, and (samples, T) rewards of their steps where the rollout kept estimates. In
        a pool what its terms say, which is to be combined with what others do.

        Args:
            seconds: what the caller waits; samples that have not been scored by then are counted as not tried.
        """
        if self.whereabouts is not None:  # died while idle, and Ray has started it again: nobody called `ready`
            self.whereabouts.start()
        request = replace(
            _request(completions, prompts, columns),
            groups=[index // ticket.samples for index in range(len(prompts))],
            update=ticket.update,
            learning=ticket.kind is TicketKind.train,
            seconds=seconds,
        )
        if self.part is not None:
            return self.worker.score_terms(request), None
        if completions.estimates is None:
            return self.worker.score(request), None
        return score_steps(self.worker, request, completions.estimates)


class LearnerActor:
    """One DeepSpeed rank. Built in two steps, because rank 0 must open the store before anyone can join."""

    def __init__(self, config: Config, rank: int, threads: int) -> None:
        self.config = config
        self.rank = rank
        self.device = device_and_threads(threads)
        if self.device.type == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"

    def open_store(self) -> tuple[str, int]:
        from rl.learner.engine import open_store

        alone = sum(node["Alive"] for node in ray.nodes()) == 1  # then nothing from outside need reach it
        host = "127.0.0.1" if alone else get_node_ip_address()
        self.store = open_store(host)
        return host, self.store.port

    def build(self, host: str, port: int) -> None:
        """Join the group, then `load_policy`."""
        with collector_paused():
            from rl.learner.engine import join_group

        cluster = self.config.cluster
        join_group(host, port, self.rank, cluster.learners, cluster.step_timeout_seconds, self.device)
        self.load_policy()

    def load_policy(self) -> None:
        """Load the policy and wrap it into DeepSpeed; the process group is there already."""
        with collector_paused():
            from models.lora import has_adapters, trainable_parameters
            from rl.learner.engine import Engine
            from rl.learner.learner import Learner
            from rl.learner.old_policy import OldPolicy
            from rl.learner.parity import ParityCheck
            from rl.learner.value_model import value_model_of

            config = self.config
            modality = modality_of(config)
            self.policy = modality.policy(self.device)
        adapters_off = self._adapters_off if has_adapters(self.policy) else None
        reference = None
        if needs_reference(config.algorithm):
            reference = adapters_off or self._frozen_copy(modality.policy(self.device))
        self.engine = Engine(
            self.policy,
            config.algorithm.optimizer,
            zero_stage=config.cluster.zero_stage,
            bf16=config.model.precision is Precision.bf16,
        )
        self.parity_check: ParityCheck | None = None
        if replay := modality.exact_replay(self.policy, self.device):
            tokens = config.algorithm.micro_batch_tokens
            self.parity_check = ParityCheck(self.engine, replay, adapters_off, tokens, self.device)
        self.old_policy: OldPolicy | None = None
        if config.algorithm.objective is ObjectiveKind.nft:
            self.old_policy = OldPolicy(trainable_parameters(self.policy), config.algorithm.old)
        likelihood = modality.likelihood(self.policy, self.device)
        self.value_model = value_model_of(config, modality, likelihood, self.device)
        self.learner = Learner(
            self.engine,
            likelihood,
            self.parity_check,
            reference,
            config.algorithm,
            config.run.updates,
            self.device,
            self.old_policy,
            self.value_model,
        )

    @contextmanager
    def _adapters_off(self) -> Iterator[Engine]:
        from models.lora import without_adapters

        with without_adapters(self.policy):
            yield self.engine

    def _frozen_copy(self, policy: Policy) -> Reference:
        """The policy as it was loaded."""
        policy.requires_grad_(False)
        return lambda: nullcontext(policy)

    def parity(self, groups: list[GroupReference]) -> Parity | None:
        """None where rollouts record nothing that could be replayed."""
        return self.parity_check.measure(self._trajectories(groups)) if self.parity_check else None

    def likely_cause(self, groups: list[GroupReference], limit: float) -> str:
        assert self.parity_check is not None
        return self.parity_check.likely_cause(self._trajectories(groups), limit)

    def _trajectories(self, groups: list[GroupReference]) -> list[Trajectory]:
        return [group.trajectory for group in _fetch(groups, self.config.rollout.timeout_seconds)]

    def step(self, update: int, minibatches: list[list[GroupReference]], fresh: bool) -> dict[str, float]:
        return self.learner.step(
            update, [_fetch(groups, self.config.rollout.timeout_seconds) for groups in minibatches], fresh
        )

    def weights(self, version: int) -> PackedWeights | None:
        """Collective; rank 0 returns the trainable weights of the policy that generates. Returned, not put: an object
        must outlive this actor."""
        if self.old_policy is not None:
            return pack_weights(version, self.old_policy.published()) if self.rank == 0 else None
        from models.lora import trainable_parameters

        parameters = trainable_parameters(self.policy)
        with self.engine.gathered(list(parameters.values())):
            return pack_weights(version, parameters) if self.rank == 0 else None

    def save(self, folder: str) -> None:
        """Collective; rank 0 writes the files of `state`."""
        from rl.learner.state_files import InFolder

        self._save(InFolder(Path(folder)))

    def state(self) -> dict[str, np.ndarray]:
        """Collective; rank 0 returns the files of a checkpoint, (n,) uint8 by name."""
        from rl.learner.state_files import InMemory

        memory = InMemory()
        self._save(memory)
        return memory.files

    def state_bytes(self) -> int:
        """Of these files, about."""
        from rl.learner.optimizer_state import state_bytes

        old = sum(weight.nbytes for weight in self.old_policy.weights.values()) if self.old_policy else 0
        value = state_bytes(self.value_model.engine) if self.value_model else 0
        return state_bytes(self.engine) + old + value

    def _save(self, files: StateFiles) -> None:
        from rl.learner.optimizer_state import save_state

        save_state(self.engine, files)
        if self.old_policy is not None and self.rank == 0:
            self.old_policy.save(files)
        if self.value_model is not None:
            self.value_model.save(files)

    def load(self, folder: str) -> None:
        from rl.learner.optimizer_state import load_state

        load_state(self.engine, Path(folder))
        if self.old_policy is not None:
            self.old_policy.load(Path(folder))
        if self.value_model is not None:
            self.value_model.load(Path(folder))


def _request(completions: Completions, prompts: list[Prompt], columns: dict[str, list[Any]]) -> ScoreRequest:
    if taken := sorted(columns.keys() & completions.columns.keys()):
        raise RewardError(f"columns {', '.join(taken)} of the data are filled in by the rollout; rename them")
    return ScoreRequest(prompts, completions.outputs, completions.ids, {**columns, **completions.columns})


def _fetch(groups: list[GroupReference], seconds: float) -> list[Group]:
    """A rank reads only its own share from the object store."""
    from rl.learner.groups import Group

    return [Group(fetched(group.trajectory, seconds), *group[1:]) for group in groups]

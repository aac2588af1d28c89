"""A policy and all that it needs to be asked: out of a run folder, a configuration, a checkpoint folder or a hub id."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.algorithm_options import LikelihoodOptions
from configs.errors import UserError
from configs.schema import Config
from models.options import Modality as Kind
from models.options import ModelOptions, Precision
from rl.api.configuration import AnyConfig, changed, composed_of
from rl.records.run_folder import RunFolder
from rl.records.saved import run_configuration, run_weights
from rollout.options import DenoisingOptions, SamplerOptions

if TYPE_CHECKING:
    import torch

    from models.policy import Policy as Network
    from rl.modality.protocol import Modality
    from rollout.worker import RolloutWorker

Source = AnyConfig | RunFolder | str | Path
AnySampler = SamplerOptions | DenoisingOptions


@dataclass(frozen=True, eq=False)
class Policy:
    """A loaded model, as `sample` and `log_probs` take it."""

    config: Config
    """Its model, and the sampler and likelihood that it is used with unless others are asked for."""
    modality: Modality
    worker: RolloutWorker
    device: torch.device
    version: int
    """Updates that the weights have seen; 0 for a checkpoint that no run of ours has trained."""

    @property
    def kind(self) -> str:
        """`text` or `image`."""
        return self.config.model.modality.value

    @property
    def network(self) -> Network:
        """The torch module; its `.network` is the transformers or diffusers model."""
        return self.worker.policy

    @property
    def tokenizer(self) -> Any:
        """Of a text model; images have `encoder` and `codec`."""
        return self._part("tokenizer", "text")

    @property
    def encoder(self) -> Any:
        """Prompts to what conditions an image model."""
        return self._part("encoder", "image")

    @property
    def codec(self) -> Any:
        """Latents to images and back."""
        return self._part("codec", "image")

    def sampler(self, options: AnySampler | dict[str, Any] | str | None = None) -> AnySampler:
        """Sampler options.

        Args:
            options: None is the policy's own, as in training, with all steps recorded that draw noise; `"greedy"` draws
                nothing (images: behind the first noise); a mapping changes some options of the policy's own.
        """
        from rl.data.tickets import TicketKind
        from rl.modality.choice import modality_of

        replayed = replace(self.config.algorithm, likelihood=LikelihoodOptions())  # else there may be nothing recorded
        own = modality_of(replace(self.config, algorithm=replayed)).sampler(TicketKind.train)
        if isinstance(options, str):
            if options != "greedy":
                raise UserError(f"sampler={options!r}: give 'greedy', a mapping of options, or {type(own).__name__}")
            return self.modality.sampler(TicketKind.greedy)
        return changed(own, options, "sampler")

    def with_sampler(self, sampler: AnySampler) -> Config:
        """Its configuration with another sampler."""
        rollout = self.config.rollout
        if isinstance(sampler, SamplerOptions):
            return replace(self.config, rollout=replace(rollout, sampler=sampler))
        return replace(self.config, rollout=replace(rollout, denoising=sampler))

    def _part(self, name: str, kind: str) -> Any:
        if self.kind != kind:
            raise UserError(f"a policy of {self.kind}s has no {name}")
        return getattr(self.worker, name)


def load_policy(
    source: Source,
    *,
    update: int | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> Policy:
    """Load a policy.

    Args:
        source: a run folder, by path or as `open_run` gives it; a configuration, whose model is loaded as it was
            before training; a checkpoint's folder, such as an export; an embedded model (`tiny/block`); a hub id.
        update: of a run, the checkpoint after so many updates; None is the newest.
        device: None is the GPU if there is one.
        precision: `fp32` or `bf16`; None is the configuration's, or `fp32`.

    Raises:
        UserError, CheckpointError: nothing is there, or one of its files is damaged; says which.
    """
    import torch

    from rl.modality.choice import modality_of

    config, run = _configuration(source)
    if update is not None and run is None:
        raise UserError(f"update={update} is for run folders, and {source} is none")
    if precision is not None:
        if precision not in Precision.__members__:
            raise UserError(f"precision={precision!r}: choose {' or '.join(Precision.__members__)}")
        config = replace(config, model=replace(config.model, precision=Precision[precision]))
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    place = torch.device(device)
    with _without_bars():
        modality = modality_of(config)
        worker = modality.rollout_worker(place)
    version = 0
    if run is not None:
        from cluster.weights import load_weights
        from models.lora import trainable_parameters

        weights = run_weights(run, update)
        load_weights(trainable_parameters(worker.policy), weights)
        version = weights.version
    return Policy(config, modality, worker, place, version)


@contextmanager
def _without_bars() -> Iterator[None]:
    """The libraries' bars over the parts of a checkpoint, and their advice on packages, fill a notebook. What is wrong
    with a checkpoint is an error of ours."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _configuration(source: Source) -> tuple[Config, Path | None]:
    """The configuration, and the run folder if weights are to be taken from one."""
    if isinstance(source, RunFolder):
        source = source.path
    if not isinstance(source, str | Path):
        return composed_of(source).config, None
    path = Path(source)
    if (path / "config.yaml").is_file():
        return run_configuration(path, [], unused=("reward",)).config, path
    from models.files import find_checkpoint

    folder = find_checkpoint(str(source), ["model_index.json", "config.json"])
    kind = Kind.image if (folder / "model_index.json").is_file() else Kind.text
    return Config(model=ModelOptions(path=str(source), modality=kind)), None

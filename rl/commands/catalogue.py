"""What each file of configs/algorithm is, worked out from the file itself.

Nothing is listed twice: the cell, what it needs and what it costs follow from the composed options, the models it is
for from the compatibility check, and the words from the comment at the head of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from configs.algorithm_options import AdvantageKind, AlgorithmOptions, LikelihoodKind, ObjectiveKind, Partition
from configs.compose import PACKAGE, Composed, compose
from configs.schema import Config
from models.options import Modality
from rl.algorithm.requirements import differentiates_reward, is_coupled, needs_old, needs_reference
from rl.commands.recipe import Recipe, summary_of
from rl.compatibility import problems
from rl.compatibility.text import attention_of

OF_THE_ALGORITHM = ("algorithm.", "rollout.denoising", "rollout.sampler")
"""Problems with these options are the recipe's own; others can be mended by choosing data or a model."""
REST = {
    Modality.text: ["model=tiny_block", "data=mini_sudoku", "reward=reasoning_gym"],
    Modality.image: ["model=tiny_scenes", "data=scenes", "reward=scene"],
}

ANSWERS = {
    (AdvantageKind.constant, Modality.text): ["data.train.response=x"],
    (AdvantageKind.constant, Modality.image): ["data.train.image=x"],
    (AdvantageKind.preference, Modality.text): ["data.train.chosen=x", "data.train.rejected=y"],
    (AdvantageKind.preference, Modality.image): ["data.train.chosen_image=x", "data.train.rejected_image=y"],
}


USERS = [f"data.{part}.user=x" for part in ("train", "evaluation")]


def catalogue(config_dir: Path | None = None) -> list[Recipe]:
    """Every algorithm file, in alphabetical order."""
    folders = [PACKAGE] if config_dir is None else [PACKAGE, config_dir]
    rest = {modality: _typed(compose(["run.name=x", *chosen])) for modality, chosen in REST.items()}
    files = (file for folder in folders for file in (folder / "algorithm").glob("*.yaml"))
    return [_recipe(file, rest) for file in sorted(files, key=lambda file: file.stem)]


def _recipe(file: Path, rest: Mapping[Modality, tuple[Config, DictConfig]]) -> Recipe:
    own = OmegaConf.load(file)
    if "# @package _global_" not in file.read_text():
        own = OmegaConf.create({"algorithm": own})
    configs = {modality: _with_data(own, modality, composed) for modality, composed in rest.items()}
    suited = {modality: config for modality, config in configs.items() if _suits(config)}
    config = next(iter(suited.values()), configs[Modality.text])
    algorithm = config.algorithm
    summary = summary_of(file)
    paper = re.search(r"arXiv (\d{4}\.\d{5})", summary)
    return Recipe(
        name=file.stem,
        summary=summary,
        paper=paper.group(1) if paper else "",
        modalities=tuple(modality.value for modality in suited),
        attention=attention_of(algorithm.likelihood),
        cell=cell_of(algorithm),
        forwards=_forwards(config),
        needs=tuple(_needs(config)),
    )


def _typed(composed: Composed) -> tuple[Config, DictConfig]:
    """The configuration as objects, and as a tree that takes only what the schema does."""
    return composed.config, cast(DictConfig, OmegaConf.merge(OmegaConf.structured(Config), composed.resolved))


def _with_data(own: Any, modality: Modality, rest: tuple[Config, DictConfig]) -> Config:
    """The recipe on an embedded model, with the data that it asks for.

    Only the sections that the file speaks of are merged: sixty merges of the whole configuration took two seconds.
    """
    config, tree = rest
    config = replace(config, **{name: _merged(tree[name], own[name]) for name in own})
    columns = ANSWERS.get((config.algorithm.advantage, modality), [])
    if config.model.user_adapter is not None:
        columns = [*columns, *USERS]
    return replace(config, data=_merged(tree.data, OmegaConf.from_dotlist(columns).data)) if columns else config


def _merged(section: DictConfig, own: Any) -> Any:
    return OmegaConf.to_object(OmegaConf.merge(section, own))


def _suits(config: Config) -> bool:
    return not any(problem.startswith(OF_THE_ALGORITHM) for problem in problems(config, None))


def cell_of(algorithm: AlgorithmOptions) -> tuple[str, str, str, str]:
    """likelihood, ratio, objective, advantage"""
    return _likelihood(algorithm), algorithm.ratio.value, algorithm.objective.value, algorithm.advantage.value


def _likelihood(algorithm: AlgorithmOptions) -> str:
    likelihood = algorithm.likelihood
    if likelihood.kind is LikelihoodKind.replay:
        return f"replay({likelihood.partition.value})"
    return likelihood.kind.value


def _needs(config: Config) -> Iterator[str]:
    algorithm = config.algorithm
    if algorithm.likelihood.kind in (LikelihoodKind.replay, LikelihoodKind.proposals):
        yield "trace"
    if algorithm.advantage is AdvantageKind.per_step:
        yield "rewards of steps"
    if needs_reference(algorithm):
        yield "reference"
    if algorithm.value is not None:
        yield "value"
    if algorithm.likelihood.kind is LikelihoodKind.reward_gradient:
        yield "differentiable reward"
    elif algorithm.advantage is AdvantageKind.constant:
        yield "demonstrations"
    if algorithm.advantage is AdvantageKind.preference:
        yield "pairs"
    if config.model.user_adapter is not None:
        yield "user embeddings"


def _forwards(config: Config) -> str:
    """T: rounds of a text, trained steps of an image."""
    algorithm = config.algorithm
    likelihood = algorithm.likelihood
    if differentiates_reward(config.algorithm):  # the learner draws the whole chain
        renoise = algorithm.reward_gradient.renoise
        return f"T+{renoise} x 1" if renoise else "T x 1"
    replay = likelihood.kind is LikelihoodKind.replay
    overlapping = likelihood.kind is LikelihoodKind.elbo and (likelihood.draws > 1 or likelihood.full_view > 0)
    slow_copy = algorithm.objective is ObjectiveKind.nft
    models = 1 + needs_reference(algorithm) + is_coupled(algorithm, overlapping) + slow_copy
    recorded = replay and likelihood.partition is Partition.every_step and likelihood.prompt_masking == 0
    recorded = recorded or likelihood.kind is LikelihoodKind.proposals
    if needs_old(algorithm) and not recorded and algorithm.epochs * algorithm.minibatches > 1:
        models += 1
    if algorithm.value is not None:  # scores what it is then trained on
        models += 1 + algorithm.value.passes
    return f"{_rows(config)} x {models}"


def _rows(config: Config) -> str:
    algorithm, branching = config.algorithm, config.rollout.branching
    likelihood = algorithm.likelihood
    if likelihood.kind is LikelihoodKind.elbo:
        return str(likelihood.draws * (1 + likelihood.complement) + (likelihood.full_view > 0))
    if likelihood.sampled_parts is not None:
        return str(likelihood.sampled_parts)
    if likelihood.kind is LikelihoodKind.proposals:
        return "T" if algorithm.selected_steps is None else str(algorithm.selected_steps)
    return {
        Partition.every_step: "T",
        Partition.shrink: f"T/{likelihood.shrink}",
        Partition.segments: str(likelihood.segments),
        Partition.one: "1",
        Partition.forks: "1" if branching is None else str(len(branching.forks)),
        Partition.left_to_right: "L",
    }[likelihood.partition]

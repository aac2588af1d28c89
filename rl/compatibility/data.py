"""Sources of problems and their answers that the training cannot work with; each problem is one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from configs.algorithm_options import AdvantageKind
from configs.schema import IMAGE_ANSWERS, TEXT_ANSWERS, Config, SourceKind, SourceOptions
from models.options import Modality

NOT_READ = {
    SourceKind.reasoning_gym: ("split",),
    SourceKind.file: ("split", "seed"),
    SourceKind.dataset: ("seed",),
}


def data_problems(config: Config) -> Iterator[str]:
    for name, source in sources(config).items():
        for option in NOT_READ.get(source.kind, ()):
            value = getattr(source, option)
            if value != getattr(SourceOptions, option):
                yield f"{name}.{option}={value} does nothing for kind={source.kind.name}; leave it out"
        if source.size is None and _endless(source):
            yield f"{name}.size=null: {source.kind.name} makes problems without end; set a number"
        if source.prompt is None and config.model.modality is Modality.image:
            yield f"{name}.prompt=null takes prompts out of texts that answer them; set a template for an image model"
        elif source.prompt is None and all(getattr(source, answer) is None for answer in TEXT_ANSWERS):
            yield f"{name}.prompt=null takes prompts out of answers; set {name}.response, or chosen and rejected"
    evaluation = config.data.evaluation
    for name, source in config.data.training().items():
        yield from _answers(config, name, source)
        if evaluation is not None and _overlap(source, evaluation):
            yield (
                f"data.evaluation has the problems of {name} in it; use another split or file, or for reasoning-gym a "
                f"seed of at least {source.seed + (source.size or 0)} (problem i comes from seed + i)"
            )


def sources(config: Config) -> dict[str, SourceOptions]:
    """All that problems come from, under the option's name."""
    training, evaluation = config.data.training(), config.data.evaluation
    return training if evaluation is None else {**training, "data.evaluation": evaluation}


def _answers(config: Config, where: str, source: SourceOptions) -> Iterator[str]:
    """A problem has a demonstration or a pair, and offline training needs the one that its advantages are of."""
    advantage = config.algorithm.advantage
    for names in (TEXT_ANSWERS, IMAGE_ANSWERS):
        demonstration, chosen, rejected = names
        given = [name for name in names if getattr(source, name) is not None]
        if given not in ([], [demonstration], [chosen, rejected]):
            yield (
                f"{where} has {' and '.join(given)}; a problem has either a demonstration ({demonstration}) or a "
                f"pair ({chosen} and {rejected}): set the others to null"
            )
    image = config.model.modality is Modality.image
    demonstration, chosen, rejected = IMAGE_ANSWERS if image else TEXT_ANSWERS
    what = "the column of images" if image else "a template of them"
    if advantage is AdvantageKind.constant and getattr(source, demonstration) is None:
        yield f"algorithm.advantage=constant trains on demonstrations; set {where}.{demonstration} to {what}"
    if advantage is AdvantageKind.preference and getattr(source, chosen) is None and getattr(source, rejected) is None:
        what = "the columns of images" if image else "templates of them"
        instead = "" if getattr(source, demonstration) is None else f", and {where}.{demonstration}=null"
        yield (
            f"algorithm.advantage=preference trains on pairs; set {where}.{chosen} and {where}.{rejected} to "
            f"{what}{instead}"
        )


def _endless(source: SourceOptions) -> bool:
    return source.kind is SourceKind.reasoning_gym or (source.kind is SourceKind.scenes and source.split == "train")


def _overlap(first: SourceOptions, second: SourceOptions) -> bool:
    if first.kind is second.kind and first.kind in (SourceKind.scenes, SourceKind.digits):
        return first.split == second.split  # whatever the seed: the splits share no prompt, or no picture
    if (first.kind, first.name, first.args) != (second.kind, second.name, second.args):
        return False
    if first.kind is SourceKind.reasoning_gym:
        end_of_first, end_of_second = first.seed + (first.size or 0), second.seed + (second.size or 0)
        return first.seed < end_of_second and second.seed < end_of_first
    return first.split == second.split

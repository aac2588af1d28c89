"""`denoiserl train-reward`, from pairs to a folder with a model, its record, its report and its picture."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.errors import UserError
from models.files import local_folder
from models.identity import identity
from models.options import Modality
from rewards.model_folder import RECORD, seal, sha256
from rl.drawing.calibration import calibration_plot
from rl.preference.held_out import HeldOut, held_out
from rl.preference.options import PreferenceOptions, check
from rl.preference.pairs import Pair, check_apart, pair_file, read_pairs, split
from rl.preference.trained import TrainedModel
from rl.run.statistics import Estimate

REPORT, PICTURE = "report.json", "calibration.png"
LIBRARIES = ("denoiserl", "torch", "transformers", "trl")


def train_reward(options: PreferenceOptions) -> HeldOut:
    """Trains on pairs, and writes everything into `options.output`, the record last.

    Raises:
        UserError, DataError: options or rows that cannot be used; nothing was written then.
    """
    check(options)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda is not possible: torch finds no GPU here; choose cpu")
    base, folder = local_folder(options.base), Path(options.output)
    if base is not None and base.resolve() == folder.resolve():
        raise UserError(f"output={options.output} is the base, which would be written over: choose another folder")
    file = pair_file(options.pairs)
    pairs = read_pairs(file, options.modality)
    held_file = file
    if options.held_out_pairs is None:
        training, held = split(pairs, options.held_out, options.seed)
    else:
        held_file = pair_file(options.held_out_pairs, "held_out_pairs")
        training, held = pairs, read_pairs(held_file, options.modality)
        check_apart(training, held)
    read = _read(options, base, (file, held_file), len(training))  # now: files may change while it is trained
    trained = _trained(training, held, (file, held_file), options)
    judged = held_out(trained.margins, [pair.key for pair in held])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)  # of an earlier model, whose files are written over
    trained.save(folder)
    _draw(judged, folder / PICTURE)
    about = {"kind": options.modality.value, **trained.about, **read}
    report = {**about, **_numbers(judged, trained)}
    (folder / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    seal(folder, about)
    return judged


def _trained(
    training: list[Pair], held: list[Pair], files: tuple[Path, Path], options: PreferenceOptions
) -> TrainedModel:
    if options.modality is Modality.image:
        from rl.preference.image import train_image

        return train_image(training, held, options)
    from rl.preference.text import train_text  # TRL's trainer takes seconds to import

    return train_text(training, held, files, options)


def _read(options: PreferenceOptions, base: Path | None, files: tuple[Path, Path], training: int) -> dict[str, Any]:
    """What the model is made of; no path but the base's, so that equal models have equal records."""
    given = asdict(replace(options, pairs=files[0].name, output=Path(options.output).name))
    given["held_out_pairs"] = None if options.held_out_pairs is None else files[1].name
    return {
        "options": {name: getattr(value, "value", value) for name, value in given.items()},
        "pairs": {"file": files[0].name, "sha256": sha256(files[0]), "trained_on": training},
        "held_out_pairs": {"file": files[1].name, "sha256": sha256(files[1])},
        "base": {"name": options.base, "identity": None if base is None else identity(base)},
        "versions": {library: version(library) for library in LIBRARIES},
    }


def _numbers(judged: HeldOut, trained: TrainedModel) -> dict[str, Any]:
    return {
        "held_out": {
            "pairs": judged.pairs,
            "prompts": judged.prompts,
            "accuracy": _interval(judged.accuracy),
            "ties": judged.ties,
            "log_loss": judged.log_loss,
            "calibration_error": judged.calibration_error,
            "calibration": [{**asdict(each), "right": _interval(each.right)} for each in judged.bins],
        },
        "training_accuracy": float(np.mean(trained.training_margins > 0)),
        "losses": [{"step": step, "loss": loss} for step, loss in trained.losses],
    }


def _interval(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _draw(judged: HeldOut, path: Path) -> None:
    bins, accuracy = judged.bins, judged.accuracy
    calibration_plot(
        [each.predicted for each in bins],
        [each.right.value for each in bins],
        [each.right.low for each in bins],
        [each.right.high for each in bins],
        [each.pairs for each in bins],
        f"accuracy {accuracy.value:.3f} ({accuracy.low:.3f} to {accuracy.high:.3f}) on {judged.pairs} held-out pairs\n"
        f"expected calibration error {judged.calibration_error:.3f}",
        path,
    )

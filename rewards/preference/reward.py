"""A Bradley-Terry model as a reward: the logit r of a sample, where P(a is preferred to b) = sigmoid(r(a) - r(b))."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rewards.conversation import Prompt
from rewards.model_folder import ModelFolderError, checked, written
from rewards.preference.form import Form, Segments, TextError

if TYPE_CHECKING:  # torch is imported where it is needed, which is not in most reward processes
    from torch import Tensor

Tell = Callable[[int, str, str], None]


def preference_model(
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    path: str | None = None,
    batch_size: int = 32,
    device: str = "cpu",
    centred: bool = False,
    log_failed: Tell | None = None,
    **_: Any,
) -> list[float | None]:
    """The logit of each sample, its mean over segments where the model was trained on them.

    Args:
        path: folder that `denoiserl train-reward` wrote.
        batch_size: texts that are read together.
        device: of torch, such as cuda:0.
        centred: less the mean logit of the answers that the model was trained on: a Bradley-Terry model knows
            differences only, and its zero is anywhere.

    Raises:
        ValueError: an argument is wrong, the folder is damaged, or, without `log_failed`, a sample cannot be read.
    """
    if path is None:
        raise ValueError("the reward `preference_model` needs args.path: a folder that `denoiserl train-reward` wrote")
    if batch_size < 1:
        raise ValueError(f"the reward `preference_model` has batch_size={batch_size}: choose 1 or more")
    reader = preference_reader(path, device, written(path))
    samples: list[list[list[int]]] = []
    for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        try:
            samples.append(reader.form.ids(prompt, completion))
        except TextError as error:
            if log_failed is None:
                raise ValueError(f"sample {place}: {error}") from error
            log_failed(place, "invalid", str(error))
            samples.append([])
    values = reader.scores(samples, batch_size)
    return [None if value is None else value - centred * reader.centre for value in values]


@functools.lru_cache(maxsize=8)
def preference_reader(path: str, device: str, written: int) -> PreferenceReader:
    """`written` is when the record was, so that a model that was trained anew is not taken for the earlier one."""
    return PreferenceReader(path, device)


class PreferenceReader:
    """A frozen fp32 sequence classifier of one number, with the form of its texts."""

    def __init__(self, path: str, device: str) -> None:
        """
        Raises:
            ModelFolderError: `path` is no folder that `denoiserl train-reward` wrote for texts, or it is damaged.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        record = checked(path, "text")
        try:
            form, self.centre = record["form"], float(record["centre"])
            segments, max_tokens = Segments(form["segments"]), int(form["max_tokens"])
        except (KeyError, ValueError, TypeError) as error:
            raise ModelFolderError(f"{path}: its record does not say how texts are formed ({error!r})") from error
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(path, output_loading_info=True)
        model, report = loaded
        if missing := sorted(report["missing_keys"]):
            raise ModelFolderError(f"{path}: its weights lack {', '.join(missing[:3])}; train it again")
        self.model = model.float().to(device).eval().requires_grad_(False)
        self.form = Form(AutoTokenizer.from_pretrained(path), max_tokens, segments)

    def scores(self, samples: Sequence[list[list[int]]], batch_size: int) -> list[float | None]:
        """Mean logit over each sample's segments; None for a sample without any."""
        flat = [ids for sample in samples for ids in sample]
        logits = iter(classifier_logits(self.model, flat, batch_size))
        found = [[next(logits) for _ in sample] for sample in samples]
        return [sum(each) / len(each) if each else None for each in found]


def classifier_logits(model: Any, rows: Sequence[list[int]], batch_size: int) -> list[float]:
    """The one number that a sequence classifier says of each row of tokens."""
    import torch

    values = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))  # little padding
    for first in range(0, len(order), batch_size):
        places = order[first : first + batch_size]
        ids, mask = padded([rows[place] for place in places], model.config.get_text_config().pad_token_id)
        with torch.inference_mode():
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
        for place, value in zip(places, logits[:, 0].float().tolist(), strict=True):
            values[place] = value
    return values


def padded(rows: Sequence[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """(B, L) int64 token ids, and (B, L) int64 which is 1 where there are any; padding stands on the right."""
    import torch

    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (length - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask

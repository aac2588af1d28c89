"""A run for TensorBoard: metrics, evaluations with their intervals, samples, pictures and options, bounded in size.

Nothing is known here alone: all of it is made from what the run folder has, and made again when a run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.util.tensor_util import make_tensor_proto

SAMPLES, CHARACTERS = 4, 1000
"""Of each evaluation and kind: how many samples are shown, and how much of a prompt or a completion."""
EDGE = 256
"""Pixels of a picture's longer edge; the pictures of the run folder are whole."""
BUDGET = 64 * 2**20
"""Bytes of samples and pictures of a run; what comes after is in the run folder alone."""
OPTION_CHARACTERS = 200


class Writer(Protocol):
    """What TensorBoard's `EventFileWriter` can do, and the run's own that no disk can end (`rl.storage.events`)."""

    def add_event(self, event: Event) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._left = BUDGET
        self._charted: set[str] = set()

    def options(self, options: Mapping[str, Any]) -> None:
        """The configuration, as hyper-parameters; values that come from the environment stand there by name."""
        flat = {name: _option(value) for name, value in options.items()}
        self._add(0, time.time(), hparams_pb(flat, trial_id="run", start_time_secs=time.time()).value)

    def scalars(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        """One event: fifty times fewer records than one a metric, so that a long record is rewritten quickly.

        Args:
            seconds: since 1970.
        """
        self._add(step, seconds, [Summary.Value(tag=name, simple_value=value) for name, value in values.items()])

    def evaluation(self, row: Mapping[str, Any], texts: str, pictures: Path) -> None:
        """The numbers of a row of evaluations.jsonl, a chart with margins of each that has an interval, its first
        samples, and its pictures.

        Args:
            texts: what the names of its samples begin with.
            pictures: the folder with those of each kind, update by update.
        """
        step, now = row["update"], time.time()
        numbers = {name: value for name, value in row.items() if name.startswith("evaluation/")}
        self.scalars(step, now, {name: value for name, value in numbers.items() if value is not None})
        self._chart([name for name in numbers if f"{name}_low" in numbers])
        for name in (name for name in row if name.startswith(texts)):
            shown = text_pb(f"samples/{name.removeprefix(texts)}", "\n\n---\n\n".join(map(_markdown, row[name])))
            self._add_bounded(step, now, list(shown.value))
        for folder in sorted(pictures.glob(f"*/u{step:06d}")):
            files = sorted(folder.glob("*.png"))[:SAMPLES]
            tags = (f"pictures/{folder.parent.name}/{file.stem}" for file in files)
            images = [Summary.Value(tag=tag, image=_small(file)) for tag, file in zip(tags, files, strict=True)]
            self._add_bounded(step, now, images)
        self._writer.flush()

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _chart(self, names: Sequence[str]) -> None:
        """Value and interval as one curve, under CUSTOM SCALARS."""
        if self._charted >= {*names}:
            return
        self._charted |= {*names}
        margin = layout_pb2.MarginChartContent
        charts = [
            layout_pb2.Chart(
                title=name,
                margin=margin(series=[margin.Series(value=name, lower=f"{name}_low", upper=f"{name}_high")]),
            )
            for name in sorted(self._charted)
        ]
        layout = layout_pb2.Layout(category=[layout_pb2.Category(title="evaluations, 95 % intervals", chart=charts)])
        value = Summary.Value(
            tag=custom_scalars.CONFIG_SUMMARY_TAG,
            tensor=make_tensor_proto(layout.SerializeToString()),
            metadata=custom_scalars.create_summary_metadata(),
        )
        self._add(0, time.time(), [value])

    def _add_bounded(self, step: int, seconds: float, values: Sequence[Summary.Value]) -> None:
        self._left -= sum(value.ByteSize() for value in values)
        if self._left >= 0 and values:
            self._add(step, seconds, values)

    def _add(self, step: int, seconds: float, values: Iterable[Summary.Value]) -> None:
        self._writer.add_event(Event(step=step, wall_time=seconds, summary=Summary(value=values)))


def _option(value: Any) -> bool | float | str:
    if isinstance(value, bool | int | float):
        return value
    return str(value)[:OPTION_CHARACTERS]


def shortened(text: str) -> str:
    """At most `CHARACTERS` of it, and how many are left out."""
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]} … and {len(text) - CHARACTERS} characters more"


def _markdown(sample: Mapping[str, Any]) -> str:
    """Prompt and completion as they are: four spaces keep Markdown from reading them."""
    said = "not scored" if sample["reward"] is None else f"reward {sample['reward']:.4g}"
    parts = {"prompt": sample["prompt"], f"completion, {said}": sample["completion"]}
    return "\n\n".join(
        f"**{name}**\n\n" + "\n".join(f"    {line}" for line in text.splitlines()) for name, text in parts.items()
    )


def _small(file: Path) -> Summary.Image:
    from PIL import Image  # only runs of images have it

    with Image.open(file) as image:
        image.thumbnail((EDGE, EDGE))
        written = BytesIO()
        image.convert("RGB").save(written, "PNG")
        return Summary.Image(
            height=image.height, width=image.width, colorspace=3, encoded_image_string=written.getvalue()
        )

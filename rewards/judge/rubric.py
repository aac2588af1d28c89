"""The reward `judge`: what a language model thinks of each sample, by a rubric."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from rewards.judge.asking import Asking, Failed
from rewards.judge.settings import Settings
from rewards.judge.template import SAMPLE, Template
from rewards.picture import picture
from rewards.remote.client import together

TEMPLATE = "quality"
OTHERS = ("completion_ids", "trainer_state", "log_extra", "log_malformed")
"""Arguments of reward functions that are nothing to a judge."""


async def judge(
    prompts: list[str],
    completions: list[Any],
    log_failed: Callable[[int, str, str], None] = lambda place, status, why: None,
    log_metric: Callable[[str, float], None] = lambda name, value: None,
    **given: Any,
) -> list[Any]:
    """N scores, or N mappings of criteria to scores where the schema of mode json has several.

    Args:
        completions: texts; or pictures, which a judge that sees them gets in front of the text.
        given: arguments of `Settings`, columns, and constants of the template.

    Raises:
        ValueError: an argument is wrong. Unavailable: the judge is down.
    """
    settings, template, columns = prepared(given, len(prompts), TEMPLATE, SAMPLE)
    values: list[Any] = [None] * len(prompts)

    async def judged(asking: Asking, place: int) -> None:
        try:
            found = await asking.value(_content(settings, template, prompts[place], completions[place], columns, place))
            values[place] = next(iter(found.values())) if len(found) == 1 else found
        except Failed as error:
            log_failed(place, error.status, str(error))

    async with Asking(settings) as asking:
        await together(judged(asking, place) for place in range(len(prompts)))
        asking.tell(log_metric, len(prompts))
    return values


def prepared(
    given: Mapping[str, Any], samples: int, default_template: str, needed: tuple[str, ...]
) -> tuple[Settings, Template, dict[str, list[Any]]]:
    """The settings, the template, and what else a template may show: columns, N values each."""
    mine = {name: value for name, value in given.items() if name not in OTHERS}
    columns = {name: value for name, value in mine.items() if _is_column(name, value, samples)}
    settings = Settings.of({name: value for name, value in mine.items() if name not in columns}, default_template)
    template = Template.named(settings.template)
    settings.check_columns(template, columns, needed)
    return settings, template, columns


def _is_column(name: str, value: Any, samples: int) -> bool:
    return name not in Settings.__dataclass_fields__ and isinstance(value, list) and len(value) == samples


def _content(
    settings: Settings, template: Template, prompt: str, completion: Any, columns: Mapping[str, list[Any]], place: int
) -> Any:
    """What is sent. Raises Failed."""
    shown = isinstance(completion, np.ndarray)
    values = {name: column[place] for name, column in columns.items()} | dict(settings.constants)
    text = "(the picture above)" if shown else completion
    try:
        asked = template.render(**values, prompt=prompt, completion=text, scores=settings.words)
    except ValueError as error:
        raise Failed("error", str(error)) from None
    return [*picture_part(completion), {"type": "text", "text": asked}] if shown else asked


def picture_part(completion: Any) -> list[dict[str, Any]]:
    """A picture as chat messages carry one: PNG in a data URL."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture(completion)).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return [{"type": "image_url", "image_url": {"url": url}}]


def checks(needed: tuple[str, ...], default_template: str) -> Callable[[Mapping[str, Any], Collection[str]], None]:
    """What `rewards.registry.check_columns` asks before anything starts."""

    def check(args: Mapping[str, Any], columns: Collection[str]) -> None:
        settings = Settings.of(args, default_template)
        settings.check_columns(Template.named(settings.template), columns, needed)
        if lists := [name for name, value in settings.constants.items() if isinstance(value, list)]:
            raise ValueError(
                f"args.{lists[0]} is a list, and a call on as many samples would give each of them one of its values: "
                f"make it one text"
            )

    return check


judge.check = checks(SAMPLE, TEMPLATE)  # type: ignore[attr-defined]

"""The reference pages of the site: every option, every packaged file, the public API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from enum import Enum
from typing import Any

import rl
from configs.compose import GROUPS, PACKAGE, options
from configs.schema import Config
from docs.generate.options import Section, docstrings, sections
from docs.generate.rooms import ROOT

OPTIONS = "reference/options"
CONTRACTS = (
    ("What every rollout leaves", "rollout.trajectory.Trajectory"),
    ("What a rollout worker is asked for", "rollout.worker.RolloutRequest"),
    ("What differs between texts and images", "rl.modality.protocol.Modality"),
    ("What the learner asks of a likelihood", "rl.likelihood.protocol.Likelihood"),
    ("What a reward is given", "rewards.scoring.scorer.ScoreRequest"),
    ("What a reward gives back", "rewards.scoring.scorer.Scores"),
)
"""Protocols and values that parts of the code meet in, in the order of a sample's way."""


def pages() -> dict[str, str]:
    """Markdown by the path of the page in the site."""
    tops = [field.name for field in fields(Config)]
    return {
        **{f"{OPTIONS}/{name}.md": option_page(name) for name in tops},
        f"{OPTIONS}/index.md": option_index(),
        "reference/files.md": files_page(),
        "reference/api.md": api_page(),
        "reference/contracts.md": contracts_page(),
    }


def option_index() -> str:
    """One row for each top-level section, and how the tables are to be read."""
    meanings = docstrings(Config)
    rows = [f"| [`{field.name}`]({field.name}.md) | {meanings[field.name]} |" for field in fields(Config)]
    return "\n".join(
        [
            "# Options",
            "",
            "Every option that a run can be told, as the code declares it. How files and the command line set them:",
            "[Configuration](../../configuration.md).",
            "",
            "| section | |",
            "|---|---|",
            *rows,
            "",
            "An option without a default must be given. A unit of 1 is that of a pure number; *NAME* stands for a name",
            "of yours. A section whose default is null is unset; setting an option in it opens it.",
            "",
        ]
    )


def option_page(top: str) -> str:
    """The tables of a top-level section and of all below it."""
    lines = [f"# {top}", ""]
    below = [section for section in sections(Config) if section.path.partition(".")[0] == top]
    for section in below:
        if section.path != top:
            lines += [f"## {section.path} {{ #{section.path} }}", ""]
        lines += [_escaped(section.meaning), ""]
        if section.unset:
            lines += ["Default: `null`.", ""]
        alike = [other for other in below if other.kind is section.kind]
        described = min(alike, key=lambda other: other.path.count("."))
        lines += _table(section) if described is section else _same_as(described, section)
    return "\n".join(lines)


def _table(section: Section) -> Iterator[str]:
    listed = section.options()
    if not listed:
        return
    yield '<div class="options" markdown>'
    yield ""
    yield "| Option | Type | Default | Unit | Meaning |"
    yield "|---|---|---|---|---|"
    for option in listed:
        name = f"`{option.name}`{{ #{section.path}.{option.name} }}"
        default = f"`{option.default}`" if option.default else "required"
        yield f"| {name} | {option.kind} | {default} | {option.unit} | {_escaped(option.meaning)} |"
    yield ""
    yield "</div>"
    yield ""
    for option in listed:
        if option.choices is not None:
            yield from _values(f"{section.path}.{option.name}", option.choices)


def _values(path: str, choices: type[Enum]) -> Iterator[str]:
    meanings = docstrings(choices)
    yield f"**`{path}`** {{ .values }}"
    yield ""
    yield "| Value | Meaning |"
    yield "|---|---|"
    for choice in choices:
        yield f"| `{choice.name}` | {_escaped(meanings[choice.name])} |"
    yield ""


def _same_as(described: Section, section: Section) -> Iterator[str]:
    """Instead of a table that stands on the page once."""
    others = [
        f"`{new.name}` is `{new.default}`"
        for old, new in zip(described.options(), section.options(), strict=True)
        if old.default != new.default
    ]
    but = f", but the default of {' and of '.join(others)}" if others else ""
    yield f"The options are those of [`{described.path}`](#{described.path}){but}."
    yield ""


def files_page() -> str:
    """Every file of every group, with the comment at its head."""
    lines = ["# Packaged files", "", "What `group=name` on the command line can choose, in the words of each file.", ""]
    for group in GROUPS:
        lines += [f"## {group}", "", '<div class="options" markdown>', "", "| File | What it is |", "|---|---|"]
        for name in names_of(group):
            path = PACKAGE.relative_to(ROOT) / group / f"{name}.yaml"
            words = _escaped(head_of((ROOT / path).read_text()))
            lines.append(f"| [`{group}={name}`](../source/{path}.md) | {words} |")
        lines += ["", "</div>", ""]
    return "\n".join(lines)


def names_of(group: str) -> list[str]:
    return options(group, [PACKAGE])


def head_of(text: str) -> str:
    """The comment at the head of a YAML file."""
    comments = re.match(r"((?:#.*\n)*)", text)
    assert comments is not None
    lines = [line.removeprefix("#").strip() for line in comments[1].splitlines()]
    return " ".join(line for line in lines if not line.startswith("@package"))


def api_page() -> str:
    """What `rl.__all__` names."""
    names = getattr(rl, "__all__", [])
    lines = ["# Python API", ""]
    if not names:
        return "\n".join([*lines, "`rl` names nothing in `__all__`: there is no public API yet.", ""])
    lines += ["What `from rl import ...` gives; all else may change without notice.", ""]
    for name in names:
        lines += [f'<a id="{name}"></a>', "", *_documented(_target(name, getattr(rl, name)), level=2, full_path=False)]
    return "\n".join(lines)


def contracts_page() -> str:
    """The protocols that a new part must speak."""
    how = "What the parts of the code meet in. How to add a part: [Contributing](../contributing.md)."
    lines = ["# Contracts", "", how, ""]
    for title, target in CONTRACTS:
        lines += [f"## {title}", "", *_documented(target)]
    return "\n".join(lines)


def _target(name: str, value: Any) -> str:
    """Where a public name is defined, for mkdocstrings, which reads files and follows no lazy import."""
    return f"{getattr(value, '__module__', 'rl')}.{getattr(value, '__qualname__', name)}"


def _documented(target: str, level: int = 3, full_path: bool = True) -> list[str]:
    settings = {"heading_level": level, "show_root_heading": "true", "show_root_full_path": str(full_path).lower()}
    return [f"::: {target}", "    options:", *(f"      {name}: {value}" for name, value in settings.items()), ""]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")

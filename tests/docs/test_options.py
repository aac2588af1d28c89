"""Every option says what it means, and a number its unit: the reference of options has no gaps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from configs.fields import paths
from configs.schema import Config
from docs.generate import reference
from docs.generate.options import docstrings, sections


class Undescribed(Enum):
    one = "one"
    """The first."""
    two = "two"


@dataclass
class Forgetful:
    """Options of a test."""

    said: int = 1
    """Times that it was said. Unit: times."""
    unitless: float = 0.5
    """How much."""
    silent: bool = False
    choice: Undescribed = Undescribed.one
    """Which one."""


def gaps(kind: type) -> Iterator[str]:
    for section in sections(kind):
        if not section.meaning:
            yield f"{section.path}: the section has no docstring"
        for option in section.options():
            name = f"{section.path}.{option.name}".removeprefix(".")
            if not option.meaning:
                yield f"{name}: no docstring below it says what it means"
            if "number" in option.kind and not option.unit:
                yield f"{name}: its docstring does not end with its unit, such as 'Unit: updates.' or 'Unit: 1.'"
            for choice in option.choices or ():
                if choice.name not in docstrings(type(choice)):
                    yield f"{name}={choice.name}: no docstring below it says what it means"


def test_every_option_is_explained() -> None:
    assert list(gaps(Config)) == []


def test_gaps_are_found() -> None:
    assert [gap.partition(":")[0] for gap in gaps(Forgetful)] == ["unitless", "silent", "choice=two"]


def test_the_reference_has_every_option_of_the_schema() -> None:
    pages = "\n".join(reference.pages().values())
    repeated = ("data.evaluation.", "algorithm.value.optimizer.")  # said to be those of another section
    listed = [path for path in paths() if not path.startswith(repeated)]
    assert len(listed) > 150
    forms = ("#{} }}", "#{}.NAME }}", "({}.md)")
    assert [path for path in listed if not any(form.format(path) in pages for form in forms)] == []


def test_what_a_row_says() -> None:
    page = reference.option_page("rollout")
    row = "| `group_size`{ #rollout.group_size } | a whole number | `8` | samples | Samples of one prompt. |"
    assert row in page.splitlines()
    assert "| `precise` | Exact for a diffusion whose clean image is the estimate" in page


def test_repeated_sections_name_the_defaults_that_differ() -> None:
    page = reference.option_page("algorithm")
    assert (
        "those of [`algorithm.optimizer`](#algorithm.optimizer), but the default of `learning_rate` is `5e-06`" in page
    )


def test_every_packaged_file_says_what_it_is() -> None:
    for group in reference.GROUPS:
        for name in reference.names_of(group):
            assert f"[`{group}={name}`]" in reference.files_page()
            assert reference.head_of((reference.PACKAGE / group / f"{name}.yaml").read_text()), f"{group}/{name}.yaml"

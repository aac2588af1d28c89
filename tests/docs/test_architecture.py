"""docs/architecture.md: what it names exists, its picture is the present one, and every page can be reached from it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from os.path import normpath
from pathlib import Path, PurePosixPath

import pytest

from docs.generate import picture
from docs.generate.rooms import Map, Room, read_map
from tests.documentation import ROOT, defines

PAGE = "docs/architecture.md"
TEXT = (ROOT / PAGE).read_text()
PACKAGES = ("rl", "rollout", "rewards", "models", "configs", "cluster", "docs", "tests")
SOURCES = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.fixture(scope="module")
def rooms() -> Map:
    return read_map()


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's tables, without their heads."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    heads = {index - 1 for index, line in enumerate(lines) if line.startswith("|---")}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for index, line in enumerate(lines)
        if index not in heads and not line.startswith("|---")
    ]


def links(page: str) -> set[str]:
    """Paths below the repository's root that a page leads to, outside of its code."""
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    here = PurePosixPath(page).parent
    return {normpath(here / target) for target in re.findall(r"\]\((?![a-z]+:|#)([^)\s#]+)", text)}


def reached(start: str) -> set[str]:
    found, left = {start}, [start]
    while left:
        new = {page for page in links(left.pop()) if page.endswith(".md") and (ROOT / page).is_file()} - found
        found |= new
        left += new
    return found


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {str(file): len(file.read_text().splitlines()) for file in SOURCES}
    assert len(lengths) > 500
    assert {file: length for file, length in lengths.items() if length > 400} == {}


def test_no_room_has_more_than_15_files() -> None:
    """Beside what describes it (`__init__.py`) and what its tests share (`conftest.py`)."""
    rooms = Counter(file.parent for file in SOURCES if file.name not in ("__init__.py", "conftest.py"))
    assert len(rooms) > 50
    assert {str(room): files for room, files in rooms.items() if files > 15} == {}


def test_every_page_can_be_reached() -> None:
    pages = {str(file.relative_to(ROOT)) for file in (ROOT / "docs").rglob("*.md")}
    assert len(pages) > 10
    assert pages - reached(PAGE) == set()


def test_every_page_leads_back_from_the_readme() -> None:
    assert PAGE in links("README.md")


@pytest.mark.parametrize("page", sorted(reached(PAGE)))
def test_links_lead_somewhere(page: str) -> None:
    assert [target for target in links(page) if not (ROOT / target).exists()] == []


def test_named_paths_exist_and_are_linked_by_their_own_name() -> None:
    named = re.findall(r"\[`([\w/.]+)`\]\(\.\./([\w/.]+)\)", TEXT)
    assert len(named) > 100
    assert [path for path, target in named if path != target or not (ROOT / path).exists()] == []
    files = re.findall(r"`((?:rl|rollout|models|rewards|configs|cluster|tests)/[\w/]+\.py)[`:]", TEXT)
    assert [path for path in files if not (ROOT / path).is_file()] == []


def test_every_thing_has_one_answer() -> None:
    things = [thing for thing, *_ in rows("Where is ...")]
    assert len(things) > 80
    assert sorted(things) == sorted(set(things))


def test_the_twelve_commonest_changes_name_files() -> None:
    changes = rows("Where do I change ...")
    assert len(changes) == 12
    for what, where, _ in changes:
        assert re.findall(r"\(\.\./([\w/.]+)\)", where), what


def test_every_invariant_has_a_test() -> None:
    invariants = rows("What everything rests on")
    assert len(invariants) == 6
    for what, _, guards in invariants:
        tests = TEST.findall(guards)
        assert tests, what
        assert [test for test in tests if not defines(*test)] == [], what


def test_the_picture_is_that_of_the_imports(rooms: Map) -> None:
    drawn = picture.draw(rooms, picture.way_of_a_sample(TEXT, rooms))
    assert drawn == picture.PICTURE.read_text(), f"draw it again: {picture.COMMAND}"


def test_another_import_would_be_another_picture(rooms: Map) -> None:
    way = picture.way_of_a_sample(TEXT, rooms)
    (edge, count), *_ = rooms.imports.items()
    more = replace(rooms, imports={**rooms.imports, edge: count + 1})
    assert picture.draw(more, way) != picture.draw(rooms, way)


def test_an_import_that_goes_up_is_not_drawn() -> None:
    above, below = (Room(f"rl.{name}", name, 1, 1) for name in ("above", "below"))
    with pytest.raises(ValueError, match=r"rl.below -> rl.above"):
        picture.draw(Map((above, below), {("rl.below", "rl.above"): 1}), {})


def test_an_old_picture_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "architecture.svg"
    old.write_text("<svg/>")
    monkeypatch.setattr(picture, "PICTURE", old)
    monkeypatch.setattr("sys.argv", ["picture", "--check"])
    with pytest.raises(SystemExit, match="make picture"):
        picture.main()
    monkeypatch.setattr("sys.argv", ["picture"])
    picture.main()
    assert old.read_text().startswith("<svg xmlns")


def test_the_way_of_a_sample_goes_through_the_rooms(rooms: Map) -> None:
    way = picture.way_of_a_sample(TEXT, rooms)
    steps = {number for numbers in way.values() for number in numbers}
    assert steps == set(range(1, 13))
    assert way["rl.algorithm"] == [8, 10]
    assert way["cluster"] == [4, 11]

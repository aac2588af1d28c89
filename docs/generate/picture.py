"""The map of the rooms, drawn from the imports: `make picture` writes docs/pictures/architecture.svg.

A staircase: every room is a step, above all that it imports. A line leaves a room to the right and falls onto the rooms
that it imports; a dot is an import, a line is as wide as the imports it still carries.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from html import escape
from math import sqrt

from docs.generate.rooms import ROOT, Map, Room, read_map

PICTURE = ROOT / "docs/pictures/architecture.svg"
PAGE = ROOT / "docs/architecture.md"
COMMAND = "make picture"

WIDTH, MARGIN = 1000, 14
TOP, BOX, PITCH = 14, 34, 40
FIRST_BOX = 268
"""Width of the uppermost step: its name, its size and the numbers of the way of a sample."""
STYLE = """
  .page { fill: #ffffff; stroke: #d0d7de }
  .name { fill: #1f2328; font-weight: 600; font-size: 13px }
  .size, .purpose, .legend { fill: #59636e; font-size: 10.5px }
  .badge { fill: #1f2328 } .number { fill: #ffffff; font-size: 9.5px; font-weight: 600; text-anchor: middle }
  .across { stroke: #afb8c1 }
  .rl { --ink: #0969da; --wash: #ddf4ff } .configs { --ink: #9a6700; --wash: #fff8c5 }
  .rollout { --ink: #1a7f37; --wash: #dafbe1 } .models { --ink: #8250df; --wash: #fbefff }
  .rewards { --ink: #bc4c00; --wash: #fff1e5 } .cluster { --ink: #59636e; --wash: #f6f8fa }
  rect.step { fill: var(--wash); stroke: var(--ink) }
  path.down, circle.import { fill: var(--ink); stroke: none }
  text { font-family: -apple-system, BlinkMacSystemFont, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #3d444d }
    .name { fill: #f0f6fc } .size, .purpose, .legend { fill: #9198a1 }
    .badge { fill: #f0f6fc } .number { fill: #0d1117 } .across { stroke: #59636e }
    .rl { --ink: #4493f8; --wash: #121d2f } .configs { --ink: #d29922; --wash: #272115 }
    .rollout { --ink: #3fb950; --wash: #12261e } .models { --ink: #ab7df8; --wash: #1f1a33 }
    .rewards { --ink: #f0883e; --wash: #2b1d12 } .cluster { --ink: #9198a1; --wash: #1c2128 }
  }
"""


def draw(rooms: Map, way: Mapping[str, list[int]]) -> str:
    """The picture as SVG.

    Args:
        way: numbers of the steps of a sample's way that lead through a room.
    """
    places = {room.name: place for place, room in enumerate(rooms.rooms)}
    upward = [f"{above} -> {below}" for above, below in rooms.imports if places[above] >= places[below]]
    if upward:
        raise ValueError(f"imports must go down, and these do not: {', '.join(upward)}")
    step = (WIDTH - 2 * MARGIN - FIRST_BOX) / (len(places) - 1)
    ends = [MARGIN + FIRST_BOX + step * place for place in places.values()]
    lanes = [end - step / 2 for end in ends]
    middles = [TOP + place * PITCH + BOX / 2 for place in places.values()]
    height = TOP + len(places) * PITCH + 30

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="The rooms of DenoiseRL and their imports, which all go down">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
    ]
    for room in rooms.rooms:
        parts += _across(places[room.name], _out_of(room, rooms, places), ends, lanes, middles)
    for room in rooms.rooms:
        parts += _down(room, places[room.name], _into(room, rooms, places), lanes, middles)
    for room in rooms.rooms:
        place = places[room.name]
        parts += _step(room, TOP + place * PITCH, ends[place], step, way.get(room.name, []))
    parts += _legend(rooms, height)
    return "\n".join([*parts, "</svg>", ""])


def _out_of(room: Room, rooms: Map, places: dict[str, int]) -> dict[int, int]:
    return {places[below]: count for (above, below), count in rooms.imports.items() if above == room.name}


def _into(room: Room, rooms: Map, places: dict[str, int]) -> dict[int, int]:
    return {places[above]: count for (above, below), count in rooms.imports.items() if below == room.name}


def _thickness(imports: int) -> float:
    return 0.8 + 0.45 * sqrt(imports)


def _across(
    place: int, targets: dict[int, int], ends: list[float], lanes: list[float], middles: list[float]
) -> Iterable[str]:
    """The line that leaves a room, thinner behind each lane that takes its share."""
    left, start = sum(targets.values()), ends[place]
    for target in sorted(targets):
        yield (
            f'<line class="across" x1="{start:.1f}" x2="{lanes[target]:.1f}" y1="{middles[place]:g}" '
            f'y2="{middles[place]:g}" stroke-width="{_thickness(left):.2f}"/>'
        )
        start, left = lanes[target], left - targets[target]


def _down(room: Room, place: int, sources: dict[int, int], lanes: list[float], middles: list[float]) -> Iterable[str]:
    """The lane that falls onto a room, wider below each line that joins it."""
    if not sources:
        return
    x, carried, rows = lanes[place], 0, sorted(sources)
    bottom = TOP + place * PITCH
    yield f'<g class="{room.package}">'
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        carried += sources[row]
        half = _thickness(carried) / 2
        end = bottom - 5 if following is None else middles[following]
        yield f'<path class="down" d="M{x - half:.2f} {middles[row]:g}H{x + half:.2f}V{end:g}H{x - half:.2f}Z"/>'
    tip = _thickness(carried) / 2 + 3
    yield f'<path class="down" d="M{x - tip:.2f} {bottom - 6:g}H{x + tip:.2f}L{x:.2f} {bottom:g}Z"/>'
    for row in rows:
        radius = 1.6 + 0.75 * sqrt(sources[row])
        yield f'<circle class="import" cx="{x:.1f}" cy="{middles[row]:g}" r="{radius:.2f}"/>'
    yield "</g>"


def _step(room: Room, top: float, end: float, step: float, numbers: list[int]) -> Iterable[str]:
    right = end - step - 6
    files = f"{room.files} file{'s' if room.files > 1 else ''}"
    size = f"{files}, {room.lines / 1000:.1f}k lines" if room.files else "its names alone"
    name = escape(room.name.replace(".", "/"))
    yield f'<g class="{room.package}">'
    yield f'<rect class="step" x="{MARGIN}" y="{top:g}" width="{end - MARGIN:.1f}" height="{BOX}" rx="5"/>'
    yield (
        f'<text x="{MARGIN + 9}" y="{top + 14:g}"><tspan class="name">{name}</tspan>'
        f'<tspan class="size" dx="7">{size}</tspan></text>'
    )
    purpose = escape(_fitting(room.docstring, end - MARGIN - 20))
    yield f'<text class="purpose" x="{MARGIN + 9}" y="{top + 27.5:g}">{purpose}</text>'
    for index, number in enumerate(reversed(numbers)):
        x = right - 8 - 17 * index
        yield f'<circle class="badge" cx="{x:.1f}" cy="{top + 11:g}" r="7.5"/>'
        yield f'<text class="number" x="{x:.1f}" y="{top + 14.4:g}">{number}</text>'
    yield "</g>"


def _fitting(text: str, width: float) -> str:
    """The beginning of a docstring up to the last clause that has room, without its closing mark."""
    text = text.replace("`", "")
    clauses = [text[: match.start()] for match in re.finditer(r"[.:;,](?= |$)", text)]
    fitting = [clause for clause in clauses if len(clause) * 5.2 <= width]
    return max(fitting, key=len, default="")


def _legend(rooms: Map, height: float) -> Iterable[str]:
    y = height - 13
    total = sum(rooms.imports.values())
    text = (
        f"A dot is an import of a room below; dots and lines grow with the number of modules that import "
        f"({len(rooms.imports)} dots, {total} imports). Circled numbers: the way of a sample."
    )
    yield f'<text class="legend" x="{MARGIN}" y="{y:g}">{escape(text)}</text>'


def way_of_a_sample(page: str, rooms: Map) -> dict[str, list[int]]:
    """Which rooms the numbered steps of docs/architecture.md lead through: those of the files they name."""
    names = sorted((room.name for room in rooms.rooms), key=len, reverse=True)
    way: dict[str, list[int]] = {}
    section = page.partition("## The way of a sample")[2].partition("\n## ")[0]
    for number, text in re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^$|\Z)", section, re.DOTALL | re.MULTILINE):
        modules = [path.removesuffix(".py").replace("/", ".") for path in re.findall(r"`([\w/]+\.py)`", text)]
        for module in modules:
            room = next((name for name in names if f"{module}.".startswith(f"{name}.")), None)
            if room is not None and int(number) not in way.setdefault(room, []):
                way[room].append(int(number))
    return way


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="fail if the committed picture is not the present one")
    check = arguments.parse_args().check
    rooms = read_map()
    picture = draw(rooms, way_of_a_sample(PAGE.read_text(), rooms))
    if not check:
        PICTURE.write_text(picture)
    elif not PICTURE.is_file() or PICTURE.read_text() != picture:
        sys.exit(f"{PICTURE.name} is not what the imports are now; draw it again: {COMMAND}")


if __name__ == "__main__":
    main()

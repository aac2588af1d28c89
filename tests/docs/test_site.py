"""`make docs`: the site builds strictly and without a network, asks for nothing from elsewhere, and its links hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import rl
from docs.generate import links
from tests.documentation import ROOT

pytestmark = pytest.mark.processes
NOWHERE = "http://127.0.0.1:9"
"""A proxy that is not there: whatever asks for the network fails."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    proxies = {f"{protocol}_proxy": NOWHERE for protocol in ("http", "https", "all")}
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, **proxies, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, str]:
    found = {file: file.read_text() for file in site.rglob("*.html")}
    assert len(found) > 50
    return found


def test_nothing_comes_from_elsewhere(site: Path, pages: dict[Path, str]) -> None:
    loads = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>")
    assert [(file.name, found[0]) for file, text in pages.items() if (found := loads.findall(text))] == []
    styles = "\n".join(file.read_text() for file in site.rglob("*.css"))
    assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", styles)
    assert loads.search('<script src="https://cdn.example/x.js">')


def test_links_lead_to_pages_and_places(site: Path, pages: dict[Path, str]) -> None:
    places = {file: set(re.findall(r'\b(?:id|name)="?([^"\s>]+)', text)) for file, text in pages.items()}
    broken = []
    for file, text in pages.items():
        if file.name == "404.html":  # its links begin at the root of wherever the site lies
            continue
        for href in re.findall(r'<a [^>]*?href="([^"]+)"', text):
            if re.match(r"[a-z]+:", href):
                continue
            path, _, place = unquote(href).partition("#")
            target = (file.parent / path).resolve() if path else file
            if not target.is_file() or (place and target in places and place not in places[target] | {"__top"}):
                broken.append(f"{file.relative_to(site)}: {href}")
    assert broken == []


def test_readers_find_what_they_look_for(pages: dict[Path, str], site: Path) -> None:
    text = {str(file.relative_to(site)): content for file, content in pages.items()}
    assert "Two commands" in text["index.html"]
    assert "Add a kernel" in text["contributing.html"]
    assert 'src="pictures/architecture.svg"' in text["architecture.html"]
    assert 'id="algorithm.clip"' in text["reference/options/algorithm.html"]
    assert "recipe=quickstart" in text["reference/files.html"]
    assert "Likelihood" in text["reference/contracts.html"]
    assert "class" in text["source/rl/driver/loop.py.html"]
    for name in getattr(rl, "__all__", []):
        assert f'id="{name}"' in text["reference/api.html"]


def test_a_named_test_is_shown_at_its_line(pages: dict[Path, str], site: Path) -> None:
    line = links._line_of("tests/rl/learner/test_parity.py", "test_replay_equals_the_record")
    href = f'href="source/tests/rl/learner/test_parity.py.html#__codelineno-0-{line}"'
    assert href in pages[site / "pitfalls.html"]


def test_links_of_the_repository_are_led_into_the_site() -> None:
    text = "[a](../rl/cli.py) [b](images.md#trees) [c](../CONTRIBUTING.md) [d](https://x.y) `[e](../z)`"
    led = links.rewritten(text, "architecture.md")
    assert led.startswith("[a](source/rl/cli.py.md) [b](images.md#trees) [c](contributing.md) [d](https://x.y)")
    home = links.rewritten("[a](docs/x.md)\n```\n[b](docs/x.md)\n```", "index.md")
    assert home == "[a](x.md)\n```\n[b](docs/x.md)\n```"

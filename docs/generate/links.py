"""Links of the pages, which hold in the repository, made to hold in the site.

A link to a page leads to that page, a link to any other file to a page that shows the file. So does the path of a file
in backticks, with the line of the test that it names, if it names one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cache
from os.path import normpath, relpath
from pathlib import PurePosixPath

from docs.generate.rooms import ROOT

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "LICENSE": "license.md"}
"""Pages of the site that do not lie in docs/."""
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".md": "markdown"}

_FENCED = re.compile(r"(^```.*?^```[ \t]*$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)")
_NAMED = re.compile(r"`([\w./-]+/[\w.-]+\.(?:py|yaml)|pyproject\.toml)(?:::(\w+))?`")
_CODE = re.compile(r"(<a [^>]*>)?<code>([\w./-]+)(?:::(\w+))?</code>")


def in_repository(page: str) -> str:
    """Where a page of the site lies in the repository."""
    return next((path for path, name in PAGES.items() if name == page), f"docs/{page}")


def in_site(path: str) -> str:
    """The page of the site that shows a file or a folder of the repository."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/") and path.endswith((".md", ".png", ".svg")):
        return path.removeprefix("docs/")
    return f"source/{path}.md"


def rewritten(markdown: str, page: str) -> str:
    """The text of a page as the site needs it."""
    here = PurePosixPath(in_repository(page)).parent

    def led(match: re.Match[str]) -> str:
        target = normpath(here / match[2])
        return match[1] + relpath(in_site(target), PurePosixPath(page).parent)

    return _outside_of_code(lambda text: _LINK.sub(led, text), markdown)


def linked(html: str, url_of: Callable[[str], str | None]) -> str:
    """Paths in backticks become links.

    Args:
        url_of: of a page of the site, as seen from this one; None if there is no such page.
    """

    def led(match: re.Match[str]) -> str:
        around, path, test = match.groups()
        url = None if around or not _is_shown(path) else url_of(in_site(path))
        if url is None:
            return match[0]
        line = f"#__codelineno-0-{_line_of(path, test)}" if test else ""
        return f'<a href="{url}{line}">{match[0]}</a>'

    return _CODE.sub(led, html)


def shown_files(markdown: str, page: str) -> set[str]:
    """Files and folders of the repository that a page leads to and that have no other page in the site."""
    here = PurePosixPath(in_repository(page)).parent
    found = {path for path, _ in _NAMED.findall(markdown) if _is_shown(path)}

    def note(text: str) -> str:
        found.update(normpath(here / target) for _, target in _LINK.findall(text))
        return text

    _outside_of_code(note, markdown)
    return {path for path in found if in_site(path).startswith("source/") and (ROOT / path).exists()}


def source_page(path: str) -> str:
    """A page that shows a file, or what a folder holds."""
    head = f"---\ntitle: {path}\nhide: [navigation, toc]\nsearch: {{exclude: true}}\n---\n\n# {path}\n\n"
    file = ROOT / path
    if file.is_dir():
        return head + "\n".join(f"- `{path}/{name}`" for name in listed(path)) + "\n"
    fence = "~" * 8
    return f'{head}{fence}{{ .{LANGUAGES.get(file.suffix, "text")} linenums="1" }}\n{file.read_text()}\n{fence}\n'


def listed(path: str) -> list[str]:
    """Names of the files in a folder; none of a file."""
    return sorted(each.name for each in (ROOT / path).glob("*") if each.suffix in LANGUAGES)


def _is_shown(path: str) -> bool:
    file = ROOT / path
    return file.suffix in LANGUAGES and file.is_file() and in_site(path).startswith("source/")


def _outside_of_code(change: Callable[[str], str], markdown: str) -> str:
    parts = _FENCED.split(markdown)
    return "".join(part if part.startswith("```") else change(part) for part in parts)


@cache
def _line_of(path: str, name: str) -> int:
    (line,) = [
        node.lineno
        for node in ast.parse((ROOT / path).read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name
    ]
    return line

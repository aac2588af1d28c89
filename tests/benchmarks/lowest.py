"""The quickstarts with every library at the lowest version that pyproject.toml declares.

python -m tests.benchmarks.lowest --page docs/evidence/lowest.md

uv resolves the direct dependencies to their lowest versions (the others to their newest) and installs them into an
environment of its own. What does not install, import, learn or replay its log-probabilities there fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXT, IMAGES = "texts", "images"
RUNS = {
    TEXT: ["recipe=quickstart", "run.updates=10"],
    IMAGES: ["recipe=quickstart_image", "run.updates=2", "evaluation.every=0"],
}
"""Ten updates show that it learns; two of images that everything fits together."""


def declared(part: str) -> dict[str, str]:
    """Library -> its lowest version, of the dependencies, or of those and the extra `image`."""
    lines = PROJECT["dependencies"] + (PROJECT["optional-dependencies"]["image"] if part == IMAGES else [])
    found = {}
    for requirement in map(Requirement, lines):
        (lowest,) = [each.version for each in requirement.specifier if each.operator == ">="]
        found[requirement.name] = lowest
    return found


def resolved(part: str, folder: Path) -> tuple[Path, dict[str, str]]:
    """The file to install from, and library -> version."""
    file = folder / f"{part}.txt"
    extra = ["--extra", "image"] if part == IMAGES else []
    version = ".".join(platform.python_version_tuple()[:2])
    options = ["--resolution", "lowest-direct", "--python-version", version, "--no-annotate", "--no-header", "--quiet"]
    uv("pip", "compile", *options, *extra, "--output-file", str(file), str(ROOT / "pyproject.toml"))
    pinned = re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==(\S+)", file.read_text(), re.MULTILINE)
    return file, {name.lower(): version for name, version in pinned}


def uv(*arguments: str, **variables: str) -> None:
    from uv import find_uv_bin

    subprocess.run([find_uv_bin(), *arguments], check=True, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)


def run(part: str, python: Path, folder: Path) -> dict[str, Any]:
    """The summary of a run in the environment, from its own folder.

    Raises:
        SystemExit: it failed, did not replay its log-probabilities or learned nothing.
    """
    shutil.rmtree(folder / part, ignore_errors=True)
    command = [str(python), "-W", "ignore", "-m", "rl.cli", "train", *RUNS[part], f"run.folder={folder / part}"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    (file,) = (folder / part).glob("*/summary.json")
    summary: dict[str, Any] = json.loads(file.read_text())
    if not summary["first_ratio_error"] <= 1e-5:
        raise SystemExit(f"{part}: the first importance ratio is off by {summary['first_ratio_error']}")
    if part == TEXT and not learned(summary)["ci95"]["gain"][0] > 0:
        raise SystemExit(f"nothing was learned: {learned(summary)}")
    return summary


def learned(summary: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = summary["held_out"]["greedy"]["solve_rate"]
    return found


def page(installed: Mapping[str, Mapping[str, str]], summaries: Mapping[str, Mapping[str, Any]]) -> str:
    text, images = installed[TEXT], installed[IMAGES]
    solved = learned(summaries[TEXT])
    low, high = solved["ci95"]["gain"]
    ratios = [f"{summaries[part]['first_ratio_error']:.2g}" for part in (TEXT, IMAGES)]
    lines = [
        "# The lowest versions",
        "",
        "`make lowest`, part of `make evidence`, installs every library at the lowest version that pyproject.toml",
        "declares (those that they want in turn at their newest) into an environment, and runs the quickstarts there.",
        "",
        f"On {time.strftime('%Y-%m-%d')}, with Python {platform.python_version()}, on CPUs:",
        "",
        f"- ten updates of `recipe=quickstart` took the held-out solve rate from {solved['before']:.3f} to "
        f"{solved['after']:.3f}, a gain of {solved['gain']:.3f} [{low:.3f}, {high:.3f}];",
        "- two updates of `recipe=quickstart_image` ended well;",
        f"- the first importance ratios were off by {ratios[0]} and {ratios[1]}.",
        "",
        "A version above the declared one is what another library asks for.",
        "",
        "| library | declared | installed for texts | installed for images |",
        "|---|---|---|---|",
    ]
    for name, lowest in sorted(declared(IMAGES).items()):
        lines.append(f"| {name} | {lowest} | {text.get(name.lower(), '')} | {images[name.lower()]} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/lowest", help="for the environment and the runs")
    parser.add_argument("--page", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    environment = folder / "environment"
    uv("venv", "--quiet", "--clear", "--python", sys.executable, str(environment))
    python = environment / "bin/python"
    installed, summaries = {}, {}
    for part in (TEXT, IMAGES):
        file, installed[part] = resolved(part, folder)
        uv("pip", "install", "--quiet", "--requirement", str(file), VIRTUAL_ENV=str(environment))
        summaries[part] = run(part, python, folder)
    text = page(installed, summaries)
    print(text)
    if options.page is not None:
        options.page.write_text(text)


if __name__ == "__main__":
    main()

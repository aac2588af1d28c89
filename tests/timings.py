"""Where a test run's time goes: seconds by test file, from JUnit files.

python -m tests.timings build/tests/*.xml
python -m tests.timings --before build/before build/tests/*.xml
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

SHOWN = 25
"""Files with a row of their own; the others are one row."""


def seconds_by_file(reports: Iterable[Path]) -> dict[str, tuple[float, int]]:
    """Seconds and number of tests of each file, in all reports together.

    Raises:
        ValueError: a report is not of pytest's JUnit form.
    """
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for report in reports:
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            name, seconds = case.get("classname"), case.get("time")
            if name is None or seconds is None:
                raise ValueError(f"{report}: a testcase has no classname or no time; write it with --junitxml")
            file = sums[name.replace(".", "/") + ".py"]
            file[0] += float(seconds)
            file[1] += 1
    return {file: (seconds, int(tests)) for file, (seconds, tests) in sums.items()}


def table(after: dict[str, tuple[float, int]], before: dict[str, tuple[float, int]] | None = None) -> str:
    """Markdown, the slowest file first."""
    order = sorted(after, key=lambda file: -max(after[file][0], (before or {}).get(file, (0.0, 0))[0]))
    rows = [(file, *after[file], (before or {}).get(file, (0.0, 0))[0]) for file in order]
    rest = rows[SHOWN:]
    shown = rows[:SHOWN]
    if rest:
        shown.append(
            (f"{len(rest)} further files", sum(r[1] for r in rest), sum(r[2] for r in rest), sum(r[3] for r in rest))
        )
    total = ("all", sum(r[1] for r in rows), sum(r[2] for r in rows), sum(s for s, _ in (before or {}).values()))
    lines = [
        "| test file | tests | seconds |" + (" before |" if before else ""),
        "|---|---|---|" + ("---|" if before else ""),
    ]
    for name, seconds, tests, earlier in [*shown, total]:
        lines.append(f"| {name} | {tests} | {seconds:.0f} |" + (f" {earlier:.0f} |" if before else ""))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--before", type=Path, help="folder with the reports of an earlier run")
    arguments = parser.parse_args()
    before = seconds_by_file(sorted(arguments.before.glob("*.xml"))) if arguments.before else None
    print(table(seconds_by_file(arguments.reports), before))


if __name__ == "__main__":
    main()

"""docs/notebooks/first_steps.ipynb: ten cells, small outputs with pictures, and they run."""

from __future__ import annotations

import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import rl
from tests.documentation import ROOT

FILE = ROOT / "docs/notebooks/first_steps.ipynb"
MOST_BYTES = 400_000
MOST_SECONDS = 180
"""On two cores that nobody else uses; CPU seconds, since test machines are shared."""


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(cell: nbformat.NotebookNode) -> list[str]:
    data = [output.data for output in cell.outputs if "data" in output]
    return ["png" for each in data if "image/png" in each] + ["gif" for each in data if "image/gif" in str(each)]


def checked(cells: list[nbformat.NotebookNode]) -> None:
    assert [cell.outputs for cell in cells if any(output.output_type == "error" for output in cell.outputs)] == []
    assert [kind for cell in cells for kind in pictures(cell)] == ["gif", "png", "gif"]
    printed = "".join(output.text for cell in cells for output in cell.outputs if output.output_type == "stream")
    assert "'ratio/mean': 1.0" in printed
    assert "Traceback" not in printed


def test_it_has_ten_cells_that_use_the_whole_library():
    assert FILE.stat().st_size < MOST_BYTES
    cells = code_cells(nbformat.read(FILE, as_version=4))
    assert len(cells) == 10
    checked(cells)
    source = "\n".join(cell.source for cell in cells)
    assert [name for name in rl.__all__ if f"{name}(" not in source] == ["Callback"]
    assert "docs/notebooks/first_steps.ipynb" in (ROOT / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(FILE, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs = []
    clock = nbformat.v4.new_code_cell("import time\nprint(time.process_time())")
    notebook.cells.append(clock)
    started = time.monotonic()
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    *cells, _ = code_cells(notebook)
    checked(cells)
    seconds = min(float(clock.outputs[0].text), time.monotonic() - started)
    assert seconds < MOST_SECONDS

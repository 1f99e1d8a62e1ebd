"""Notebooks run from top to bottom in their tiny mode, and are committed with plots in them."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

from tests.notebooks import FOLDER, execute

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_runs_in_tiny_mode(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMOE_RANKER_TINY", "1")
    executed, committed = execute(file).cells, nbformat.read(file, 4).cells
    for cell, of_full_run in zip(executed, committed, strict=True):
        assert _has_plot(cell) == (_has_plot(of_full_run) and _has_its_data(cell)), cell.source


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_is_committed_with_outputs(file: Path) -> None:
    cells = [cell for cell in nbformat.read(file, 4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert any(_has_plot(cell) for cell in cells)
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)


def _has_plot(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and any("image/png" in output.get("data", {}) for output in cell.outputs)


def _has_its_data(cell: nbformat.NotebookNode) -> bool:
    folder = Path(os.environ.get("MMOE_RANKER_DATA", FOLDER.parents[1] / "shared" / "data"))
    return "public-data" not in cell.metadata.get("tags", []) or folder.is_dir()

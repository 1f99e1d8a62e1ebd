"""Notebooks run from top to bottom in their tiny mode, and are committed with plots in them."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.notebooks import FOLDER, execute

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_runs_in_tiny_mode(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMOE_RANKER_TINY", "1")
    cells = execute(file).cells
    assert sum(_has_plot(cell) for cell in cells) == sum(_has_plot(cell) for cell in nbformat.read(file, 4).cells)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_is_committed_with_outputs(file: Path) -> None:
    cells = [cell for cell in nbformat.read(file, 4).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert any(_has_plot(cell) for cell in cells)
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)


def _has_plot(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and any("image/png" in output.get("data", {}) for output in cell.outputs)

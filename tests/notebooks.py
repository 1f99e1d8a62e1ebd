"""Runs the notebooks in full and keeps their outputs: `make notebooks`."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


def execute(file: Path) -> nbformat.NotebookNode:
    """Runs every cell, and returns the notebook with its outputs."""
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(FOLDER)}}).execute()
    for cell in notebook.cells:
        # When it ran says nothing to a reader and changes every time.
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            # Chatter of libraries is not part of the story.
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(execute(path), path)
        print(f"ran {path.name}")

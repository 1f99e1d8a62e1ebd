"""Folders and files that appear complete, or not at all, and take the place of earlier ones."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def writing_whole(folder: Path) -> Iterator[Path]:
    """Gives a folder to write into, which takes the place of `folder` when the block ends, and goes if it raises.

    Args:
        folder: What to write; what is there goes with all that it holds. Its parents are made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    written = beside / "new"
    try:
        written.mkdir()
        yield written
        # An earlier folder moves aside whole: removed in its place, it would stand there in part for a while.
        with contextlib.suppress(FileNotFoundError):
            folder.rename(beside / "old")
        written.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def writing_whole_file(file: Path) -> Iterator[Path]:
    """Gives a file to write, which takes the place of `file` when the block ends, and goes if it raises.

    Args:
        file: What to write, in a folder that exists.
    """
    beside = file.with_name(f".{file.name}.tmp")
    try:
        yield beside
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)

"""Single runs, each a row of a file as soon as it is done: an experiment can be stopped, go on, and be shared.

`<experiment>.runs.jsonl` has a line a run: its settings, what it measured, its seconds. A run whose settings are there
is not repeated; one that another process is at is left to it. So a second process on the same experiment halves the
time, and no order has to be agreed on. Rows stay good for as long as the code that made them: remove the file to begin
again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Settings: TypeAlias = Mapping[str, Any]


def _processor_seconds() -> float:
    """Of this process and of those that it has started and seen end."""
    return sum(os.times()[:4])


_CLOCKS = (time.monotonic, _processor_seconds)


class LeftToAnotherError(RuntimeError):
    """Another process is still at some runs; it will have them all."""


class Runs:
    """The runs of one experiment.

    Args:
      folder: of the experiment; the rows lie beside it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder.with_suffix(".runs.jsonl")
        folder.mkdir(parents=True, exist_ok=True)

    def perform(self, plan: Sequence[Settings], one: Callable[[Settings], dict[str, Any]]) -> list[dict[str, Any]]:
        """Does what is left of a plan.

        Args:
          plan: the settings of each run, JSON values.
          one: takes settings and returns what it measured, JSON values under names that are not settings.

        Returns:
          The rows of the plan, in its order, each the settings and what was measured.

        Raises:
          LeftToAnotherError: another process is still at some of them.
        """
        for number, settings in enumerate(plan, start=1):
            if self._row(settings) is not None:
                continue
            with _claimed(self.folder / f"{_digest(settings)}.claim") as ours:
                if not ours or self._row(settings) is not None:
                    continue
                started = [now() for now in _CLOCKS]
                measured = one(settings)
                wall, cpu = (round(now() - then, 1) for now, then in zip(_CLOCKS, started, strict=True))
                row = {**settings, **measured, "seconds": wall, "cpu_seconds": cpu}
                with self.file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            said = " ".join(str(value) for value in settings.values())
            print(f"[{number}/{len(plan)}] {said}: {wall} s, {cpu} of a processor", file=sys.stderr, flush=True)
        rows = [self._row(settings) for settings in plan]
        missing = sum(row is None for row in rows)
        if missing:
            raise LeftToAnotherError(f"{self.folder.name}: {missing} of {len(plan)} runs are left to another process.")
        return [row for row in rows if row is not None]

    def _row(self, settings: Settings) -> dict[str, Any] | None:
        if not self.file.is_file():
            return None
        wanted = json.loads(json.dumps(dict(settings)))
        for line in self.file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if all(key in row and row[key] == value for key, value in wanted.items()):
                return row
        return None


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that is made by whoever comes first, while the others wait for it.

    Args:
      folder: the result; it appears whole.
      make: fills the new folder it is given.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            beside = folder.with_name(f".{folder.name}.{os.getpid()}")
            try:
                beside.mkdir()
                make(beside)
                beside.rename(folder)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _claimed(file: Path) -> Iterator[bool]:
    """Whether this process holds the claim; a claim ends with its process, however that ends."""
    with file.open("w") as claim:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
        file.unlink(missing_ok=True)


def _digest(settings: Settings) -> str:
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()[:16]

"""Lines into files that appear under their names when they are complete, and hold whole lines alone.

A file grows under a hidden name beside, which no glob of logs takes up, and is renamed once it is large or old enough.
A line that does not fit on the disk leaves no half of itself behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import uuid
from pathlib import Path


class RotatingFiles:
    """Appends lines to one file after another in a folder; for one thread.

    Args:
        folder: Where the files appear; made if missing.
        stem: How their names begin; the time, the process and a random part follow.
        max_bytes: A file is complete when it has reached this size.
        max_seconds: ... or this age.
    """

    def __init__(self, folder: Path, stem: str, max_bytes: int, max_seconds: float) -> None:
        self._folder = folder
        self._stem = stem
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._growing: Path | None = None
        self._descriptor = -1
        self._opened = 0.0
        self._size = 0
        self._lines = 0

    @property
    def seconds_left(self) -> float | None:
        """Until the file that grows is complete; None where none does."""
        return None if self._growing is None else max(0.0, self._opened + self._max_seconds - time.monotonic())

    @property
    def is_complete(self) -> bool:
        """Whether the file that grows is large or old enough to appear."""
        return self._growing is not None and (self._size >= self._max_bytes or self.seconds_left == 0.0)

    def append(self, line: bytes) -> None:
        """Writes one line, its newline included.

        Raises:
            OSError: It could not be written, and is in no file; the lines before it are.
        """
        if self._growing is None:
            self._open()
        # Each at its place: what a failed attempt left is written over, or cut off when the file appears.
        _write_all(self._descriptor, line, self._size)
        self._size += len(line)
        self._lines += 1

    def publish(self) -> int:
        """Lets the file that grows appear, if one does.

        Returns:
            How many lines appeared.

        Raises:
            OSError: It could not; the lines are still there for another attempt, or for `discard`.
        """
        if self._growing is None:
            return 0
        if self._lines == 0:
            self.discard()
            return 0
        os.ftruncate(self._descriptor, self._size)
        # A name that outlives a power failure must have its content behind it.
        os.fsync(self._descriptor)
        self._growing.rename(self._growing.with_name(self._growing.name.removeprefix(".").removesuffix(".part")))
        lines = self._lines
        self._close()
        return lines

    def discard(self) -> int:
        """Gives the file that grows up, and says how many lines were in it."""
        if self._growing is None:
            return 0
        lines, growing = self._lines, self._growing
        self._close()
        with contextlib.suppress(OSError):
            growing.unlink()
        return lines

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        growing = self._folder / f".{self._stem}-{now}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl.part"
        self._descriptor = os.open(growing, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._growing, self._opened, self._size, self._lines = growing, time.monotonic(), 0, 0

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self._growing, self._descriptor = None, -1


def _write_all(descriptor: int, data: bytes, place: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, place)
        if written == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        data, place = data[written:], place + written

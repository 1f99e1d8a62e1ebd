"""Where batches lie while Beam moves them from one step to the next.

A runner whose workers share a disk needs to move no bytes at all: a step appends its batches to a file, and only their
place in it (a few bytes) goes through Beam. The local runner keeps whatever it shuffles in memory, and hands it to
worker processes over a socket; so this is what keeps its memory flat, and a second worker worth starting. On any other
runner the bytes travel in the elements.
"""

from __future__ import annotations

import os
import shutil
import uuid
from typing import Any, TypeAlias

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.output_folder import is_local
from pipelines.running import shares_disk

_FOLDER = ".shuffle"
# The bytes themselves; or a file of the shared folder, and where in it they lie: offset and length.
Payload: TypeAlias = "bytes | tuple[str, int, int]"


class Shuffle:
    """Puts bytes away in one step and gets them back in another.

    Each copy that a step holds appends to a file of its own, so workers do not disturb one another. What an attempt
    wrote that failed is never read, because its elements, which name the places, are dropped with it.
    """

    def __init__(self, folder: str | None = None):
        """Takes a folder that all workers see, or None where bytes are to travel in the elements."""
        self._folder = folder
        self._name: str | None = None

    @classmethod
    def inside(cls, folder: str, options: PipelineOptions) -> Shuffle:
        """On disk inside the folder that is written, where the runner allows it; else in the elements.

        There it goes with the folder, whatever happens to the job.
        """
        if not (shares_disk(options) and is_local(folder)):
            return cls()
        shared = os.path.join(folder, _FOLDER)
        os.mkdir(shared)
        return cls(shared)

    def remove(self) -> None:
        """Removes what lies on disk, when no step will ask for it any more."""
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def __getstate__(self) -> dict[str, Any]:
        """Without the file: a copy in another process has one of its own."""
        return {"_folder": self._folder, "_name": None}

    def put(self, content: bytes) -> Payload:
        """What is to travel in place of these bytes."""
        if self._folder is None:
            return content
        if self._name is None:
            self._name = uuid.uuid4().hex
        with open(os.path.join(self._folder, self._name), "ab") as file:
            offset = file.tell()
            file.write(content)
        return self._name, offset, len(content)

    def get(self, payload: Payload) -> bytes:
        """The bytes that `put` was given."""
        if isinstance(payload, bytes):
            return payload
        assert self._folder is not None, "a place in a file comes from a step that had the folder"
        name, offset, length = payload
        with open(os.path.join(self._folder, name), "rb") as file:
            file.seek(offset)
            return file.read(length)

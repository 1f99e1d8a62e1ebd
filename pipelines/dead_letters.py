"""Bad records set aside with their reasons: what a reader leaves, gathered by file and written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

from pipelines.output_folder import write_file

DEAD_LETTERS = "dead_letters"


@dataclasses.dataclass(frozen=True)
class DeadLetters:
    """Bad records as lines of dead-letter file `block` of `blocks`: of one block, or of some rows of a table."""

    log: str
    block: int
    blocks: int
    lines: bytes


class GatherDeadLetters(beam.PTransform):
    """DeadLetters -> one a file, with sorted lines where it came in pieces: what rows come together is chance."""

    def expand(self, letters: beam.PCollection) -> beam.PCollection:
        """Wires the steps."""
        return letters | beam.ParDo(_KeyByFile()) | beam.GroupByKey() | beam.ParDo(_GatherFile())


class _KeyByFile(beam.DoFn):
    def process(self, letters: DeadLetters) -> Iterator[tuple[tuple[str, int, int], bytes]]:
        yield (letters.log, letters.block, letters.blocks), letters.lines


class _GatherFile(beam.DoFn):
    def process(self, element: tuple[tuple[str, int, int], Iterable[bytes]]) -> Iterator[DeadLetters]:
        file, several = element
        pieces = list(several)
        if len(pieces) > 1:
            pieces = sorted(line for piece in pieces for line in piece.splitlines(keepends=True))
        yield DeadLetters(*file, b"".join(pieces))


class WriteDeadLetters(beam.DoFn):
    """DeadLetters -> a file of the folder `dead_letters`."""

    def process(self, letters: DeadLetters, folder: str) -> None:
        """Writes those of one block."""
        name = f"{letters.log}-{letters.block:05d}-of-{letters.blocks:05d}.jsonl"
        write_file(FileSystems.join(folder, "dead_letters", name), letters.lines)

"""Globs of log files to blocks of a few megabytes that workers read each by themselves.

JSON lines are cut at byte offsets and aligned to lines by the reader; a gzipped file cannot be cut and is one block;
Parquet is cut at row groups. Paths may be of any file system that Beam knows.
"""

from __future__ import annotations

import dataclasses
import gzip
import zlib
from collections.abc import Collection, Iterator
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from mmoe_ranker.errors import InputError

EXTENSIONS: dict[str, Literal["json", "json.gz", "parquet"]] = {
    ".jsonl": "json",
    ".json": "json",
    ".jsonl.gz": "json.gz",
    ".json.gz": "json.gz",
    ".parquet": "parquet",
}
BLOCK_BYTES = 8 << 20
BATCH_ROWS = 1 << 16
# What Parquet and gzip make small takes memory like any other log once it is read.
_ROW_BYTES = 256
_GZIP_RATIO = 8
# Where a record stands in the logs is one integer: the file's number above the offset inside it.
FILE_BITS = 44


@dataclasses.dataclass(frozen=True)
class LogBlock:
    """A piece of one file: bytes `start` to `stop`, or row groups `start` to `stop`.

    `log` is impressions, feedback, or the `table_log` of a table. `index` counts the blocks of a log, of which there
    are `count`; `first_order` is where the block's first byte or row stands in the logs.
    """

    log: str
    index: int
    count: int
    path: str
    kind: Literal["json", "json.gz", "parquet"]
    start: int
    stop: int
    first_order: int


def table_log(name: str) -> str:
    """What stands for a table where logs are named: in blocks, counts and dead letters."""
    return f"table-{name}"


def the(log: str) -> str:
    """How a sentence names a log or table."""
    return f"The table `{log.removeprefix('table-')}`" if log.startswith("table-") else f"The {log} log"


def list_blocks(log: str, pattern: str) -> tuple[list[LogBlock], int]:
    """Finds the files of a log and cuts them.

    Returns:
      The blocks in order of path and place, and the bytes that all of it takes, about, as lines of JSON.

    Raises:
      InputError: no file matches, or one is of a kind that is not read.
    """
    files = _matches(log, pattern)
    pieces: list[dict[str, Any]] = []
    total = 0
    for number, (path, size) in enumerate(files):
        kind = next((kind for ending, kind in EXTENSIONS.items() if path.endswith(ending)), None)
        if kind is None:
            raise InputError(
                f"{the(log)} must be JSON lines or Parquet; allowed endings: {', '.join(EXTENSIONS)}. "
                f"Received: {path!r}."
            )
        first = number << FILE_BITS
        if kind == "parquet":
            row = 0
            for group, rows in enumerate(_row_group_sizes(path)):
                pieces.append(
                    {"path": path, "kind": kind, "start": group, "stop": group + 1, "first_order": first + row}
                )
                row += rows
            total += max(size, row * _ROW_BYTES)
            continue
        total += size * (_GZIP_RATIO if kind == "json.gz" else 1)
        step = BLOCK_BYTES if kind == "json" else max(size, 1)
        for start in range(0, size, step):
            stop = min(start + step, size)
            pieces.append({"path": path, "kind": kind, "start": start, "stop": stop, "first_order": first + start})
    blocks = [LogBlock(log=log, index=index, count=len(pieces), **piece) for index, piece in enumerate(pieces)]
    return blocks, total


def _matches(log: str, pattern: str) -> list[tuple[str, int]]:
    try:
        found = FileSystems.match([pattern])[0].metadata_list
    except Exception as error:  # each file system raises types of its own
        reason = " ".join(str(error).split())
        raise InputError(
            f"{the(log)} must be a path or glob of files that can be listed ({reason}). Received: {pattern!r}."
        ) from None
    if not found:
        raise InputError(f"{the(log)} must be a path or glob that matches at least one file. Received: {pattern!r}.")
    return sorted((entry.path, entry.size_in_bytes) for entry in found)


def read_line_chunks(block: LogBlock) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a JSON block, in chunks of about `BLOCK_BYTES`, each with the offset of its first byte.

    A line belongs to the block in which its first byte lies.

    Raises:
      InputError: a gzipped file is broken.
    """
    with FileSystems.open(block.path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        if block.kind == "json.gz":
            yield from _whole_lines(_decompressed(block, file))
            return
        start = block.start
        file.seek(start)
        if start > 0:
            file.seek(start - 1)
            # No further than the block: each block of a line that is longer would read it to its end.
            start += len(file.readline(block.stop - start + 1)) - 1
        if start >= block.stop:
            return
        data = file.read(block.stop - start)
        if not data.endswith(b"\n"):
            data += file.readline()
        yield start, data


def _decompressed(block: LogBlock, file: Any) -> Iterator[bytes]:
    try:
        # Reads files of many members too, as appending leaves them, and never more at once than was asked for.
        with gzip.GzipFile(fileobj=file) as whole:
            while piece := whole.read(1 << 20):
                yield piece
    except EOFError:
        raise _not_gzip(block, "cut short") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _not_gzip(block, str(error)) from None


def _not_gzip(block: LogBlock, why: str) -> InputError:
    return InputError(f"{the(block.log)} must be whole gzip files ({why}). Received: {block.path!r}.")


def _whole_lines(pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    offset, held, size = 0, [], 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= BLOCK_BYTES and b"\n" in piece:
            data = b"".join(held)
            end = data.rindex(b"\n") + 1
            yield offset, data[:end]
            offset, held, size = offset + end, [data[end:]], len(data) - end
    if size:
        yield offset, b"".join(held)


def read_tables(
    block: LogBlock, columns: Collection[str], repeating: Collection[str]
) -> Iterator[tuple[int, pa.Table]]:
    """Batches of rows of a Parquet block, each with the number of its first row from the block's first.

    Args:
      block: row groups of a file.
      columns: the columns that are read, of those that the file has.
      repeating: which of them repeat from row to row; strings in them come as dictionaries, as the file has them.

    Raises:
      InputError: the file is not Parquet, broken, or has a column twice.
    """
    with FileSystems.open(block.path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        try:
            metadata = pq.read_metadata(file)
            strings = [path for path in _string_paths(metadata.schema) if path.split(".")[0] in repeating]
            source = pq.ParquetFile(file, metadata=metadata, read_dictionary=strings)
            present = [name for name in source.schema_arrow.names if name in columns]
            if twice := next((name for name in present if present.count(name) > 1), None):
                raise InputError(
                    f"A Parquet file must have each column once. Received: {block.path!r}, {twice!r} twice."
                )
            row = 0
            groups = list(range(block.start, block.stop))
            for batch in source.iter_batches(BATCH_ROWS, row_groups=groups, columns=present, use_threads=False):
                yield row, pa.Table.from_batches([batch])
                row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise not_parquet(block.path, error) from None


def _string_paths(schema: pq.ParquetSchema) -> list[str]:
    columns = (schema.column(place) for place in range(len(schema)))
    return [column.path for column in columns if column.logical_type.type == "STRING"]


def _row_group_sizes(path: str) -> list[int]:
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        try:
            metadata = pq.ParquetFile(file).metadata
        except (pa.ArrowException, OSError) as error:
            raise not_parquet(path, error) from None
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def not_parquet(path: str, error: Exception) -> Exception:
    """What to raise for an error of Arrow's about a file: its own where it is the file system's."""
    # Arrow says what is wrong with a file by errors without a number; those with one are the file system's.
    if isinstance(error, OSError) and error.errno is not None:
        return error
    reason = " ".join(str(error).split())
    return InputError(f"A file that ends in .parquet must be Parquet ({reason}). Received: {path!r}.")

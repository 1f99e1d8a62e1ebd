"""Files of examples cut into batches before scoring, and scored batches joined to files after it.

Each file of examples becomes one file of scores, its rows in the same order. The pipeline writes the examples of a
request into one file, so that the rank within a request can be told file by file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.examples import REQUEST_ID
from pipelines.batches import ImpressionBatch, table_from_bytes, table_to_bytes
from pipelines.output_folder import write_file
from pipelines.part_writing import encode, in_time_order
from pipelines.scoring.model import COMBINED_SCORE, RANK, RANKING_KEY, ExampleBatch, ScoredBatch
from pipelines.shuffle import Payload, Shuffle
from pipelines.tfrecords import read_tfrecord_gzip

FileFormat: TypeAlias = Literal["parquet", "jsonl"]

# Rows a batch: enough that the model's products are full, few enough that a worker's memory stays small.
BATCH_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class ExampleFile:
    """File `index` of `count` files of examples."""

    index: int
    count: int
    path: str


@dataclasses.dataclass(frozen=True)
class ScoredFile:
    """What one file of scores holds; `scored_by` is the metadata of its schema."""

    examples: int
    requests: int
    scored_by: dict[str, str]


class ReadExamples(beam.DoFn):
    """ExampleFile -> ExampleBatches."""

    def process(self, file: ExampleFile) -> Iterator[ExampleBatch]:
        """Reads one file."""
        with FileSystems.open(file.path, compression_type=CompressionTypes.UNCOMPRESSED) as content:
            try:
                yield from _batches(file, read_tfrecord_gzip(content))
            except ValueError as error:
                raise InputError(
                    f"A file of examples must be a whole .tfrecord.gz ({error}). Received: {file.path!r}."
                ) from None


class EncodeExamples(beam.DoFn):
    """(part, its joined batches), as `GroupParts` gives them -> ExampleBatches; `source` is the log they are of."""

    def __init__(self, config: Config, source: str, shuffle: Shuffle):
        self._config = config
        self._source = source
        self._shuffle = shuffle

    def process(self, element: tuple[tuple[str, int, int], Iterable[Payload]]) -> Iterator[ExampleBatch]:
        """Encodes one part."""
        (_, index, count), payloads = element
        batch = in_time_order([ImpressionBatch.from_bytes(self._shuffle.get(payload)) for payload in payloads])
        yield from _batches(ExampleFile(index, count, self._source), encode(self._config, batch))


def _batches(file: ExampleFile, arrays: Iterable[pa.Array]) -> Iterator[ExampleBatch]:
    start, held, size = 0, [], 0
    for array in arrays:
        held.append(array)
        size += len(array)
        if size >= BATCH_ROWS:
            whole = pa.concat_arrays(held)
            for _ in range(size // BATCH_ROWS):
                yield ExampleBatch(file.index, file.count, file.path, start, whole[:BATCH_ROWS])
                start, whole = start + BATCH_ROWS, whole[BATCH_ROWS:]
            held, size = [whole], len(whole)
    if size:
        yield ExampleBatch(file.index, file.count, file.path, start, pa.concat_arrays(held))


class KeyByFile(beam.DoFn):
    """ScoredBatch -> ((file, files), (start, payload of its table))."""

    def __init__(self, shuffle: Shuffle):
        self._shuffle = shuffle

    def process(self, scored: ScoredBatch) -> Iterator[tuple[tuple[int, int], tuple[int, Payload]]]:
        """Keys one batch."""
        yield (scored.file, scored.files), (scored.start, self._shuffle.put(table_to_bytes(scored.table)))


class WriteScores(beam.DoFn):
    """((file, files), its scored batches) -> a file in the folder `scores`; what it holds."""

    def __init__(self, form: FileFormat, shuffle: Shuffle):
        self._form = form
        self._shuffle = shuffle

    def process(
        self, element: tuple[tuple[int, int], Iterable[tuple[int, Payload]]], folder: str
    ) -> Iterator[ScoredFile]:
        """Writes one file."""
        (file, files), batches = element
        payloads = [payload for _, payload in sorted(batches)]
        tables = [table_from_bytes(self._shuffle.get(payload)) for payload in payloads]
        table = pa.concat_tables(tables).combine_chunks()
        ranked, requests = with_ranks(table)
        name = f"part-{file:05d}-of-{files:05d}.{self._form}"
        write_file(FileSystems.join(folder, "scores", name), _content(ranked, self._form))
        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        yield ScoredFile(table.num_rows, requests, metadata)


def with_ranks(table: pa.Table) -> tuple[pa.Table, int]:
    """Puts `rank` in place of the ranking key: 1 for the best of a request; of equal ones the first in order is better.

    Returns:
      The table [N], rows in their order; the number of requests.
    """
    request = table[REQUEST_ID].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    order = np.lexsort((-table[RANKING_KEY].to_numpy(), request))
    first = np.concatenate([[True], np.diff(request[order]) != 0])
    starts = np.flatnonzero(first)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)])) + 1
    ranked = table.drop_columns([RANKING_KEY])
    place = ranked.column_names.index(COMBINED_SCORE) + 1
    return ranked.add_column(place, RANK, pa.array(rank)), len(starts)


def _content(table: pa.Table, form: FileFormat) -> bytes:
    if form == "jsonl":
        return _json_lines(table)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _json_lines(table: pa.Table) -> bytes:
    # By Arrow: pandas rounds to 15 places behind the point, and a product of small probabilities would become 0.
    parts: list[pa.Array | str] = []
    for place, name in enumerate(table.column_names):
        parts += [("{" if place == 0 else ", ") + json.dumps(name) + ": ", _json_values(table[name].combine_chunks())]
    lines = pc.binary_join_element_wise(*parts, "}\n", "")
    return "".join(lines.to_pylist()).encode("utf-8")


def _json_values(column: pa.Array) -> pa.Array:
    if not pa.types.is_string(column.type):
        return column.cast(pa.string()).fill_null("null")
    encoded = column.dictionary_encode()
    return pa.array([json.dumps(text, ensure_ascii=False) for text in encoded.dictionary.to_pylist()]).take(
        encoded.indices
    )

"""What travels between the steps: batches of columns, as bytes.

An impression batch is two tables, so that what a request says once is not copied for each of its impressions:
  contexts     [R] `_request`, `_time` (UTC microseconds), `_order` (where the record stood in the logs), and the
               features of side context;
  impressions  [I] `_row` (row in contexts), `_item`, `_position` (null: not given), `_index` (place in its record), and
               the features of side candidate and bias; after the join also the labels.
Features that come from a table or from the feedback itself are columns of theirs once `asof` joined them.
A feedback batch is one table: `_request`, `_item`, `_event`, `_value`, `_time`.
Names that start with an underscore cannot be a feature's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mmoe_ranker.config import Config
from mmoe_ranker.examples import feature_field
from pipelines.canonical_columns import arrow_type

FEEDBACK_SCHEMA = pa.schema(
    [
        ("_request", pa.string()),
        ("_item", pa.string()),
        ("_event", pa.string()),
        ("_value", pa.float64()),
        ("_time", pa.int64()),
    ]
)

# Shuffled bytes are mostly repeated strings and small numbers. A table of few bytes is done before a thread has woken.
_FOR_THREADS = 1 << 20


def context_schema(config: Config) -> pa.Schema:
    """The columns of `contexts` that come from the log."""
    features = [(f.name, arrow_type(feature_field(config, f))) for f in config.logged("context")]
    return pa.schema([("_request", pa.string()), ("_time", pa.int64()), ("_order", pa.int64()), *features])


def impression_schema(config: Config) -> pa.Schema:
    """The columns of `impressions` that come from the log."""
    features = [(f.name, arrow_type(feature_field(config, f))) for f in config.logged("candidate", "bias")]
    meta = [("_row", pa.int64()), ("_item", pa.string()), ("_position", pa.int64()), ("_index", pa.int64())]
    return pa.schema([*meta, *features])


@dataclasses.dataclass(frozen=True)
class ImpressionBatch:
    """Impressions with their requests' contexts; see the module's docstring for the columns."""

    contexts: pa.Table
    impressions: pa.Table

    def take(self, rows: np.ndarray) -> ImpressionBatch:
        """These impressions in this order, with the contexts that they use in order of first use."""
        impressions = self.impressions.take(pa.array(rows))
        codes, used = pd.factorize(impressions["_row"].to_numpy())
        impressions = impressions.set_column(
            impressions.column_names.index("_row"), "_row", pa.array(codes.astype(np.int64))
        )
        return ImpressionBatch(self.contexts.take(pa.array(used)), impressions)

    def to_bytes(self) -> bytes:
        """As two Arrow streams, one behind the other."""
        return _streams([self.contexts, self.impressions])

    @classmethod
    def from_bytes(cls, streams: bytes) -> ImpressionBatch:
        """What `to_bytes` wrote."""
        source = pa.BufferReader(streams)
        return cls(_next_table(source), _next_table(source))

    @classmethod
    def concatenate(cls, batches: Sequence[ImpressionBatch]) -> ImpressionBatch:
        """One batch of all of them, rows in the order given."""
        contexts, impressions, start = [], [], 0
        for batch in batches:
            rows = batch.impressions["_row"].to_numpy() + start
            place = batch.impressions.column_names.index("_row")
            contexts.append(batch.contexts)
            impressions.append(batch.impressions.set_column(place, "_row", pa.array(rows)))
            start += batch.contexts.num_rows
        return cls(
            pa.concat_tables(contexts).combine_chunks(),
            pa.concat_tables(impressions).combine_chunks(),
        )


def table_to_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow stream."""
    return _streams([table])


def table_from_bytes(stream: bytes) -> pa.Table:
    """What `table_to_bytes` wrote."""
    return _next_table(pa.BufferReader(stream))


def _streams(tables: Sequence[pa.Table]) -> bytes:
    sink = pa.BufferOutputStream()
    for table in tables:
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=table.nbytes >= _FOR_THREADS)
        with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _next_table(source: pa.NativeFile) -> pa.Table:
    options = pa.ipc.IpcReadOptions(use_threads=source.size() >= _FOR_THREADS)
    with pa.ipc.open_stream(source, options=options) as reader:
        return reader.read_all()


def hashes(strings: pa.ChunkedArray) -> np.ndarray:
    """A 64-bit hash of each string, the same in any process; its last bits choose the bucket of the join."""
    encoded = strings.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_numpy(zero_copy_only=False)
    # No categorising: the values are distinct already.
    hashed = pd.util.hash_array(values.astype(object), categorize=False)
    return hashed[encoded.indices.to_numpy(zero_copy_only=False)]


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    combined = column.combine_chunks()
    return combined.combine_chunks() if isinstance(combined, pa.ChunkedArray) else combined


def bucket_of(requests: pa.ChunkedArray, num_buckets: int) -> np.ndarray:
    """The join bucket of each request id: the same wherever the same id stands."""
    return (hashes(requests) % np.uint64(num_buckets)).astype(np.int64)


def ranks(strings: pa.ChunkedArray) -> np.ndarray:
    """Each string's place among the distinct ones in order of their bytes."""
    encoded = strings.combine_chunks().dictionary_encode()
    places = np.empty(len(encoded.dictionary), np.int64)
    places[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(places))
    return places[encoded.indices.to_numpy(zero_copy_only=False)]


def rows_by_key(keys: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each key that occurs, ascending, with its rows in their order."""
    order = np.argsort(keys, kind="stable")
    bounds = np.flatnonzero(np.diff(keys[order])) + 1
    for rows in np.split(order, bounds):
        if len(rows):
            yield int(keys[rows[0]]), rows

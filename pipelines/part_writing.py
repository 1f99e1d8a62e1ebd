"""One part of the examples: rows in order of time, as the bytes of a TFRecord file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from mmoe_ranker.config import Config
from mmoe_ranker.example_encoding import encode_examples
from mmoe_ranker.examples import ITEM_ID, REQUEST_ID, TIMESTAMP_MICROS, example_layout
from pipelines.batches import ImpressionBatch, ranks, whole
from pipelines.joining import NO_POSITION
from pipelines.tfrecords import tfrecord_gzip

_SLICE_ROWS = 1 << 15


def in_time_order(batches: Sequence[ImpressionBatch]) -> ImpressionBatch:
    """One batch in order of time, request, position; then of place in the log, where there is no position."""
    batch = ImpressionBatch.concatenate(batches)
    row = batch.impressions["_row"].to_numpy()
    order = np.lexsort(
        (
            batch.impressions["_index"].to_numpy(),
            batch.contexts["_order"].to_numpy()[row],
            batch.impressions["_position"].fill_null(NO_POSITION).to_numpy(),
            ranks(batch.contexts["_request"])[row],
            batch.contexts["_time"].to_numpy()[row],
        )
    )
    return batch.take(order)


def encode(config: Config, batch: ImpressionBatch) -> Iterator[pa.Array]:
    """Serialized examples, one an impression, in slices."""
    fields = example_layout(config)
    renamed = {"_request": REQUEST_ID, "_time": TIMESTAMP_MICROS, "_item": ITEM_ID}
    names = {field.name for field in fields}
    contexts = {renamed.get(name, name): whole(batch.contexts[name]) for name in batch.contexts.column_names}
    impressions = {renamed.get(name, name): whole(batch.impressions[name]) for name in batch.impressions.column_names}
    rows = impressions.pop("_row").to_numpy()
    for start in range(0, len(rows), _SLICE_ROWS):
        stop = min(start + _SLICE_ROWS, len(rows))
        first, last = int(rows[start:stop].min()), int(rows[start:stop].max()) + 1
        yield encode_examples(
            fields,
            {name: column[start:stop] for name, column in impressions.items() if name in names},
            {name: column[first:last] for name, column in contexts.items() if name in names},
            pa.array(rows[start:stop] - first),
        )


def part_bytes(config: Config, batch: ImpressionBatch) -> bytes:
    """The file of a part whose rows are in order."""
    return tfrecord_gzip(encode(config, batch))

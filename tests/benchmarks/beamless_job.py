"""The floor of the pipeline: the same examples from whole logs in memory, in one process, without Beam.

pyarrow reads, one merge finds each event's impression, the pipeline's own bulk encoder writes. It does without checks,
duplicates, splits, statistics and a bound on memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from mmoe_ranker.config import Config
from mmoe_ranker.example_encoding import encode_examples
from mmoe_ranker.examples import ITEM_ID, REQUEST_ID, TIMESTAMP_MICROS, example_layout, label_name
from pipelines.tfrecords import tfrecord_gzip

_PART_EXAMPLES = 1 << 16
_SLICE_ROWS = 1 << 15


def run(config: Config, impressions: Path, feedback: Path, out: Path) -> None:
    """Builds `part-*.tfrecord.gz` in order of time from two logs, both JSON lines or both flat Parquet."""
    if impressions.suffix == ".parquet":
        contexts, row, items = _flat(config, pq.read_table(impressions))
        events = pq.read_table(feedback)
    else:
        contexts, row, items = _nested(pj.read_json(impressions))
        events = pj.read_json(feedback)
    columns = {name: _whole(items[name]) for name in items.column_names}
    columns |= _labels(config, _whole(contexts["request_id"]).take(pa.array(row)), columns[config.item_key], events)
    order = pc.sort_indices(contexts, [("timestamp", "ascending"), ("request_id", "ascending")])
    rank = np.empty(len(order), np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    by_time = np.argsort(rank[row], kind="stable")
    shared = {name: _whole(contexts[name]).take(order) for name in contexts.column_names}
    micros = np.rint(shared["timestamp"].to_numpy() * 1e6).astype(np.int64)
    shared |= {REQUEST_ID: shared["request_id"], TIMESTAMP_MICROS: pa.array(micros)}
    columns = {name: values.take(pa.array(by_time)) for name, values in columns.items()}
    columns[ITEM_ID] = columns[config.item_key]
    _write(config, columns, shared, rank[row][by_time], out)


def _flat(config: Config, table: pa.Table) -> tuple[pa.Table, np.ndarray, pa.Table]:
    request = _whole(table["request_id"])
    first = np.concatenate([[True], pc.not_equal(request[1:], request[:-1]).to_numpy(zero_copy_only=False)])
    names = ["request_id", "timestamp", *(feature.name for feature in config.side("context"))]
    items = table.select([feature.name for feature in config.side("candidate", "bias")])
    return table.select(names).take(pa.array(np.flatnonzero(first))), np.cumsum(first) - 1, items


def _nested(table: pa.Table) -> tuple[pa.Table, np.ndarray, pa.Table]:
    listed = _whole(table["impressions"])
    row = np.repeat(np.arange(len(listed)), pc.list_value_length(listed).to_numpy())
    context, impression = _fields(_whole(table["context"])), _fields(listed.flatten())
    items = _fields(impression.pop("item"))
    contexts = {"request_id": table["request_id"], "timestamp": table["timestamp"], **context}
    return pa.table(contexts), row, pa.table({**impression, **items})


def _fields(structs: pa.Array) -> dict[str, pa.Array]:
    return dict(zip([field.name for field in structs.type], structs.flatten(), strict=True))


def _labels(config: Config, request: pa.Array, item: pa.Array, events: pa.Table) -> dict[str, pa.Array]:
    """The one merge: the row of each event by a code of its request and item."""
    requests, event_requests = _codes(request, _whole(events["request_id"]))
    items, event_items = _codes(item, _whole(events["item_id"]))
    width = int(items.max()) + 1
    key = requests * width + items
    sorted_rows = np.argsort(key)
    event_key = event_requests * width + event_items
    found = sorted_rows[np.searchsorted(key, event_key, sorter=sorted_rows).clip(max=len(key) - 1)]
    hit = key[found] == event_key
    values = events["value"].fill_null(0.0).to_numpy()
    unmasked = {}
    for objective in config.objectives:
        mine = hit & pc.equal(events["event"], objective.event).to_numpy()
        present = np.bincount(found[mine], minlength=len(key)) > 0
        if objective.kind == "binary":
            unmasked[objective.name] = present.astype(np.float64)
        else:
            summed = np.bincount(found[mine], weights=values[mine], minlength=len(key))
            unmasked[objective.name] = (
                summed if objective.without_event == "zero" else np.where(present, summed, np.nan)
            )
    labels = {}
    for objective in config.objectives:
        label = unmasked[objective.name]
        if objective.given is not None:
            label = np.where(unmasked[objective.given] == 1.0, label, np.nan)
        labels[label_name(objective.name)] = pa.array(label.astype(np.float32), mask=np.isnan(label))
    return labels


def _codes(left: pa.Array, right: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    both = pa.concat_arrays([left, right]).dictionary_encode().indices.to_numpy().astype(np.int64)
    return both[: len(left)], both[len(left) :]


def _write(
    config: Config, columns: dict[str, pa.Array], shared: dict[str, pa.Array], row: np.ndarray, out: Path
) -> None:
    fields = example_layout(config)
    for field in fields:
        side = columns if field.name in columns else shared
        if field.wire == "bytes":
            side[field.name] = side[field.name].cast(pa.string() if field.length == 1 else pa.list_(pa.string()))

    def encoded(start: int, stop: int) -> pa.Array:
        first, last = int(row[start]), int(row[stop - 1]) + 1
        return encode_examples(
            fields,
            {name: values[start:stop] for name, values in columns.items()},
            {name: values[first:last] for name, values in shared.items()},
            pa.array(row[start:stop] - first),
        )

    for part, begin in enumerate(range(0, len(row), _PART_EXAMPLES)):
        end = min(begin + _PART_EXAMPLES, len(row))
        slices = ((start, min(start + _SLICE_ROWS, end)) for start in range(begin, end, _SLICE_ROWS))
        content = tfrecord_gzip(encoded(*bounds) for bounds in slices)
        (out / f"part-{part:05d}.tfrecord.gz").write_bytes(content)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole

"""The join of one bucket: impressions with their feedback by request and item, duplicates removed, labels built.

All rows of a request are in one bucket. Of several impressions of one item in one request the first stays, by time,
then position; events are held against its time, so that a request that is logged again much later opens no new window.
Of feedback events that agree in request, item, event, value and time one stays.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmoe_ranker.config import Config
from mmoe_ranker.examples import label_name
from pipelines.attribution import Events, Heard, attribute, event_names
from pipelines.batches import FEEDBACK_SCHEMA, ImpressionBatch
from pipelines.sampling import HAS_EVENT

NO_POSITION = np.iinfo(np.int64).max
_NONE = pa.chunked_array([], pa.string())


@dataclasses.dataclass(frozen=True)
class Joined:
    """Labelled impressions, each of its request's time, and what was counted on the way.

    Attributes:
      batch: the impressions.
      counts: by log, how, and event.
      heard: the distinct events of these impressions.
    """

    batch: ImpressionBatch | None
    counts: Counter[tuple[str, ...]]
    heard: Heard


def join(config: Config, batches: Sequence[ImpressionBatch], events: Sequence[pa.Table]) -> Joined:
    """Joins the batches of one bucket.

    Returns:
      The distinct impressions with their labels (`<objective>_label`, float32, null where there is none), and counts:
      duplicates of impressions; joined, late, early, orphan and duplicate events by name. Windows count from each
      impression's own time. A request's is that of its earliest, so that all its impressions fall into one split.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    feedback = pa.concat_tables(events).combine_chunks() if events else FEEDBACK_SCHEMA.empty_table()
    whole = ImpressionBatch.concatenate(batches) if batches else None
    request, feedback_request = _codes(whole.contexts["_request"] if whole else _NONE, feedback["_request"])
    item, feedback_item = _codes(whole.impressions["_item"] if whole else _NONE, feedback["_item"])
    num_items = int(max(item.max(initial=-1), feedback_item.max(initial=-1))) + 1
    distinct = _distinct(config, feedback, feedback_request * num_items + feedback_item, counts)
    if whole is None:
        nowhere = np.full(len(distinct.key), -1)
        attributed = attribute(config, distinct, nowhere, np.zeros(0, np.int64))
        counts.update(attributed.counts)
        return Joined(None, counts, attributed.heard)

    row = whole.impressions["_row"].to_numpy()
    key = request[row] * num_items + item
    kept = _first_of_each(whole, key)
    counts["impressions", "duplicates"] += len(key) - len(kept)
    shown = whole.contexts["_time"].to_numpy()[row[kept]]
    earliest = np.full(int(request.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(earliest, request[row[kept]], shown)
    place = whole.contexts.column_names.index("_time")
    contexts = whole.contexts.set_column(place, "_time", pa.array(earliest[request]))
    batch = ImpressionBatch(contexts, whole.impressions).take(kept)

    found = np.minimum(np.searchsorted(key[kept], distinct.key), len(kept) - 1)
    attributed = attribute(config, distinct, np.where(key[kept][found] == distinct.key, found, -1), shown)
    counts.update(attributed.counts)
    impressions = batch.impressions
    if config.sampling is not None:
        impressions = impressions.append_column(HAS_EVENT, pa.array(attributed.has_event))
    for name in config.objective_names:
        label = attributed.labels[name].astype(np.float32)
        impressions = impressions.append_column(label_name(name), pa.array(label, mask=np.isnan(label)))
    return Joined(ImpressionBatch(batch.contexts, impressions), counts, attributed.heard)


def _first_of_each(whole: ImpressionBatch, key: np.ndarray) -> np.ndarray:
    """The rows of the impressions that stay, in order of key."""
    row = whole.impressions["_row"].to_numpy()
    order = np.lexsort(
        (
            whole.impressions["_index"].to_numpy(),
            whole.contexts["_order"].to_numpy()[row],
            whole.impressions["_position"].fill_null(NO_POSITION).to_numpy(),
            whole.contexts["_time"].to_numpy()[row],
            key,
        )
    )
    return order[np.diff(key[order], prepend=-1) != 0]


def _distinct(config: Config, feedback: pa.Table, key: np.ndarray, counts: Counter[tuple[str, ...]]) -> Events:
    """The events that are not repetitions, in order of key, event, time, value; counts the others by name."""
    names = event_names(config)
    name = pc.index_in(feedback["_event"], pa.array(names, pa.string())).to_numpy().astype(np.int64)
    no_value = feedback["_value"].is_null().to_numpy()
    value = feedback["_value"].fill_null(0.0).to_numpy()
    time = feedback["_time"].to_numpy()
    columns = [key, name, time, no_value, value]
    order = np.lexsort(columns[::-1])
    repeated = np.ones(len(order), bool)
    for column in columns:
        repeated[1:] &= column[order][1:] == column[order][:-1]
    repeated[:1] = False
    repetitions = np.bincount(name[order[repeated]], minlength=len(names)).tolist()
    counts.update({("feedback", "duplicate", event): count for event, count in zip(names, repetitions, strict=True)})
    kept = order[~repeated]
    return Events(key[kept], name[kept], time[kept], value[kept])


def _codes(left: pa.ChunkedArray, right: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Integers [0, n) that are equal where the strings are, across both columns."""
    both = pa.chunked_array([*left.chunks, *right.chunks], pa.string()).combine_chunks().dictionary_encode()
    codes = both.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes[: len(left)], codes[len(left) :]

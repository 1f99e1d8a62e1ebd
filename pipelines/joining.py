"""The join of one bucket: impressions with their feedback by request and item, duplicates removed, labels built.

All rows of a request are in one bucket. Of several impressions of one item in one request the first stays, by time,
then position. Of feedback events that agree in request, item, event, value and time one stays.
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
from pipelines.batches import FEEDBACK_SCHEMA, ImpressionBatch
from pipelines.sampling import HAS_EVENT

NO_POSITION = np.iinfo(np.int64).max


@dataclasses.dataclass(frozen=True)
class Joined:
    """Labelled impressions, each of its request's time, and what was counted on the way."""

    batch: ImpressionBatch
    counts: Counter[tuple[str, ...]]


def join(config: Config, batches: Sequence[ImpressionBatch], events: Sequence[pa.Table]) -> Joined:
    """Joins the batches of one bucket.

    Returns:
      The distinct impressions with their labels (`<objective>_label`, float32, null where there is none), and counts:
      duplicates of impressions; joined, duplicate and orphan events by name. A request's time is that of its earliest
      impression, so that all its impressions fall into one split.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    feedback = pa.concat_tables(events).combine_chunks() if events else FEEDBACK_SCHEMA.empty_table()
    if not batches:
        orphans = pc.value_counts(_distinct_events(feedback, counts)["_event"])
        counts.update({("feedback", "orphan", entry["values"]): entry["counts"] for entry in orphans.to_pylist()})
        return Joined(None, counts)  # type: ignore[arg-type]
    whole = ImpressionBatch.concatenate(batches)
    request, feedback_request = _codes(whole.contexts["_request"], feedback["_request"])
    item, feedback_item = _codes(whole.impressions["_item"], feedback["_item"])
    row = whole.impressions["_row"].to_numpy()
    num_items = int(max(item.max(initial=-1), feedback_item.max(initial=-1))) + 1
    key = request[row] * num_items + item

    time = whole.contexts["_time"].to_numpy()
    order = np.lexsort(
        (
            whole.impressions["_index"].to_numpy(),
            whole.contexts["_order"].to_numpy()[row],
            whole.impressions["_position"].fill_null(NO_POSITION).to_numpy(),
            time[row],
            key,
        )
    )
    first = np.concatenate([[True], np.diff(key[order]) != 0])
    kept = order[first]
    counts["impressions", "duplicates"] += len(order) - len(kept)
    earliest = np.full(int(request.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(earliest, request[row[kept]], time[row[kept]])
    place = whole.contexts.column_names.index("_time")
    contexts = whole.contexts.set_column(place, "_time", pa.array(earliest[request]))
    batch = ImpressionBatch(contexts, whole.impressions).take(kept)

    distinct = _distinct(feedback, feedback_request * num_items + feedback_item)
    event_key = (feedback_request * num_items + feedback_item)[distinct]
    found = np.searchsorted(key[kept], event_key)
    hit = (found < len(kept)) & (key[kept][np.minimum(found, len(kept) - 1)] == event_key)
    _count_events(feedback, distinct, hit, counts)
    labels = _labels(config, feedback.take(pa.array(distinct[hit])), found[hit], len(kept))
    impressions = batch.impressions
    if config.sampling is not None:
        has_event = np.bincount(found[hit], minlength=len(kept)) > 0
        impressions = impressions.append_column(HAS_EVENT, pa.array(has_event))
    for name in config.objective_names:
        impressions = impressions.append_column(label_name(name), labels[name])
    return Joined(ImpressionBatch(batch.contexts, impressions), counts)


def _labels(config: Config, events: pa.Table, row: np.ndarray, num_rows: int) -> dict[str, pa.Array]:
    """Labels [N] an objective from the events that hit, in order of row, time and value."""
    name = events["_event"]
    values = events["_value"].fill_null(0.0).to_numpy()
    labels: dict[str, np.ndarray] = {}
    for objective in config.objectives:
        mine = pc.equal(name, objective.event).to_numpy()
        present = np.bincount(row[mine], minlength=num_rows) > 0
        if objective.kind == "binary":
            labels[objective.name] = present.astype(np.float64)
        else:
            summed = np.bincount(row[mine], weights=values[mine], minlength=num_rows)
            labels[objective.name] = summed if objective.without_event == "zero" else np.where(present, summed, np.nan)
    unmasked = dict(labels)
    for objective in config.objectives:
        parent = objective.given
        while parent is not None:
            # A label exists only where the whole chain of conditions holds.
            labels[objective.name] = np.where(unmasked[parent] == 1, labels[objective.name], np.nan)
            parent = next(other.given for other in config.objectives if other.name == parent)
    return {name: pa.array(values.astype(np.float32), mask=np.isnan(values)) for name, values in labels.items()}


def _distinct_events(feedback: pa.Table, counts: Counter[tuple[str, ...]]) -> pa.Table:
    request, _ = _codes(feedback["_request"], feedback["_request"])
    item, _ = _codes(feedback["_item"], feedback["_item"])
    distinct = _distinct(feedback, request * (int(item.max(initial=0)) + 1) + item)
    _count_events(feedback, distinct, None, counts)
    return feedback.take(pa.array(distinct))


def _distinct(feedback: pa.Table, key: np.ndarray) -> np.ndarray:
    """Rows of the events that are not repetitions, in order of key, event, time, value."""
    event = feedback["_event"].combine_chunks().dictionary_encode()
    # Codes depend on which event came first; the order of values must not.
    rank = np.argsort(np.argsort(np.array(event.dictionary.to_pylist(), dtype=object))) if len(event) else event
    event_code = np.asarray(rank)[event.indices.to_numpy()] if len(event) else np.zeros(0, np.int64)
    no_value = feedback["_value"].is_null().to_numpy()
    value = feedback["_value"].fill_null(0.0).to_numpy()
    columns = [key, event_code, feedback["_time"].to_numpy(), no_value, value]
    order = np.lexsort(columns[::-1])
    repeated = np.ones(len(order), bool)
    for column in columns:
        repeated[1:] &= column[order][1:] == column[order][:-1]
    repeated[:1] = False
    return order[~repeated]


def _count_events(
    feedback: pa.Table, distinct: np.ndarray, hit: np.ndarray | None, counts: Counter[tuple[str, ...]]
) -> None:
    event = feedback["_event"].combine_chunks()
    total = _count_by_value(event)
    kept = _count_by_value(event.take(pa.array(distinct)))
    for name in total:
        counts["feedback", "duplicate", name] += total[name] - kept.get(name, 0)
    if hit is None:
        return
    joined = _count_by_value(event.take(pa.array(distinct[hit])))
    for name in kept:
        counts["feedback", "joined", name] += joined.get(name, 0)
        counts["feedback", "orphan", name] += kept[name] - joined.get(name, 0)


def _count_by_value(values: pa.Array) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}


def _codes(left: pa.ChunkedArray, right: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Integers [0, n) that are equal where the strings are, across both columns."""
    both = pa.chunked_array([*left.chunks, *right.chunks], pa.string()).combine_chunks().dictionary_encode()
    codes = both.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes[: len(left)], codes[len(left) :]

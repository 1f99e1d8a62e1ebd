"""Tables of raw records to batches of canonical columns, and the rows that this could not be done for.

The fast path for well-formed records. It takes a nested table (one row a request, as JSON lines give and Parquet may)
or a flat one (one row an impression), and returns what is certainly right as a batch, with a mask of the records left
over, which go one by one through `record_checks`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmoe_ranker.config import Config
from pipelines.batches import FEEDBACK_SCHEMA, ImpressionBatch, context_schema, impression_schema
from pipelines.canonical_columns import (
    categories,
    check_feature,
    event_values,
    identifiers,
    integers,
    is_text,
    repeats,
    timestamps,
)
from pipelines.record_checks import events_at_least_0, events_with_value


def is_nested(table: pa.Table) -> bool:
    """Whether a row is a request with its list of impressions, rather than an impression."""
    return "impressions" in table.column_names


def nested_impressions(config: Config, table: pa.Table, order: np.ndarray) -> tuple[ImpressionBatch, np.ndarray]:
    """Reads ranked-list records.

    Args:
      config: names the features.
      table: one row a request; the columns that the log has of request_id, timestamp, context, impressions.
      order: int64 [R], where each record stands in the logs.

    Returns:
      The records that are right in every part, and a mask [R] of the others.
    """
    columns = Columns(table)
    right = np.ones(table.num_rows, bool)
    context = columns.get("context")
    right &= _there(context)
    contexts = _contexts(config, columns, _Struct(context), order, right)

    listed = columns.get("impressions")
    if not (pa.types.is_list(listed.type) or pa.types.is_large_list(listed.type)):
        right[:] = False
        listed = pa.nulls(table.num_rows, pa.list_(pa.null()))
    sizes = pc.list_value_length(listed).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    right &= sizes > 0
    row = np.repeat(np.arange(table.num_rows), sizes)
    index = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    each = listed.flatten()
    impression_right = _there(each)
    impression = _Struct(each)
    item = impression.get("item")
    impression_right &= _there(item)
    impressions = _impressions(config, impression, _Struct(item), _Struct(context), row, index, impression_right)
    right[row[~impression_right]] = False
    kept = right[row]
    batch = ImpressionBatch(contexts, impressions).take(np.flatnonzero(kept))
    return batch, ~right


def flat_impressions(config: Config, table: pa.Table, order: np.ndarray) -> tuple[ImpressionBatch, np.ndarray]:
    """Reads a flat table, one row an impression; arguments and results as for `nested_impressions`."""
    columns = Columns(table)
    # A request's rows follow one another, as a rule: its context is read once for each run of equal rows.
    shared = ["request_id", "timestamp", *(feature.name for feature in config.logged("context"))]
    first = ~np.logical_and.reduce([repeats(columns.get(name)) for name in shared])
    starts = np.flatnonzero(first)
    row = np.cumsum(first) - 1
    index = np.arange(table.num_rows) - starts[row]
    context = Columns(table.select([name for name in shared if name in table.column_names]).take(pa.array(starts)))
    contexts_right = np.ones(len(starts), bool)
    contexts = _contexts(config, context, context, order[starts], contexts_right)
    right = contexts_right[row]
    impressions = _impressions(config, columns, columns, columns, np.arange(table.num_rows), index, right)
    impressions = impressions.set_column(impressions.column_names.index("_row"), "_row", pa.array(row))
    batch = ImpressionBatch(contexts, impressions)
    return batch if right.all() else batch.take(np.flatnonzero(right)), ~right


def feedback(config: Config, table: pa.Table) -> tuple[pa.Table, np.ndarray, Counter[str]]:
    """Reads feedback records.

    Returns:
      The events that are right and that an objective of the config is labelled from; a mask of the records that are
      not certainly right; by name, the number of events that no objective names.
    """
    columns = Columns(table)
    event, known = categories(columns.get("event"))
    known = known & _mask(event.is_valid()) & is_text(columns.get("event").type)
    wanted = sorted({objective.event for objective in config.objectives})
    named = _mask(pc.is_in(event, pa.array(wanted, pa.string()))) & known
    request, request_right = identifiers(columns.get("request_id"))
    item, item_right = identifiers(columns.get("item_id"))
    time, time_right = timestamps(columns.get("timestamp"))
    value, value_right = event_values(columns.get("value"))
    needs_value = _mask(pc.is_in(event, pa.array(sorted(events_with_value(config)), pa.string())))
    at_least_0 = _mask(pc.is_in(event, pa.array(sorted(events_at_least_0(config)), pa.string())))
    value_right &= ~needs_value | _mask(value.is_valid())
    value_right &= ~at_least_0 | _mask(pc.greater_equal(value, 0.0).fill_null(True))
    right = named & request_right & item_right & time_right & value_right
    rows = pa.Table.from_arrays([request, item, event, value, time], schema=FEEDBACK_SCHEMA)
    ignored = pc.value_counts(event.filter(pa.array(known & ~named))).to_pylist()
    counted = Counter({entry["values"]: entry["counts"] for entry in ignored})
    return rows.filter(pa.array(right)), ~right & (named | ~known), counted


def not_utf8(table: pa.Table) -> np.ndarray:
    """The rows [R] with a string that is not UTF-8, at any depth: Arrow reads the strings of Parquet as they are."""
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        if table.num_rows == 1:
            return np.ones(1, bool)
        # A dictionary is looked at whole, whatever rows use it.
        for place, column in enumerate(table.columns):
            if pa.types.is_dictionary(column.type):
                table = table.set_column(place, table.column_names[place], column.cast(column.type.value_type))
        # Taken, not sliced: the values of a list are looked at whole, also those outside the slice.
        halves = np.array_split(np.arange(table.num_rows), 2)
        return np.concatenate([not_utf8(table.take(pa.array(half))) for half in halves])
    return np.zeros(table.num_rows, bool)


def readable(value: pa.Scalar) -> Any:
    """A value as Python has it; bytes of a string that are not UTF-8 are escaped."""
    kind = value.type
    if not value.is_valid:
        return None
    if pa.types.is_dictionary(kind):
        return readable(value.value)
    if pa.types.is_struct(kind):
        return {name: readable(value[name]) for name in value}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [readable(one) for one in value.values]
    return value.as_buffer().to_pybytes().decode("utf-8", "backslashreplace") if is_text(kind) else value.as_py()


def batch_of_rows(config: Config, requests: list[tuple[dict[str, Any], list[dict[str, Any]]]]) -> ImpressionBatch:
    """A batch from rows that `record_checks` took: per request its context row (with `_order`) and impression rows."""
    contexts = [context for context, _ in requests]
    impressions = [{"_row": row, **one} for row, (_, listed) in enumerate(requests) for one in listed]
    return ImpressionBatch(
        pa.Table.from_pylist(contexts, schema=context_schema(config)),
        pa.Table.from_pylist(impressions, schema=impression_schema(config)),
    )


class Columns:
    """The columns of a table by name; a column that is not there is all null."""

    def __init__(self, table: pa.Table):
        self._table = table

    def get(self, name: str) -> pa.Array:
        """One column, whole."""
        if name not in self._table.column_names:
            return pa.nulls(self._table.num_rows)
        column = self._table[name].combine_chunks()
        return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


class _Struct:
    """The fields of a struct array by name; a field that is not there is all null."""

    def __init__(self, array: pa.Array):
        self._array = array

    def get(self, name: str) -> pa.Array:
        kind = self._array.type
        if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
            return pa.nulls(len(self._array))
        return pc.struct_field(self._array, name)


def _contexts(
    config: Config, columns: Columns, context: Columns | _Struct, order: np.ndarray, right: np.ndarray
) -> pa.Table:
    request, request_right = identifiers(columns.get("request_id"))
    time, time_right = timestamps(columns.get("timestamp"))
    right &= request_right & time_right
    arrays = [request, time, pa.array(order)]
    for feature in config.logged("context"):
        column, column_right = check_feature(config, feature, context.get(feature.name))
        right &= column_right
        arrays.append(column)
    return pa.Table.from_arrays(arrays, schema=context_schema(config))


def _impressions(
    config: Config,
    impression: Columns | _Struct,
    item: Columns | _Struct,
    context: Columns | _Struct,
    row: np.ndarray,
    index: np.ndarray,
    right: np.ndarray,
) -> pa.Table:
    key, key_right = identifiers(item.get(config.item_key))
    position, position_right = integers(impression.get("position"), 1, None)
    right &= key_right & position_right
    arrays = {"_row": pa.array(row), "_item": key, "_position": position, "_index": pa.array(index)}
    for feature in config.logged("candidate"):
        arrays[feature.name], column_right = check_feature(config, feature, item.get(feature.name))
        right &= column_right
    for feature in config.side("bias"):
        column, column_right = check_feature(config, feature, impression.get(feature.name))
        if feature.name != "position":
            inherited, inherited_right = check_feature(config, feature, context.get(feature.name))
            inherited = inherited.take(pa.array(row))
            # Where the impression says it, the context's value is not looked at; where wrong, it was null here.
            unsaid = _mask(impression.get(feature.name).is_null())
            column = pc.coalesce(column, inherited)
            column_right &= ~unsaid | inherited_right[row]
        right &= column_right
        arrays[feature.name] = column
    schema = impression_schema(config)
    return pa.Table.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _there(array: pa.Array) -> np.ndarray:
    if not pa.types.is_struct(array.type):
        return np.zeros(len(array), bool)
    return _mask(array.is_valid())


def _mask(values: pa.Array) -> np.ndarray:
    return values.fill_null(False).to_numpy(zero_copy_only=False).astype(bool, copy=True)

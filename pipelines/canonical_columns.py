"""Arrow columns as they stand in a log, to the types of an example: whole columns at a time, or not at all.

Each function returns the canonical column (null: missing) and, per row, whether the value is certainly right. It gives
no reasons: a row that is not certainly right goes to `record_checks`, which says what is wrong, or takes it after all.
The two agree value by value; a property test holds them together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmoe_ranker.config import Config
from mmoe_ranker.examples import Field, feature_field

# A canonical column and a mask [N] of the rows that are certainly right.
Checked: TypeAlias = tuple[pa.Array, np.ndarray]

# 2000-01-01 to 2100-01-01, UTC: a timestamp in milliseconds, or 0, is a mistake worth telling.
EARLIEST_SECONDS = 946_684_800
LATEST_SECONDS = 4_102_444_800
LARGEST_VALUE = 1e30  # Of a feedback event.

ARROW_TYPES: dict[str, pa.DataType] = {"bytes": pa.string(), "int64": pa.int64(), "float": pa.float32()}


def arrow_type(field: Field) -> pa.DataType:
    """The type of a field's canonical column."""
    return ARROW_TYPES[field.wire] if field.length == 1 else pa.list_(ARROW_TYPES[field.wire])


def check_feature(config: Config, feature: Any, values: pa.Array) -> Checked:
    """Checks one feature's column and brings it to the type of its field."""
    field = feature_field(config, feature)
    if feature.kind == "categorical":
        return integers(values, 0, feature.size) if feature.is_integer else categories(values)
    if feature.kind == "numeric":
        column, right = numbers(values, above=-1.0 if feature.transform == "log1p" else None)
        if feature.name == config.training.sample_weight:
            right = right & _mask(pc.greater_equal(column, 0.0).fill_null(True))
        return column, right
    if feature.kind == "vector":
        return _lists(values, numbers, length=feature.size)
    table = config.feature(feature.embedding) if feature.embedding else feature

    def elements(flat: pa.Array) -> Checked:
        return integers(flat, 0, table.size) if field.wire == "int64" else categories(flat)  # type: ignore[union-attr]

    return _lists(values, elements, most_recent=feature.max_length)


def categories(values: pa.Array) -> Checked:
    """Strings, and integers and booleans as strings."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return categories(values.dictionary_decode())
    if is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return values.cast(pa.string()), np.ones(len(values), bool)
    return _refused(values, pa.string())


def identifiers(values: pa.Array) -> Checked:
    """Categories that must be there and not be empty."""
    column, right = categories(values)
    return column, right & _mask(pc.greater(pc.binary_length(column), 0))


def integers(values: pa.Array, low: int, high: int | None) -> Checked:
    """Integers from `low` to `high`, inclusive; a float that is an integer counts as one."""
    floating = pa.types.is_floating(values.type)
    if not pa.types.is_integer(values.type) and not floating:
        return _refused(values, pa.int64())
    # One type wide enough for the column and both limits.
    wide = pa.float64() if floating else values.type if pa.types.is_uint64(values.type) else pa.int64()
    values = values.cast(wide)
    limit = high if high is not None else 2**53 - 1 if floating else np.iinfo(np.int64).max
    inside = pc.and_(pc.greater_equal(values, pa.scalar(low, wide)), pc.less_equal(values, pa.scalar(limit, wide)))
    if floating:
        inside = pc.and_(inside, pc.equal(values, pc.floor(values)))
    right = inside.fill_null(True)
    column = pc.if_else(right, values, pa.scalar(None, wide)).cast(pa.int64())
    return column, _mask(right)


def numbers(values: pa.Array, above: float | None = None) -> Checked:
    """Finite numbers as float32, by way of float64; greater than `above` where it is given."""
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return _refused(values, pa.float32())
    column = values.cast(pa.float64(), safe=False).cast(pa.float32(), safe=False)
    column = pc.add(column, pa.scalar(0.0, pa.float32()))  # -0 is 0, as an integer and as a float.
    right = pc.is_finite(column)
    if above is not None:
        right = pc.and_(right, pc.greater(column, above))
    return column, _mask(right.fill_null(True))


def event_values(values: pa.Array) -> Checked:
    """Numbers as float64, at most `LARGEST_VALUE` in size."""
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return _refused(values, pa.float64())
    column = pc.add(values.cast(pa.float64(), safe=False), 0.0)
    return column, _mask(pc.less_equal(pc.abs(column), LARGEST_VALUE).fill_null(True))


def timestamps(values: pa.Array) -> Checked:
    """UTC seconds to integer microseconds, rounded half to even, or times with a zone; a missing one is not right."""
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        # Safe is off for nanoseconds, which are cut off.
        micros = values.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64()).fill_null(0).to_numpy()
        right = (micros >= EARLIEST_SECONDS * 1_000_000) & (micros < LATEST_SECONDS * 1_000_000)
        return pa.array(np.where(right, micros, 0)), right
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        column, _ = _refused(values, pa.int64())
        return column, np.zeros(len(values), bool)
    seconds = values.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
    right = (seconds >= EARLIEST_SECONDS) & (seconds < LATEST_SECONDS)
    micros = np.rint(np.where(right, seconds, 0.0) * 1e6).astype(np.int64)
    return pa.array(micros), right


def _lists(
    values: pa.Array,
    elements: Callable[[pa.Array], Checked],
    length: int | None = None,
    most_recent: int | None = None,
) -> Checked:
    """Lists whose elements are all there and right: of `length`, or cut to the `most_recent` last ones."""
    kind = values.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        canonical, _ = elements(pa.nulls(0))
        return _refused(values, pa.list_(canonical.type))
    sizes = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    column, flat_right = elements(values.flatten())
    flat_right = flat_right & _mask(column.is_valid())
    row = np.repeat(np.arange(len(values)), sizes)
    right = np.ones(len(values), bool)
    right[row[~flat_right]] = False
    if length is not None:
        right &= (sizes == length) | _mask(values.is_null())
    if most_recent is not None and len(sizes) and sizes.max() > most_recent:
        from_end = np.repeat(np.cumsum(sizes), sizes) - np.arange(len(row))
        column = column.filter(pa.array(from_end <= most_recent))
        sizes = np.minimum(sizes, most_recent)
    return lists_of(column, sizes, values.is_valid()), right


def lists_of(flat: pa.Array, sizes: np.ndarray, valid: pa.Array) -> pa.Array:
    """A list array of these sizes over `flat`, null where not `valid`."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, flat, mask=pc.invert(valid))


def repeats(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Whether each row surely holds the same as the row before it; never the first.

    Columns of numbers, strings, and lists of these are compared; of any other type no row is sure.
    """
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    same = np.zeros(len(values), bool)
    if not _comparable(values.type):
        return same
    if pa.types.is_list(values.type):
        sizes = pc.list_value_length(values).fill_null(-1).to_numpy().astype(np.int64)
        same[1:] = sizes[1:] == sizes[:-1]
        sizes = np.maximum(sizes, 0)
        # Element by element with the one that stands a row's length before it.
        flat = _codes(values.flatten())
        row = np.repeat(np.arange(len(values)), sizes)
        before = np.arange(len(flat)) - sizes[row]
        same[row[(before < 0) | (flat != flat[before])]] = False
        return same
    codes = _codes(values)
    same[1:] = codes[1:] == codes[:-1]
    return same


def _codes(values: pa.Array) -> np.ndarray:
    """Integers that are equal where the values are; missing ones are equal to one another."""
    if pa.types.is_dictionary(values.type):
        return values.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return values.dictionary_encode(null_encoding="encode").indices.to_numpy(zero_copy_only=False)


def _comparable(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return not pa.types.is_nested(kind.value_type) and _comparable(kind.value_type)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return number or pa.types.is_null(kind) or is_text(kind)


def _refused(values: pa.Array, kind: pa.DataType) -> Checked:
    """No value of this type is right; only missing ones are."""
    return pa.nulls(len(values), kind), _mask(values.is_null())


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _mask(values: pa.Array) -> np.ndarray:
    return values.fill_null(False).to_numpy(zero_copy_only=False)

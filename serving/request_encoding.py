"""From a ranking request to the input tensors of the `rank` signature.

Everything a server would reject, or worse accept, is found here and said with the feature's name before anything is
sent: TF Serving checks no shapes. A column is encoded as a whole, from numpy or as bytes. The checks ask for the set of
types in a column first, and look at single values only where that set needs it.

Sequences are padded in front: a model that cuts to its most recent places then keeps what matters of every row. All are
padded to one length before candidates are cut into chunks, so that a chunk is sent what the whole would have been.

Shapes: N candidates, L places of a sequence or numbers of a vector, V values of all rows one behind the other.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from mmoe_ranker.errors import InputError
from mmoe_ranker.examples import canonical_category
from serving.request_columns import Column, RequestColumns, is_missing
from serving.signature import RankSignature, ServedFeature
from serving.tensor_codec import Array, write_numbers, write_strings

_Place: TypeAlias = Callable[[int], str]  # from a row or a place in a list to the words that name it

_MISSING_INTEGER = -1


class EncodedFeature(NamedTuple):
    """One input: a numeric array [N] or [N, L], or as many strings, row after row; L is the width."""

    values: Array | Sequence[str]
    width: int | None = None

    def write(self, tensor: Any, start: int, stop: int) -> None:
        """Writes the rows from `start` to before `stop` into an empty TensorProto."""
        if isinstance(self.values, np.ndarray):
            write_numbers(tensor, self.values[start:stop])
        elif self.width is None:
            write_strings(tensor, self.values[start:stop], (stop - start,))
        else:
            values = self.values[start * self.width : stop * self.width]
            write_strings(tensor, values, (stop - start, self.width))


@dataclass(frozen=True)
class EncodedRequest:
    """The inputs of one request by name, to be sent whole or in chunks of candidates."""

    context: Mapping[str, EncodedFeature]
    candidates: Mapping[str, EncodedFeature]

    def write(self, inputs: Any, start: int, stop: int) -> None:
        """Writes the context, and the candidates from `start` to before `stop`, into the inputs of a request."""
        for name, feature in self.context.items():
            feature.write(inputs[name], 0, 1)
        for name, feature in self.candidates.items():
            feature.write(inputs[name], start, stop)


def encode_request(columns: RequestColumns, signature: RankSignature) -> EncodedRequest:
    """Encodes the features of a request.

    Args:
        columns: What `request_columns` made of the request for this signature.
        signature: What the served model takes.

    Raises:
        InputError: a value that the feature cannot take.
    """
    context, candidates = {}, {}
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
        for feature in signature.context:
            column = _as_column(columns.context[feature.name], feature.kind in _SEVERAL)
            context[feature.name] = _ENCODERS[feature.kind](
                feature, column, _always(f"`{feature.name}` of the context")
            )
        for feature in signature.candidates:
            column = columns.candidates[feature.name]
            candidates[feature.name] = _ENCODERS[feature.kind](feature, column, _in_candidate(feature))
    return EncodedRequest(context, candidates)


def _as_column(value: Any, several: bool) -> Column:
    """A value of the context as a column of one row; an array may have that row already."""
    if isinstance(value, np.ndarray):
        if value.ndim == several:
            return value[None]
        if value.shape[:1] == (1,) and value.ndim == 1 + several:
            return value
    return [value]


def _always(place: str) -> _Place:
    return lambda row: place


def _in_candidate(feature: ServedFeature) -> _Place:
    return lambda row: f"`{feature.name}` of candidate {row}"


def _in_lists(place: _Place, lengths: Array) -> _Place:
    def name(index: int) -> str:
        row = int(np.searchsorted(np.cumsum(lengths), index, side="right"))
        return f"{place(row)}, at place {index - int(lengths[:row].sum())},"

    return name


def _encode_categories(feature: ServedFeature, column: Column, place: _Place) -> EncodedFeature:
    return EncodedFeature(_categories(_single(column, place), place))


def _encode_integers(feature: ServedFeature, column: Column, place: _Place) -> EncodedFeature:
    return EncodedFeature(_integers(_single(column, place), place))


def _encode_numbers(feature: ServedFeature, column: Column, place: _Place) -> EncodedFeature:
    return EncodedFeature(_numbers(_single(column, place), place))


def _encode_sequences(feature: ServedFeature, column: Column, place: _Place) -> EncodedFeature:
    values, lengths = _in_one(column, feature.size, place, "a list of categories, oldest first, or null")
    categories = _categories(values, _in_lists(place, lengths))
    width = int(lengths.max()) if feature.size is None else feature.size
    if (lengths < width).any():
        padded = np.full((len(lengths), width), "", object)
        padded[_ends(lengths, width)] = categories
        categories = padded.reshape(-1).tolist()
    return EncodedFeature(categories, width)


def _encode_integer_sequences(feature: ServedFeature, column: Column, place: _Place) -> EncodedFeature:
    values, lengths = _in_one(column, feature.size, place, "a list of categories, oldest first, or null")
    integers = _integers(values, _in_lists(place, lengths))
    width = int(lengths.max()) if feature.size is None else feature.size
    if (lengths < width).any():
        padded = np.full((len(lengths), width), _MISSING_INTEGER, np.int64)
        padded[_ends(lengths, width)] = integers
        integers = padded
    return EncodedFeature(integers.reshape(len(lengths), width))


def _encode_vectors(feature: ServedFeature, column: Column, place: _Place) -> EncodedFeature:
    size = feature.size
    if size is None:
        size = next((len(row) for row in column if isinstance(row, list | tuple | np.ndarray)), 0)
    values, lengths = _in_one(column, None, place, f"a list of {size} numbers, or null")
    given = np.array([not is_missing(row) for row in column]) if not lengths.all() else np.full(len(column), True)
    if (wrong := np.flatnonzero(given & (lengths != size))).size:
        row = int(wrong[0])
        raise InputError(f"{place(row)} must be a list of {size} numbers, or null. Received: {lengths[row]} values.")
    numbers = _numbers(values, _in_lists(place, lengths)).reshape(int(given.sum()), size)
    if np.isnan(numbers).any():
        row = int(np.flatnonzero(given)[np.argmax(np.isnan(numbers).any(axis=1))])
        raise _wrong(place(row), f"a list of {size} numbers none of which is missing, or null", column[row])
    if given.all():
        return EncodedFeature(numbers)
    vectors = np.zeros((len(column), size), np.float32)
    vectors[given] = numbers
    return EncodedFeature(vectors)


_ENCODERS: dict[str, Callable[[ServedFeature, Column, _Place], EncodedFeature]] = {
    "category": _encode_categories,
    "integer category": _encode_integers,
    "number": _encode_numbers,
    "sequence": _encode_sequences,
    "integer sequence": _encode_integer_sequences,
    "vector": _encode_vectors,
}
_SEVERAL = ("sequence", "integer sequence", "vector")


def _single(column: Column, place: _Place) -> Column:
    if isinstance(column, np.ndarray) and column.ndim != 1:
        raise _wrong(place(0), "one value", column[0])
    return column


def _in_one(column: Column, size: int | None, place: _Place, allowed: str) -> tuple[Column, Array]:
    """The values of all rows one behind the other [V], each row cut to its last `size`; and their number a row [N]."""
    if isinstance(column, np.ndarray):
        if column.ndim == 2:
            cut = column if size is None else column[:, max(column.shape[1] - size, 0) :]
            return cut.reshape(-1), np.full(len(cut), cut.shape[1])
        column = list(column)
    rows: list[Sequence[Any]] = []
    for number, row in enumerate(column):
        if isinstance(row, np.ndarray) and row.ndim == 1:
            row = row.tolist() if row.dtype.kind in "OUSbiuf" else list(row)
        elif is_missing(row):
            row = []
        elif not isinstance(row, list | tuple):
            raise _wrong(place(number), allowed, row)
        rows.append(row if size is None else row[max(len(row) - size, 0) :])
    return list(chain.from_iterable(rows)), np.fromiter(map(len, rows), np.int64, len(rows))


def _ends(lengths: Array, width: int) -> Array:
    """A mask [N, L] of the last places of each row, as many as it has values."""
    return np.arange(width) >= width - lengths[:, None]


def _categories(column: Column, place: _Place) -> Sequence[str]:
    allowed = "a string of valid Unicode, an integer, a boolean or null"
    values: Any = column
    if isinstance(column, np.ndarray):
        if column.dtype.kind in "mM":  # some of which would become integers
            raise _wrong(place(0), allowed, column[0])
        values = [*map(str, column.tolist())] if column.dtype.kind in "iu" else column.tolist()
    try:
        "".join(values).encode()  # says at once that all are strings, and of valid Unicode
        return values
    except (TypeError, UnicodeEncodeError):
        pass
    categories = []
    for row, value in enumerate(values):
        try:
            category = "" if is_missing(value) else canonical_category(value)
            category.encode()
        except (InputError, UnicodeEncodeError):
            raise _wrong(place(row), allowed, value) from None
        categories.append(category)
    return categories


def _integers(column: Column, place: _Place) -> Array:
    """int64, -1 where a value is missing."""
    allowed = "an integer from 0 to 2^63 - 1, or null"
    if not (isinstance(column, np.ndarray) and column.dtype.kind in "iu"):
        if set(map(type, column)) == {int} and min(column) >= 0 and max(column) < 2**63:
            return np.array(column, np.int64)
        values = []
        for row, value in enumerate(column):
            if is_missing(value):
                value = _MISSING_INTEGER
            elif isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**63:
                raise _wrong(place(row), allowed, value)
            values.append(value)
        return np.array(values, np.int64)
    if column.size and (column.min() < 0 or column.max() >= 2**63):
        row = int(np.argmax((column < 0) | (column >= 2**63)))
        raise _wrong(place(row), allowed, column[row])
    return column.astype(np.int64, copy=False)


def _numbers(column: Column, place: _Place) -> Array:
    """float32, NaN where a value is missing."""
    if isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
        numbers = column.astype(np.float32, copy=False)
    else:
        floats: Any = column
        if [*map(type, column)].count(float) != len(column):
            floats = [_float(value, row, place) for row, value in enumerate(column)]
        # In half the time of numpy, which asks each value for its type and shape first.
        numbers = np.frombuffer(struct.pack(f"{len(column)}d", *floats)).astype(np.float32)
    if np.isinf(numbers).any():
        row = int(np.argmax(np.isinf(numbers)))
        raise _wrong(place(row), "a number that float32 can hold, or null", column[row])
    return numbers


def _float(value: Any, row: int, place: _Place) -> float:
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if is_missing(value):
        return math.nan
    raise _wrong(place(row), "a number or null", value)


def _wrong(place: str, allowed: str, value: Any) -> InputError:
    text = repr(value.item() if isinstance(value, np.number | np.bool_ | np.str_) else value)
    return InputError(f"{place} must be {allowed}. Received: {text if len(text) <= 80 else text[:80] + '...'}.")

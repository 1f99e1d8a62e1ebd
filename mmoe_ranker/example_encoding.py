"""Writes columns as serialized tf.train.Examples without touching a value in Python.

A serialized example is a concatenation of byte strings, so a column of examples is an element-wise concatenation of
columns of byte strings: Arrow's kernels do it. Each field becomes a column of encoded map entries (null where the
field is absent); repeated strings are encoded once; what a request says once is encoded once and taken per impression.

    Example      = 0a len(Features) Features
    Features     = MapEntry*                           one a field, in the order of the keys
    MapEntry     = 0a len  0a len(key) key  12 len(Feature) Feature
    Feature      = tag len(List) List                  tag: 0a bytes, 12 float, 1a int64
    List         = (0a len(value) value)*              bytes
                 | 0a len(packed) packed               float: 4 bytes each; int64: varints

The order of the keys makes the bytes a function of the values alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmoe_ranker.examples import Field

Columns: TypeAlias = Mapping[str, pa.Array]

_BINARY = pa.large_binary()
_NOTHING = pa.scalar(b"", _BINARY)
_LIST_TAG = {"bytes": b"\x0a", "float": b"\x12", "int64": b"\x1a"}


def encode_examples(
    fields: Sequence[Field], columns: Columns, shared: Columns | None = None, shared_row: pa.Array | None = None
) -> pa.Array:
    """Encodes one example a row.

    Args:
      fields: the layout; each field is a column of `columns` or of `shared`.
      columns: by field name, arrays of N rows: string, int64 or float32; a list of these where the field may hold more
        than one value; null where it is absent.
      shared: by field name, arrays of M rows that several examples share (the context of a request).
      shared_row: int64 [N], the row of `shared` that belongs to each example.

    Returns:
      large_binary [N]: the same bytes for the same values, whatever is shared.
    """
    runs: list[pa.Array] = []
    run: list[pa.Array] = []
    for field in sorted(fields, key=lambda field: field.name.encode()):
        if shared is not None and field.name in shared:
            run.append(_entries(field, shared[field.name]))
        else:
            runs += _taken(run, shared_row)
            run = []
            runs.append(_entries(field, columns[field.name]))
    runs += _taken(run, shared_row)
    return _delimited(b"\x0a", _joined(runs))


def _taken(run: Sequence[pa.Array], rows: pa.Array | None) -> list[pa.Array]:
    # Entries of shared fields that follow one another in key order are joined before they are copied per example.
    return [_joined(run).take(rows)] if run else []


def _entries(field: Field, values: pa.Array) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if field.wire == "float" and field.length is not None:
        return _float_entries(field, field.length, values)
    if field.length == 1:
        # Encode each distinct value once: ids, countries, positions and timestamps repeat.
        encoded = values if isinstance(values, pa.DictionaryArray) else values.dictionary_encode()
        return _entry(field, _list_of_one(field, encoded.dictionary)).take(encoded.indices)
    return _entry(field, _list_of_many(field, values))


def _float_entries(field: Field, length: int, values: pa.Array) -> pa.Array:
    """Entries that are all of one size: the same bytes up to the numbers themselves."""
    present = values.drop_null()
    flat = present if pa.types.is_floating(values.type) else present.flatten()
    numbers = flat.cast(pa.float32()).to_numpy(zero_copy_only=False).astype("<f4", copy=False).reshape(-1, length)
    packed = pa.array([bytes(4 * length)], _BINARY)
    head = _entry(field, _delimited(b"\x0a", packed))[0].as_py()[: -4 * length]
    rows = np.empty((len(present), len(head) + 4 * length), np.uint8)
    rows[:, : len(head)] = np.frombuffer(head, np.uint8)
    rows[:, len(head) :] = numbers.view(np.uint8)
    used = np.cumsum(values.is_valid().to_numpy(zero_copy_only=False)) * rows.shape[1]
    return _from_buffers(np.concatenate([[0], used]), pa.py_buffer(rows), values)


def _entry(field: Field, encoded_list: pa.Array) -> pa.Array:
    key = field.name.encode()
    feature = _delimited(_LIST_TAG[field.wire], encoded_list)
    return _delimited(b"\x0a", _delimited(b"\x0a" + _varint(len(key)) + key + b"\x12", feature))


def _list_of_one(field: Field, values: pa.Array) -> pa.Array:
    if field.wire == "bytes":
        return _delimited(b"\x0a", values.cast(_BINARY))
    return _delimited(b"\x0a", _varints(values.cast(pa.int64())))


def _list_of_many(field: Field, values: pa.Array) -> pa.Array:
    values = values.cast(pa.large_list(values.type.value_type))
    flat = values.values
    elements = _delimited(b"\x0a", flat.cast(_BINARY)) if field.wire == "bytes" else _varints(flat.cast(pa.int64()))
    # The elements of a list follow one another in memory, so that their concatenation is a slice of the same buffer.
    starts = _offsets(elements)[_list_offsets(values)]
    joined = _from_buffers(starts, elements.buffers()[2], values)
    if field.wire == "bytes":
        return joined
    empty = pc.equal(pc.binary_length(joined), 0)
    return pc.if_else(empty, _NOTHING, _delimited(b"\x0a", joined))


def _delimited(prefix: bytes, payload: pa.Array) -> pa.Array:
    """Each payload behind `prefix` and its own length; null stays null."""
    lengths = pc.binary_length(payload).dictionary_encode()
    headers = pa.array([prefix + _varint(length) for length in lengths.dictionary.to_pylist()], _BINARY)
    if not len(headers):
        return payload
    return pc.binary_join_element_wise(headers.take(lengths.indices), payload, _NOTHING)


def _joined(columns: Sequence[pa.Array]) -> pa.Array:
    # Filled rather than skipped: the kernel loses rows where all columns are null throughout (seen with pyarrow 25).
    filled = [column.fill_null(b"") if column.null_count else column for column in columns]
    return filled[0] if len(filled) == 1 else pc.binary_join_element_wise(*filled, _NOTHING)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append((value & 0x7F) | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _varints(values: pa.Array) -> pa.Array:
    """int64 to varints; a negative number takes 10 bytes, as in two's complement of 64 bits."""
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)
    places = np.arange(10, dtype=np.uint64) * np.uint64(7)
    groups = numbers[:, None] >> places  # [N, 10]: what is left from each group of 7 bits on
    used = np.maximum((groups != 0).sum(axis=1), 1)
    digits = (groups & np.uint64(0x7F)).astype(np.uint8)
    column = np.arange(10)
    digits[column < used[:, None] - 1] |= 0x80
    data = digits[column < used[:, None]]
    return _from_buffers(np.concatenate([[0], np.cumsum(used)]), pa.py_buffer(data), values)


def _from_buffers(offsets: np.ndarray, data: pa.Buffer, like: pa.Array) -> pa.Array:
    """A large_binary array over `data`, null where `like` is."""
    bounds = pa.py_buffer(np.ascontiguousarray(offsets, dtype=np.int64))
    array = pa.Array.from_buffers(_BINARY, len(like), [None, bounds, data])
    return pc.if_else(pc.is_valid(like), array, pa.scalar(None, _BINARY)) if like.null_count else array


def _offsets(array: pa.Array) -> np.ndarray:
    bounds = np.frombuffer(array.buffers()[1], dtype=np.int64)
    return bounds[array.offset : array.offset + len(array) + 1]


def _list_offsets(array: pa.Array) -> np.ndarray:
    bounds = np.frombuffer(array.buffers()[1], dtype=np.int64)
    return bounds[array.offset : array.offset + len(array) + 1]

"""numpy <-> TensorProto, both encodings, as `tensorflow::Tensor` reads and writes them.

A TensorProto holds its elements either as raw little-endian bytes in `tensor_content`, which numpy writes and reads
in one copy, or one by one in a typed field (`float_val`, `string_val`, ...). Clients send the first; TF Serving answers
with the second unless told otherwise. Reading follows `Tensor::FromProto`: a typed field that is shorter than the shape
repeats its last value (none at all: zeros), surplus values are ignored, but a `tensor_content` of the wrong length, a
negative dimension or a dtype that is not set cannot be read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.protos import DT_STRING, TensorProto

Array = npt.NDArray[Any]


class TensorFormatError(ValueError):
    """A TensorProto that holds no tensor, or a dtype without a numpy counterpart."""


@dataclass(frozen=True)
class _Number:
    """How one DataType lies in numpy, and in its typed field: `storage` is what one entry of the field holds."""

    name: str
    dtype: np.dtype[Any]
    field: str
    storage: np.dtype[Any]

    @property
    def width(self) -> int:
        """Entries an element: 2 for complex numbers, else 1."""
        return self.dtype.itemsize // self.storage.itemsize


def _number(name: str, dtype: str, field: str, storage: str | None = None) -> _Number:
    return _Number(name, np.dtype(dtype), field, np.dtype(storage or dtype))


# DataType number (tensorflow/core/framework/types.proto) to its layout. Complex values lie as real, imaginary in turn;
# half-precision values as the integer of their 16 bits.
NUMBERS: dict[int, _Number] = {
    1: _number("float", "<f4", "float_val"),
    2: _number("double", "<f8", "double_val"),
    3: _number("int32", "<i4", "int_val"),
    4: _number("uint8", "u1", "int_val"),
    5: _number("int16", "<i2", "int_val"),
    6: _number("int8", "i1", "int_val"),
    8: _number("complex64", "<c8", "scomplex_val", "<f4"),
    9: _number("int64", "<i8", "int64_val"),
    10: _number("bool", "?", "bool_val"),
    17: _number("uint16", "<u2", "int_val"),
    18: _number("complex128", "<c16", "dcomplex_val", "<f8"),
    19: _number("half", "<f2", "half_val", "<u2"),
    22: _number("uint32", "<u4", "uint32_val"),
    23: _number("uint64", "<u8", "uint64_val"),
}
_BFLOAT16 = 14
_BFLOAT16_BITS = _number("bfloat16", "<u2", "half_val")
_DTYPE_NUMBERS = {number.dtype: key for key, number in NUMBERS.items()}
# What protobuf itself stores in a typed field, where that is wider than the tensor's element.
_FIELD_DTYPES = {"int_val": np.dtype("<i4"), "half_val": np.dtype("<i4")}
# Fields that lie in a message as numpy has them, behind the field's number and wire type 2: no Python object a value.
_PACKED_TAGS = {"float_val": b"\x2a", "double_val": b"\x32", "scomplex_val": b"\x4a", "dcomplex_val": b"\x62"}


def encode_numbers(array: Array) -> Any:
    """Encodes a numeric array as a TensorProto with `tensor_content`.

    Args:
        array: [...], any numeric or bool dtype of `NUMBERS`.

    Raises:
        TensorFormatError: the dtype has no TensorFlow counterpart.
    """
    return write_numbers(TensorProto(), array)


def encode_strings(values: Sequence[bytes], shape: Sequence[int]) -> Any:
    """Encodes byte strings, in row-major order, as a TensorProto of `shape` with `string_val`."""
    return write_strings(TensorProto(), values, shape)


def write_numbers(proto: Any, array: Array) -> Any:
    """Does `encode_numbers` in an empty TensorProto that is there already, such as one inside a request."""
    dtype = array.dtype.newbyteorder("<")
    number = _DTYPE_NUMBERS.get(dtype)
    if number is None:
        raise TensorFormatError(f"a numpy array of dtype {array.dtype} has no TensorFlow counterpart")
    proto.dtype = number
    proto.tensor_content = array.astype(dtype, copy=False).tobytes()
    return _with_shape(proto, array.shape)


def write_strings(proto: Any, values: Sequence[bytes] | Sequence[str], shape: Sequence[int]) -> Any:
    """Does `encode_strings` in an empty TensorProto, or with Unicode in a TextTensorProto, that is there already."""
    proto.dtype = DT_STRING
    proto.string_val.extend(values)
    return _with_shape(proto, shape)


def encode_as_field(dtype: int, shape: Sequence[int], elements: Any) -> Any:
    """Encodes elements in the typed field of their dtype, as `Tensor::AsProtoField` does and TF Serving answers.

    Args:
        dtype: DataType number.
        shape: The tensor's dimensions.
        elements: A contiguous numpy array of that many elements, or for DT_STRING a sequence of bytes.
    """
    if dtype == DT_STRING:
        return encode_strings(elements, shape)
    number = _layout(dtype)
    proto = _with_shape(TensorProto(dtype=dtype), shape)
    values = elements.reshape(-1).view(number.storage)
    if number.field in _PACKED_TAGS:
        content = values.tobytes()
        proto.MergeFromString(_PACKED_TAGS[number.field] + _varint(len(content)) + content)
    else:
        getattr(proto, number.field).extend(values.tolist())
    return proto


def decode(proto: Any) -> Array:
    """Decodes a TensorProto in either encoding.

    Args:
        proto: A TensorProto message, ours or TensorFlow's.

    Returns:
        Array of the tensor's shape; strings as objects of type bytes, bfloat16 as the same values in float32.

    Raises:
        TensorFormatError: there is no dtype, shape or matching content in it.
    """
    shape = _shape(proto)
    size = math.prod(shape)
    if proto.dtype == DT_STRING:
        strings = np.empty(size, dtype=object)
        strings[:] = _strings(proto, size)
        return strings.reshape(shape)
    if proto.dtype == _BFLOAT16:
        # numpy has no such type: its 16 bits are the upper half of a float32's.
        return (_elements(proto, _BFLOAT16_BITS, size).astype("<u4") << 16).view("<f4").reshape(shape)
    return _elements(proto, _layout(proto.dtype), size).reshape(shape)


def _elements(proto: Any, number: _Number, size: int) -> Array:
    if proto.tensor_content:
        if len(proto.tensor_content) != size * number.dtype.itemsize:
            raise TensorFormatError(
                f"`tensor_content` holds {len(proto.tensor_content)} bytes where shape {_shape(proto)} of "
                f"{number.name} takes {size * number.dtype.itemsize}"
            )
        return np.frombuffer(proto.tensor_content, number.dtype)
    width = number.width
    entries = np.array(
        getattr(proto, number.field)[: size * width], _FIELD_DTYPES.get(number.field, number.storage)
    ).astype(number.storage, copy=False)
    if len(entries) == size and number.storage == number.dtype:
        return entries
    values = entries[: len(entries) // width * width].view(number.dtype)
    return _filled(values, size)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _layout(dtype: int) -> _Number:
    number = NUMBERS.get(dtype)
    if number is None:
        raise TensorFormatError(f"DataType {dtype} is not a string or number type that can be sent")
    return number


def _with_shape(proto: Any, shape: Sequence[int]) -> Any:
    dimensions = proto.tensor_shape
    # A scalar's shape is present and empty, as Tensor::AsProtoField writes it.
    dimensions.SetInParent()
    for size in shape:
        dimensions.dim.add(size=size)
    return proto


def _shape(proto: Any) -> tuple[int, ...]:
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape):
        raise TensorFormatError(f"a tensor's dimensions are 0 or more, these are {shape}")
    if len(shape) > 254 or math.prod(shape) >= 2**63:
        raise TensorFormatError(f"a tensor has at most 254 dimensions and 2^63 - 1 elements, this one is {shape}")
    return shape


def _filled(values: Array, size: int) -> Array:
    if len(values) == size:
        return values
    if len(values) == 0:
        return np.zeros(size, values.dtype)
    return np.concatenate([values, np.full(size - len(values), values[-1], values.dtype)])


def _strings(proto: Any, size: int) -> list[bytes]:
    if proto.tensor_content:
        return _split_strings(proto.tensor_content, size)
    values = list(proto.string_val[:size])
    return values + [values[-1] if values else b""] * (size - len(values))


def _split_strings(content: bytes, size: int) -> list[bytes]:
    """Splits `tensor_content` of strings: all lengths as varints, then all bytes (`port::EncodeStringList`)."""
    lengths, position = [], 0
    for _ in range(size):
        length, shift = 0, 0
        while True:
            if position == len(content):
                raise TensorFormatError("`tensor_content` of strings ends inside the lengths")
            byte = content[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if position + sum(lengths) != len(content):
        raise TensorFormatError(f"`tensor_content` holds {len(content)} bytes where its lengths add up to another size")
    strings = []
    for length in lengths:
        strings.append(content[position : position + length])
        position += length
    return strings

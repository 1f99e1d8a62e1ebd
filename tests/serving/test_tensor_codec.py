"""The client's tensor codec against TensorFlow's own encoder and decoder."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.framework import tensor_pb2

from serving.protos import TensorProto
from serving.tensor_codec import NUMBERS, TensorFormatError, decode, encode_as_field, encode_numbers, encode_strings

DTYPES = [number.dtype for number in NUMBERS.values()]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
NUMBER_ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))
STRING_ARRAYS = hnp.arrays(object, SHAPES, elements=st.binary(max_size=200), fill=st.nothing())


def theirs(proto) -> tensor_pb2.TensorProto:
    return tensor_pb2.TensorProto.FromString(proto.SerializeToString())


def ours(proto):
    return TensorProto.FromString(proto.SerializeToString())


def assert_same(left: np.ndarray, right: np.ndarray) -> None:
    assert (left.dtype, left.shape) == (right.dtype, right.shape)
    np.testing.assert_array_equal(left, right)


@given(NUMBER_ARRAYS)
@settings(deadline=None)
def test_tensorflow_reads_what_we_encode(array):
    assert_same(tf.make_ndarray(theirs(encode_numbers(array))), array)
    dtype = tf.as_dtype(array.dtype).as_datatype_enum
    assert_same(tf.make_ndarray(theirs(encode_as_field(dtype, array.shape, array))), array)


@given(NUMBER_ARRAYS)
@settings(deadline=None)
def test_we_read_what_tensorflow_encodes(array):
    # make_tensor_proto takes the typed field for one element and tensor_content for more
    assert_same(decode(ours(tf.make_tensor_proto(array))), array)


@given(NUMBER_ARRAYS)
@settings(deadline=None)
def test_typed_fields_are_as_tensorflow_fills_them(array):
    for value in array.reshape(-1)[:3]:
        mine = theirs(encode_as_field(tf.as_dtype(array.dtype).as_datatype_enum, (), np.array(value)))
        assert repr(mine) == repr(tf.make_tensor_proto(value))  # repr, because NaN is not equal to itself


@given(hnp.arrays(np.float32, SHAPES))
@settings(deadline=None)
def test_bfloat16_is_read_as_float32(array):
    tensor = tf.cast(array, tf.bfloat16)
    expected = tf.cast(tensor, tf.float32).numpy()
    by_content = TensorProto.FromString(tf.io.serialize_tensor(tensor).numpy())
    assert_same(decode(by_content), expected)
    by_field = TensorProto(dtype=14, tensor_shape=by_content.tensor_shape)
    by_field.half_val.extend(np.frombuffer(by_content.tensor_content, "<u2").tolist() if array.size else [])
    if not by_content.tensor_content:  # as the runtime writes few elements
        by_field.half_val.extend(by_content.half_val)
    assert_same(decode(by_field), expected)


@given(STRING_ARRAYS)
@settings(deadline=None)
def test_strings_round_trip(array):
    flat = [bytes(value) for value in array.reshape(-1)]
    encoded = encode_strings(flat, array.shape)
    if array.size:
        assert theirs(encoded) == tf.make_tensor_proto(array, tf.string)
    assert_same(decode(encoded), array)


@given(STRING_ARRAYS)
@settings(deadline=None)
def test_strings_in_tensor_content(array):
    # TF Serving with --enable_serialization_as_tensor_content; the C++ side's own encoder writes the bytes
    content = tf.io.serialize_tensor(tf.constant(array, tf.string)).numpy()
    assert_same(decode(TensorProto.FromString(content)), array)


def test_content_of_strings_by_hand():
    proto = TensorProto(dtype=7, tensor_content=b"\x02\x00\xac\x02" + b"ab" + b"x" * 300)
    proto.tensor_shape.dim.add(size=3)
    assert decode(proto).tolist() == [b"ab", b"", b"x" * 300]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool", "float16", "uint64", "complex64"])
@pytest.mark.parametrize("given_values", [0, 1, 2, 5])
def test_short_and_long_fields_are_read_as_the_runtime_reads_them(dtype, given_values):
    proto = encode_as_field(tf.as_dtype(dtype).as_datatype_enum, (given_values,), np.arange(given_values).astype(dtype))
    proto.tensor_shape.dim[0].size = 4
    expected = [*range(given_values)][:4] + [max(given_values - 1, 0)] * (4 - given_values)
    assert_same(decode(proto), np.array(expected).astype(dtype))
    # ParseTensor is Tensor::FromProto
    assert_same(tf.io.parse_tensor(proto.SerializeToString(), dtype).numpy(), decode(proto))


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({}, [1], "DataType 0 is not a string or number"),
        ({"dtype": 20}, [1], "DataType 20 is not a string or number"),
        ({"dtype": 1, "float_val": [1.0]}, [-1], r"dimensions are 0 or more, these are \(-1,\)"),
        ({"dtype": 1, "tensor_content": b"123"}, [1], "holds 3 bytes where shape"),
        ({"dtype": 7, "tensor_content": b"\x80"}, [1], "ends inside the lengths"),
        ({"dtype": 7, "tensor_content": b"\x05ab"}, [1], "its lengths add up to another size"),
        ({"dtype": 1}, [2**40, 2**40], "at most 254 dimensions"),
    ],
)
def test_what_holds_no_tensor(fields, shape, message):
    proto = TensorProto(**fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    with pytest.raises(TensorFormatError, match=message):
        decode(proto)


def test_array_without_a_counterpart():
    with pytest.raises(TensorFormatError, match="dtype datetime64"):
        encode_numbers(np.array(["2020-01-01"], dtype="datetime64[D]"))


def test_big_endian_arrays_are_sent_in_little_endian():
    assert decode(encode_numbers(np.array([1, 2], dtype=">i4"))).tolist() == [1, 2]

"""Framing and checksums against TensorFlow's reader and a checksum computed bit by bit."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import tfrecords
from pipelines.tfrecords import frame, read_tfrecord_gzip, tfrecord_gzip


def bit_by_bit(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def by_hand(records: list[bytes]) -> bytes:
    def checked(data: bytes) -> bytes:
        checksum = bit_by_bit(data)
        masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) % 2**32
        return data + masked.to_bytes(4, "little")

    return b"".join(checked(len(record).to_bytes(8, "little")) + checked(record) for record in records)


def test_the_double_knows_the_standards_check_values():
    # RFC 3720, appendix B.4, and the check value of the CRC catalogue.
    known = {
        b"123456789": 0xE3069283,
        bytes(32): 0x8A9136AA,
        b"\xff" * 32: 0x62A8AB43,
        bytes(range(32)): 0x46DD794E,
        b"": 0,
    }
    assert [bit_by_bit(data) for data in known] == list(known.values())


@given(st.lists(st.binary(max_size=60), max_size=30))
@settings(deadline=None)
def test_framing_is_as_by_hand(records):
    assert bytes(frame(pa.array(records, pa.binary()))) == by_hand(records)


def test_more_records_than_are_held_at_a_time():
    rng = np.random.default_rng(1)
    records = [rng.bytes(int(length)) for length in rng.integers(0, 9, size=9000)]
    assert bytes(frame(pa.array(records, pa.large_binary()))) == by_hand(records)


@given(st.lists(st.binary(max_size=300), max_size=20))
@settings(max_examples=30, deadline=None)
def test_tensorflow_reads_it(tmp_path_factory, records):
    path = tmp_path_factory.getbasetemp() / "records.tfrecord.gz"
    array = pa.array(records, pa.binary())
    path.write_bytes(tfrecord_gzip([array[:3], array[3:]]))
    read = [record.numpy() for record in tf.data.TFRecordDataset(str(path), compression_type="GZIP")]
    assert read == records


def test_equal_to_tensorflows_writer(tmp_path: Path):
    records = [b"", b"a", b"some bytes" * 100]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    assert bytes(frame(pa.array(records, pa.binary()))) == (tmp_path / "theirs").read_bytes()
    assert bytes(frame(pa.array([b"x", *records, b"y"], pa.binary())[1:-1])) == (tmp_path / "theirs").read_bytes()


def test_bytes_do_not_depend_on_time_or_name():
    content = tfrecord_gzip([pa.array([b"x"])])
    assert content[4:8] == bytes(4)
    assert content == tfrecord_gzip([pa.array([], pa.binary()), pa.array([b"x"])])
    assert gzip.decompress(content) == bytes(frame(pa.array([b"x"])))


def read_back(content: bytes, piece: int) -> list[bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfrecords, "_PIECE", piece)
        return [record for array in read_tfrecord_gzip(io.BytesIO(content)) for record in array.to_pylist()]


@given(st.lists(st.binary(max_size=100), max_size=20), st.sampled_from([1, 13, 64, 1 << 20]))
@settings(max_examples=50, deadline=None)
def test_reading_gives_back_what_was_written(records, piece):
    assert read_back(tfrecord_gzip([pa.array(records, pa.binary())]), piece) == records


def test_files_that_follow_one_another_are_one():
    one, other = (tfrecord_gzip([pa.array([record])]) for record in (b"a", b"b" * 3000))
    assert read_back(one + other, 1000) == [b"a", b"b" * 3000]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_broken_byte_or_a_cut_is_noticed(data):
    framed = bytes(frame(pa.array([b"first", b"", b"third" * 20], pa.binary())))
    place = data.draw(st.integers(0, len(framed) - 1))
    flipped = bytearray(framed)
    flipped[place] ^= data.draw(st.integers(1, 255))
    # A cut at the end of a record leaves a file like any other.
    ends = {0, 21, 37}
    cut = data.draw(st.integers(0, len(framed) - 1).filter(lambda cut: cut not in ends))
    for broken in (gzip.compress(bytes(flipped)), gzip.compress(framed[:cut]), gzip.compress(framed)[:-1], framed):
        with pytest.raises(ValueError, match=r"checksum|cut short|no whole gzip"):
            read_back(broken, 1 << 20)

"""Columns of records to the bytes of a gzipped TFRecord file, without touching a record's content in Python, and back.

A record stands in the file as `length (8 bytes) | masked crc32c of length | data | masked crc32c of data`, all
little-endian, with masked(c) = rotate_right(c, 15) + 0xa282ead8 (tensorflow/core/lib/hash/crc32c.h).
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google_crc32c import value as crc32c
from isal import isal_zlib

_BINARY = pa.large_binary()
_NOTHING = pa.scalar(b"", _BINARY)
_HEADER = struct.Struct("<QI")  # A record's length, and its checksum.
_FOOTER = struct.Struct("<I")
_ROWS = 4096  # Records that are held as bytes at a time: few enough to stay in the cache.
# Of ISA-L's 0 to 3: as small as zlib's level 1 in a fifth of the time; level 3 takes three times as long for 1 % less.
_COMPRESSION = 2
_GZIP = 31  # Window of 2^15 bytes, and gzip's header, in which neither a name nor the time of writing stands.
_PIECE = 1 << 20  # Bytes that are decompressed at a time.


def tfrecord_gzip(records: Iterable[pa.Array]) -> bytes:
    """The bytes of a `.tfrecord.gz` file that holds these records, a function of the records alone.

    Args:
      records: arrays of binary or large_binary without nulls.
    """
    compressor = isal_zlib.compressobj(_COMPRESSION, wbits=_GZIP)
    pieces = [compressor.compress(frame(array)) for array in records]
    return b"".join([*pieces, compressor.flush()])


def frame(records: pa.Array) -> pa.Buffer | bytes:
    """The records in TFRecord framing, one behind the other."""
    if not len(records):
        return b""
    records = records.cast(_BINARY)
    lengths, place = np.unique(pc.binary_length(records).to_numpy(), return_inverse=True)
    stored = [length.tobytes() for length in lengths.astype("<u8")]
    headers = pa.array([each + _masked([each]).tobytes() for each in stored], _BINARY)
    pieces = (records.slice(start, _ROWS).to_pylist() for start in range(0, len(records), _ROWS))
    checksums = pa.py_buffer(np.concatenate([_masked(piece) for piece in pieces]))
    footers = pa.Array.from_buffers(pa.binary(4), len(records), [None, checksums]).cast(_BINARY)
    framed = pc.binary_join_element_wise(headers.take(pa.array(place)), records, footers, _NOTHING)
    bounds = np.frombuffer(framed.buffers()[1], np.int64)[framed.offset : framed.offset + len(framed) + 1]
    return framed.buffers()[2].slice(int(bounds[0]), int(bounds[-1] - bounds[0]))


def read_tfrecord_gzip(file: BinaryIO) -> Iterator[pa.Array]:
    """The records of a `.tfrecord.gz` file in its order, piece by piece: arrays of large_binary, of any sizes.

    Raises:
      ValueError: the file is cut short or broken.
    """
    held = b""
    with gzip.GzipFile(fileobj=file) as decompressed:
        try:
            while piece := decompressed.read(_PIECE):
                held += piece
                records, used = unframe(held)
                held = held[used:]
                yield records
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"no whole gzip: {error}") from None
    if held:
        raise ValueError("the last record is cut short")


def unframe(data: bytes) -> tuple[pa.Array, int]:
    """The whole records at the head of `data`, large_binary [N], and the number of bytes that they take there.

    Raises:
      ValueError: a checksum does not fit.
    """
    lengths, length_checksums, records, checksums, place = [], [], [], [], 0
    while place + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, place)
        # The length of a record that is not whole yet is checked as well: a broken one would have all the rest read.
        lengths.append(data[place : place + 8])
        length_checksums.append(checksum)
        end = place + _HEADER.size + length + _FOOTER.size
        if end > len(data):
            break
        records.append(data[place + _HEADER.size : end - _FOOTER.size])
        checksums.append(_FOOTER.unpack_from(data, end - _FOOTER.size)[0])
        place = end
    stored = np.array([*length_checksums, *checksums], np.uint32)
    if (stored != _masked([*lengths, *records])).any():
        raise ValueError("a checksum does not fit its record")
    return pa.array(records, _BINARY), place


def _masked(records: Sequence[bytes]) -> np.ndarray:
    """The masked checksum of each, little-endian uint32 [N]."""
    checksums = np.fromiter(map(crc32c, records), np.uint32, len(records))
    rotated = (checksums >> np.uint32(15)) | (checksums << np.uint32(17))
    return (rotated + np.uint32(0xA282EAD8)).astype("<u4")

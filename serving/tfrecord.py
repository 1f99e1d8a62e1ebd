"""TFRecord files, read and written without TensorFlow: a length, its checksum, the record, its checksum.

The checksums are CRC-32C (polynomial 0x1EDC6F41, reflected), rotated and offset so that a checksum of data that holds
checksums stays one. Messages are those of TensorFlow's RecordReader.
"""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator
from typing import BinaryIO

import grpc

from serving.status import StatusError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


def read_records(path: pathlib.Path) -> Iterator[bytes]:
    """Yields the records of an uncompressed TFRecord file.

    Raises:
        StatusError: DATA_LOSS where the file is cut off or a checksum does not match.
    """
    with path.open("rb") as file:
        offset = 0
        while header := file.read(_HEADER.size):
            if len(header) < _HEADER.size:
                raise StatusError(grpc.StatusCode.DATA_LOSS, f"truncated record at {offset}")
            length, length_checksum = _HEADER.unpack(header)
            if masked_crc32c(header[:8]) != length_checksum:
                raise StatusError(grpc.StatusCode.DATA_LOSS, f"corrupted record at {offset}")
            record, footer = file.read(length), file.read(_FOOTER.size)
            if len(footer) < _FOOTER.size:
                raise StatusError(grpc.StatusCode.DATA_LOSS, f"truncated record at {offset}")
            if masked_crc32c(record) != _FOOTER.unpack(footer)[0]:
                raise StatusError(grpc.StatusCode.DATA_LOSS, f"corrupted record at {offset}")
            yield record
            offset += _HEADER.size + length + _FOOTER.size


def append_record(file: BinaryIO, record: bytes) -> None:
    """Appends one record to an uncompressed TFRecord file."""
    length = struct.pack("<Q", len(record))
    file.write(length + struct.pack("<I", masked_crc32c(length)) + record + _FOOTER.pack(masked_crc32c(record)))


def masked_crc32c(data: bytes) -> int:
    """CRC-32C of `data`, masked: `rotate_right(crc, 15) + 0xa282ead8` modulo 2^32."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _table() -> tuple[int, ...]:
    entries = []
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (0x82F63B78 if entry & 1 else 0)
        entries.append(entry)
    return tuple(entries)


_TABLE = _table()

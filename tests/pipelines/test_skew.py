"""Logs of lopsided shape cost about what an even log of as many impressions costs: nothing grows with the square."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmoe_ranker.config import Config
from pipelines import log_blocks
from pipelines.impressions import run
from pipelines.log_blocks import list_blocks, read_line_chunks
from tests.pipelines.logs import event, request, write_json

IMPRESSIONS = 10_000
RATIO = 4.0  # Generous: what grows with the square would be hundreds.


def records_of(shape: str) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(4)
    sizes = {"all in one request": [IMPRESSIONS], "one a request": [1]}
    first = sizes.get(shape, [10])
    each = 1 if shape in ("one a request", "one item") else 10
    numbers = [*first, *[each] * ((IMPRESSIONS - first[0]) // each)]
    for number, size in enumerate(numbers):
        items = range(size) if size > 10 else rng.choice(5000, size, replace=False)
        one = request(number, ["v0"] if shape == "one item" else [f"v{item}" for item in items])
        for impression in one["impressions"]:
            impression["position"] = 1 + impression["position"] % 20
            impression["item"]["duration"] = 3.0
        if shape == "one user":
            one["context"]["user_id"] = "u0"
        if shape == "one time":
            one["timestamp"] = 1_651_017_600.5
        yield one


def seconds_of(config: Config, folder: Path, shape: str) -> float:
    records = list(records_of(shape))
    shown = [(number, one["impressions"]) for number, one in enumerate(records)]
    said = [event(number, each["item"]["video_id"], "click", delay=1e7) for number, many in shown for each in many[::4]]
    paths = write_json(folder / f"{shape}.jsonl", records), write_json(folder / f"{shape}-f.jsonl", said)
    start = time.process_time()
    summary = run(config, *paths, str(folder / shape))
    seconds = time.process_time() - start
    assert summary["impressions"]["examples"] == sum(len(many) for _, many in shown)
    assert summary["feedback"]["joined"] == len(said)
    return seconds


@pytest.mark.slow
def test_lopsided_logs_cost_what_even_ones_do(config: Config, tmp_path: Path):
    seconds_of(config, tmp_path, "even")  # Whatever is done once in a process.
    even = seconds_of(config, tmp_path, "even")
    shapes = ("all in one request", "one a request", "one user", "one item", "one time")
    ratios = {shape: seconds_of(config, tmp_path, shape) / even for shape in shapes}
    assert max(ratios.values()) < RATIO, ratios


class Counted:
    """A file that counts the bytes that are read of it."""

    def __init__(self, file: Any, read: list[int]):
        self._file, self._read = file, read

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek(self, place: int) -> None:
        self._file.seek(place)

    def read(self, size: int = -1) -> bytes:
        return self._counted(self._file.read(size))

    def readline(self, size: int = -1) -> bytes:
        return self._counted(self._file.readline(size))

    def _counted(self, data: bytes) -> bytes:
        self._read.append(len(data))
        return data


@pytest.mark.parametrize("place", [0, 3, 40])
def test_a_line_of_many_blocks_is_read_at_most_twice(tmp_path: Path, monkeypatch, place: int):
    lines = [b'{"a": %d}' % number for number in range(40)]
    lines.insert(place, b"x" * 1_000_000)
    data = b"\n".join(lines)
    (tmp_path / "i.jsonl").write_bytes(data)
    monkeypatch.setattr(log_blocks, "BLOCK_BYTES", 10_000)
    blocks, _ = list_blocks("impressions", str(tmp_path / "i.jsonl"))
    assert len(blocks) > 100
    read: list[int] = []
    real = log_blocks.FileSystems.open
    monkeypatch.setattr(log_blocks.FileSystems, "open", lambda *a, **k: Counted(real(*a, **k), read))
    chunks = [chunk for block in blocks for _, chunk in read_line_chunks(block)]
    assert b"".join(chunks) == data
    assert sum(read) <= 2 * len(data) + len(blocks)


def test_a_gzip_file_that_inflates_a_thousandfold_comes_in_pieces(tmp_path: Path):
    blanks = (b" " * 99 + b"\n") * 300_000
    (tmp_path / "i.jsonl.gz").write_bytes(gzip.compress(blanks))
    assert (tmp_path / "i.jsonl.gz").stat().st_size < len(blanks) // 200
    [block], _ = list_blocks("impressions", str(tmp_path / "i.jsonl.gz"))
    chunks = [data for _, data in read_line_chunks(block)]
    assert b"".join(chunks) == blanks
    assert max(map(len, chunks)) <= log_blocks.BLOCK_BYTES + (1 << 20)


def test_a_field_of_mixed_types_that_nobody_reads_leaves_the_fast_path(config: Config, tmp_path: Path, monkeypatch):
    records = list(records_of("even"))[:300]
    for number, one in enumerate(records):
        one["debug"] = (1, "x", {"of": [2]}, [3], None)[number % 5]
        one["impressions"][0]["item"]["debug"] = (1.5, "y")[number % 2]
    slowly: list[Any] = []
    real = json.loads
    monkeypatch.setattr("pipelines.json_lines.json.loads", lambda *a, **k: slowly.append(a) or real(*a, **k))
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", [])
    summary = run(config, *paths, str(tmp_path / "out"))
    assert summary["impressions"]["examples"] == sum(len(one["impressions"]) for one in records)
    # The few lines that tell the types.
    assert len(slowly) <= 64

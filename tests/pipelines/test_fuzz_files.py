"""Files as other systems write them: line ends, byte order marks, nothing at all, times of several kinds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmoe_ranker.config import Config
from pipelines.impressions import run
from tests.pipelines.logs import random_logs, write_flat_impressions, write_json
from tests.pipelines.reading import content_of

BOM = b"\xef\xbb\xbf"


@pytest.fixture
def lines() -> list[bytes]:
    return [json.dumps(record).encode() for record in random_logs()[0]]


def test_line_ends_marks_and_empty_files_change_no_byte(
    config: Config, tmp_path: Path, lines: list[bytes], monkeypatch
):
    monkeypatch.setattr("pipelines.log_blocks.BLOCK_BYTES", 9000)
    feedback = write_json(tmp_path / "f.jsonl", random_logs()[1])
    whole = b"\n".join(lines)
    forms: dict[str, list[tuple[str, bytes]]] = {
        "plain": [("i.jsonl", whole + b"\n")],
        "no newline at the end": [("i.json", whole)],
        "carriage returns": [("i.jsonl", b"\r\n".join(lines) + b"\r\n")],
        "a mark at the start": [("i.jsonl", BOM + whole)],
        "a mark at the start of each of two": [
            ("i0.jsonl", BOM + b"\r\n".join(lines[:9])),
            ("i1.jsonl.gz", gzip.compress(BOM + b"\n".join(lines[9:]))),
        ],
        "blanks around": [
            ("i.jsonl", b"\n\n \r\n" + b"\n\t\n           \n".join(b"  " + line + b" " for line in lines))
        ],
        "empty files beside": [
            ("i0.jsonl", b""),
            ("i1.jsonl", b"\n\r\n\n"),
            ("i2.jsonl.gz", gzip.compress(b"")),
            ("i3.jsonl.gz", b""),
            ("i4.json", whole),
            ("i5.jsonl.gz", gzip.compress(b" \n")),
        ],
        "a member a line, zeros behind": [
            ("i.jsonl.gz", b"".join(gzip.compress(line + b"\n") for line in lines) + b"\0" * 99)
        ],
    }
    contents = {}
    for number, (name, files) in enumerate(forms.items()):
        (tmp_path / f"{number}").mkdir()
        for file, data in files:
            (tmp_path / f"{number}" / file).write_bytes(data)
        summary = run(config, str(tmp_path / f"{number}/i*"), feedback, str(tmp_path / f"out{number}"))
        assert (summary["impressions"]["records"], summary["impressions"]["dead_letters"]) == (len(lines), 0), name
        contents[name] = content_of(tmp_path / f"out{number}")
    for name in forms:
        assert contents[name] == contents["plain"], name


def test_empty_tables_beside_full_ones(config: Config, tmp_path: Path):
    records, events = random_logs()
    full = pq.read_table(write_flat_impressions(tmp_path / "i1.parquet", records))
    feedback = write_json(tmp_path / "f.jsonl", events)
    run(config, str(tmp_path / "i1.parquet"), feedback, str(tmp_path / "alone"))
    pq.write_table(full.slice(0, 0), tmp_path / "i0.parquet")
    pq.write_table(pa.table({"other": [1, 2]}).slice(0, 0), tmp_path / "i2.parquet")
    run(config, str(tmp_path / "i?.parquet"), feedback, str(tmp_path / "beside"))
    assert content_of(tmp_path / "beside") == content_of(tmp_path / "alone")


def test_times_of_several_kinds(config: Config, tmp_path: Path):
    records, _ = random_logs()
    kinds = [int, float, str, lambda seconds: int(seconds * 1000), lambda seconds: f"{seconds:.0f}", lambda _: True]
    for number, record in enumerate(records):
        record["timestamp"] = kinds[number % 6](record["timestamp"])
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", [])
    summary = run(config, *paths, str(tmp_path / "out"))["impressions"]
    each = [sum(number % 6 == kind for number in range(len(records))) for kind in range(6)]
    assert summary["dead_letters_by_reason"] == {
        "timestamp: must be a number of seconds": each[2] + each[4] + each[5],
        "timestamp: must be UTC seconds from the year 2000 to 2099": each[3],
    }
    taken = [record for number, record in enumerate(records) if number % 6 < 2]
    assert summary["examples"] == sum(len(record["impressions"]) for record in taken)
    assert summary["reconciled"]

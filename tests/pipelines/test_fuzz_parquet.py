"""Parquet logs with odd values and broken bytes: rows are taken or refused like lines, files are whole or named."""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.pvalue import TaggedOutput

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.examples import decode_examples, example_layout
from pipelines.impressions import run
from pipelines.log_blocks import list_blocks
from pipelines.log_reading import COUNTS, ReadImpressions
from pipelines.shuffle import Shuffle
from tests.pipelines.logs import random_logs, write_flat_impressions, write_json
from tests.pipelines.naive_reading import Reading, canonical, joined, read_impressions
from tests.pipelines.test_fuzz_records import CONFIG, letters, record, rows_of, serialized

# By field, odd values that fit the type of its column; a file has one of them in some of its rows.
ODD: dict[str, tuple[Any, ...]] = {
    "request_id": (None, "", "x" * 5000, "a\0b", "two\nlines", "\N{SNOWMAN}"),
    "timestamp": (None, float("nan"), float("inf"), -1.0, 0.0, 4_102_444_800.0, 946_684_799.9, 1_651_017_600_500.0),
    "user_id": (None, "", "2022-01-01", "\U0001f600"),
    "watch_history": (None, [], [None], ["v1", None], [""] * 9),
    "slot": (None, -1, 9, 10, 2**62),
    "slots": (None, [], [10], [-1, 3], [1, 2, 3, 4], [None]),
    "surface": (None, ""),
    "position": (None, 0, -1, 20, 21, 2**53),
    "video_id": (None, ""),
    "duration": (None, float("nan"), float("-inf"), -1.0, -0.5, 3.5e38, 1e-50, -0.0),
    "price": (None, float("inf"), -1e30, float("nan")),
    "content": (None, [], [0.5] * 5, [0.5] * 7, [None] * 6, [float("nan")] * 6, [1e39] * 6),
}


def with_odd(one: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(one)
    impression = changed["impressions"][0]
    for holder in (changed, changed["context"], impression, impression["item"]):
        if field in holder:
            holder[field] = value
    return changed


def flat(one: dict[str, Any]) -> dict[str, Any]:
    impression = one["impressions"][0]
    known = {"request_id": one["request_id"], "timestamp": one["timestamp"], "position": impression["position"]}
    return {**known, **one["context"], **impression["item"]}


def refused_rows(records: list[dict[str, Any]], reading: Reading, form: str) -> Counter[str]:
    """Of a flat table the letters hold the row, of a nested one the record."""
    if form == "nested":
        return reading.refused
    each = [read_impressions(json.dumps(one).encode()).refused.total() for one in records]
    return Counter(canonical(flat(one)) for one, wrong in zip(records, each, strict=True) if wrong)


@pytest.mark.parametrize("form", ["flat", "nested"])
def test_odd_values_in_parquet(tmp_path: Path, form: str):
    every: list[dict[str, Any]] = []
    for number, (field, values) in enumerate(ODD.items()):
        some = [
            with_odd(record("r", 2 * (100 * number + row)), field, values[row // 3])
            if row % 3 == 1
            else record("r", 2 * (100 * number + row))
            for row in range(3 * len(values))
        ]
        every += some
        table = pa.Table.from_pylist([flat(one) for one in some] if form == "flat" else some)
        pq.write_table(table, tmp_path / f"i{number:02d}.parquet", row_group_size=8)
    # The files are read in order of their names, so the naive double may read one log of lines.
    reading = read_impressions(b"".join(json.dumps(one).encode() + b"\n" for one in every))
    feedback = write_json(tmp_path / "f.jsonl", [])
    summary = run(CONFIG, str(tmp_path / "i*.parquet"), feedback, str(tmp_path / "out"))["impressions"]
    refused = refused_rows(every, reading, form)
    found = letters(tmp_path / "out", "impressions")
    assert (found - refused, refused - found) == (Counter(), Counter())
    assert summary["reconciled"]
    expected, _ = joined(reading.taken, [])
    examples = rows_of(decode_examples(serialized(tmp_path / "out"), example_layout(CONFIG)))
    assert sorted(json.dumps(one, sort_keys=True) for one in examples) == sorted(
        json.dumps(one, sort_keys=True) for one in expected
    )


def not_utf8(column: pa.ChunkedArray, row: int) -> pa.Array:
    values = [value.encode() for value in column.to_pylist()]
    values[row] = b"r\xff" + values[row]
    array = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(array), array.buffers())


def test_strings_that_are_not_utf8(config: Config, tmp_path: Path):
    records, events = random_logs()
    table = pq.read_table(write_flat_impressions(tmp_path / "i.parquet", records))
    alone = run(config, str(tmp_path / "i.parquet"), write_json(tmp_path / "f.jsonl", events), str(tmp_path / "alone"))
    broken = table.append_column("ignored", table["device"])
    for row, name in enumerate(("request_id", "device", "video_id", "ignored")):
        place = broken.column_names.index(name)
        broken = broken.set_column(place, name, not_utf8(broken[name], 3 + 10 * row))
    pq.write_table(broken, tmp_path / "i.parquet", row_group_size=50)
    said = pa.Table.from_pylist(events)
    pq.write_table(said.set_column(1, "item_id", not_utf8(said["item_id"], 2)), tmp_path / "f.parquet")
    summary = run(config, str(tmp_path / "i.parquet"), str(tmp_path / "f.parquet"), str(tmp_path / "out"))
    # What nobody reads is not looked at.
    assert summary["impressions"]["dead_letters_by_reason"] == {"record: must be UTF-8": 3}
    assert summary["impressions"]["examples"] == alone["impressions"]["examples"] - 3
    assert summary["feedback"]["dead_letters_by_reason"] == {"record: must be UTF-8": 1}
    assert summary["impressions"]["reconciled"]
    assert summary["feedback"]["reconciled"]
    text = (tmp_path / "out/dead_letters").glob("impressions-*.jsonl")
    devices = {json.loads(line)["record"]["device"] for path in text for line in path.read_text().split("\n")[:-1]}
    assert any(device.startswith("r\\xff") for device in devices)


def test_strings_that_are_not_utf8_deep_in_nested_rows(config: Config, tmp_path: Path):
    records, _ = random_logs()
    table = pa.Table.from_pylist(records)
    data = pa.ipc.new_stream(sink := pa.BufferOutputStream(), table.schema)
    data.write_table(table)
    data.close()
    stream = sink.getvalue().to_pybytes()
    # One byte of the string column deep inside: `v1` of the first record's history, or of an item.
    place = stream.index(b"v1")
    broken = pa.ipc.open_stream(stream[:place] + b"\xff" + stream[place + 1 :]).read_all()
    pq.write_table(broken, tmp_path / "i.parquet")
    summary = run(config, str(tmp_path / "i.parquet"), write_json(tmp_path / "f.jsonl", []), str(tmp_path / "out"))
    assert summary["impressions"]["dead_letters_by_reason"] == {"record: must be UTF-8": 1}
    [letter] = (json.loads(text) for text in letters(tmp_path / "out", "impressions"))
    assert "\\\\xff" in json.dumps(letter)


def test_a_column_that_stands_twice(config: Config, tmp_path: Path):
    table = pq.read_table(write_flat_impressions(tmp_path / "i.parquet", random_logs()[0]))
    pq.write_table(table.append_column("device", table["device"]), tmp_path / "i.parquet")
    with pytest.raises(InputError, match=r"must have each column once. Received: '.*i.parquet', 'device' twice\.$"):
        run(config, str(tmp_path / "i.parquet"), write_json(tmp_path / "f.jsonl", []), str(tmp_path / "out"))


def test_flipped_bytes_of_parquet_end_in_one_sentence_or_reconcile(config: Config, tmp_path: Path):
    whole = Path(write_flat_impressions(tmp_path / "i.parquet", random_logs()[0], row_group_size=1000)).read_bytes()
    rng = random.Random(5)
    ends: Counter[str] = Counter()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(4, len(data))] = rng.randrange(256)
        (tmp_path / "i.parquet").write_bytes(data[: rng.choice((len(data), len(data), rng.randrange(len(data))))])
        counts: Counter[Any] = Counter()
        refusal = ""
        try:
            for block in list_blocks("impressions", str(tmp_path / "i.parquet"))[0]:
                for output in ReadImpressions(config, 2, Shuffle()).process(block):
                    if isinstance(output, TaggedOutput) and output.tag == COUNTS:
                        counts.update(output.value)
        except InputError as error:
            refusal = str(error)
        if refusal:
            assert "Received: " in refusal
            assert "\n" not in refusal
            ends["refused"] += 1
        else:
            refused = sum(number for key, number in counts.items() if key[1] == "dead_letters")
            assert counts["impressions", "records"] == counts["impressions", "rows"] + refused
            ends["read"] += 1
    assert ends["refused"] > 20, ends
    assert ends["read"] > 5, ends

"""Bad records: each with its reason in the dead letters, counted, and the rest correct."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.pvalue import TaggedOutput
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from pipelines.batches import ImpressionBatch, table_from_bytes
from pipelines.impressions import run
from pipelines.log_blocks import list_blocks
from pipelines.log_reading import COUNTS, ReadFeedback, ReadImpressions
from pipelines.shuffle import Shuffle
from tests.configs import small_config
from tests.pipelines.logs import event, request, write_json
from tests.pipelines.reading import read_all

GOOD = [request(number, ["v1", "v2", "v3"]) for number in range(20)]


def letters_of(folder: Path, log: str) -> list[dict[str, Any]]:
    files = sorted((folder / "dead_letters").glob(f"{log}-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def changed(change: Callable[[dict[str, Any]], Any]) -> Any:
    record = copy.deepcopy(GOOD[7])
    result = change(record)
    return result if isinstance(result, str) else record


def setting(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        *outer, last, value = path
        place: Any = record
        for key in outer:
            place = place[key]
        if value is ...:
            del place[last]
        else:
            place[last] = value

    return change


def text(old: str, new: str) -> Callable[[dict[str, Any]], str]:
    def change(record: dict[str, Any]) -> str:
        assert old in json.dumps(record)
        return json.dumps(record).replace(old, new, 1)

    return change


ITEM = ("impressions", 1, "item")
WHOLE_RECORDS = {
    "truncated": (lambda record: json.dumps(record)[:-20], "record: must be valid JSON"),
    "two on a line": (lambda record: json.dumps(record) * 2, "record: must be valid JSON"),
    "a list": (lambda record: "[1, 2]", "record: must be an object"),
    "a number": (lambda record: "17", "record: must be an object"),
    "lists that never end": (lambda record: "[" * 100_000, "record: must be nested at most 100 levels deep"),
    "deep in a field of nobody's": (
        lambda record: json.dumps(record)[:-1] + ', "debug": ' + "[" * 50_000 + "]" * 50_000 + "}",
        "record: must be nested at most 100 levels deep",
    ),
    "no request_id": (setting("request_id", ...), "request_id: missing"),
    "empty request_id": (setting("request_id", ""), "request_id: missing"),
    "request_id a list": (setting("request_id", ["r"]), "request_id: must be a string, an integer or a boolean"),
    "request_id a float": (setting("request_id", 1.5), "request_id: must be a string, an integer or a boolean"),
    "lone surrogate": (text('"r7"', '"\\ud800"'), "request_id: must be valid Unicode"),
    "no timestamp": (setting("timestamp", None), "timestamp: missing"),
    "timestamp a string": (setting("timestamp", "now"), "timestamp: must be a number of seconds"),
    "timestamp true": (setting("timestamp", True), "timestamp: must be a number of seconds"),
    "timestamp in ms": (
        setting("timestamp", 1651017600500),
        "timestamp: must be UTC seconds from the year 2000 to 2099",
    ),
    "timestamp NaN": (setting("timestamp", float("nan")), "timestamp: must be UTC seconds from the year 2000 to 2099"),
    "no context": (setting("context", ...), "context: missing"),
    "context a list": (setting("context", [1]), "context: must be an object"),
    "no impressions": (setting("impressions", ...), "impressions: missing"),
    "impressions an object": (setting("impressions", {}), "impressions: must be a list"),
    "empty impressions": (setting("impressions", []), "impressions: must not be empty"),
    "user a float": (setting("context", "user_id", 3.0), "user_id: must be a string, an integer or a boolean"),
    "device a list": (setting("context", "device", ["tv"]), "device: must be a string, an integer or a boolean"),
    "history a string": (setting("context", "watch_history", "v1"), "watch_history: must be a list"),
    "history with null": (
        setting("context", "watch_history", ["v1", None]),
        "watch_history: must be a list without nulls",
    ),
    "history nested": (
        setting("context", "watch_history", [["v1"]]),
        "watch_history: must be a string, an integer or a boolean",
    ),
}
ONE_IMPRESSION = {
    "impression a string": (setting("impressions", 1, "v2"), "impression: must be an object"),
    "impression null": (setting("impressions", 1, None), "impression: must be an object"),
    "no item": (setting("impressions", 1, "item", ...), "item: missing"),
    "item a string": (setting("impressions", 1, "item", "v2"), "item: must be an object"),
    "no key": (setting(*ITEM, "video_id", ...), "video_id: missing"),
    "key a float": (setting(*ITEM, "video_id", 2.0), "video_id: must be a string, an integer or a boolean"),
    "position 0": (setting("impressions", 1, "position", 0), "position: must be an integer from 1"),
    "position 1.5": (setting("impressions", 1, "position", 1.5), "position: must be an integer from 1"),
    "position a string": (setting("impressions", 1, "position", "2"), "position: must be an integer from 1"),
    "position true": (setting("impressions", 1, "position", True), "position: must be an integer from 1"),
    "position 21": (setting("impressions", 1, "position", 21), "position: must be an integer from 0 to 20"),
    "duration a string": (setting(*ITEM, "duration", "61"), "duration: must be a number"),
    "duration true": (setting(*ITEM, "duration", True), "duration: must be a number"),
    "duration NaN": (setting(*ITEM, "duration", float("nan")), "duration: must be a finite number"),
    "duration inf": (setting(*ITEM, "duration", float("inf")), "duration: must be a finite number"),
    "duration 1e39": (setting(*ITEM, "duration", 1e39), "duration: must be a finite number"),
    "duration 1e400": (text('"duration": 20.0', '"duration": 1e400'), "duration: must be a finite number"),
    "duration huge": (setting(*ITEM, "duration", 10**400), "duration: must be a finite number"),
    "duration -1": (
        setting(*ITEM, "duration", -1),
        "duration: must be greater than -1, because of its transform log1p",
    ),
    "short vector": (setting(*ITEM, "content", [1.0] * 5), "content: must have 6 numbers"),
    "vector a number": (setting(*ITEM, "content", 1.0), "content: must be a list"),
    "vector with null": (setting(*ITEM, "content", [None] + [1.0] * 5), "content: must be a list without nulls"),
    "vector with string": (setting(*ITEM, "content", ["x"] + [1.0] * 5), "content: must be a number"),
}


@pytest.fixture(scope="module")
def good_examples(tmp_path_factory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("good")
    config = parse_config(small_config())
    run(config, write_json(folder / "i.jsonl", GOOD), write_json(folder / "f.jsonl", []), str(folder / "out"))
    return read_all(config, folder / "out")


def test_each_bad_record_by_its_reason(config: Config, tmp_path: Path, good_examples):
    cases = {**WHOLE_RECORDS, **ONE_IMPRESSION}
    lines, kept = [], []
    for number, (name, (change, _)) in enumerate(cases.items()):
        bad = changed(change)
        if isinstance(bad, dict):
            if bad.get("request_id") == "r7":
                bad["request_id"] = f"bad{number}"
            bad = json.dumps(bad)
        bad = bad.replace('"r7"', f'"bad{number}"')
        # Bad records stand between good ones, and apart.
        lines += [bad, *([json.dumps(GOOD[len(kept)])] if len(kept) < len(GOOD) else [])]
        kept.append(name)
    paths = write_json(tmp_path / "i.jsonl", lines), write_json(tmp_path / "f.jsonl", [])
    summary = run(config, *paths, str(tmp_path / "out"))["impressions"]
    letters = letters_of(tmp_path / "out", "impressions")
    assert Counter(letter["reason"] for letter in letters) == Counter(reason for _, reason in cases.values())
    assert summary["dead_letters_by_reason"] == dict(Counter(reason for _, reason in cases.values()))
    assert {letter["source"] for letter in letters} == {paths[0]}
    assert summary["reconciled"]
    # One bad impression goes alone.
    assert summary["examples"] == len(good_examples) + 2 * len(ONE_IMPRESSION)
    mine = [example for example in read_all(config, tmp_path / "out") if not example["request_id"].startswith("bad")]
    assert mine == good_examples


def test_a_dead_letter_holds_the_record(config: Config, tmp_path: Path):
    broken = '{"request_id": "r1", "times'
    late = changed(setting("impressions", 1, "position", 0))
    paths = (
        write_json(tmp_path / "i.jsonl", [*GOOD[:5], broken, late]),
        write_json(tmp_path / "f.jsonl", ["[]", "\N{SNOWMAN}"]),
    )
    run(config, *paths, str(tmp_path / "out"))
    first, second = letters_of(tmp_path / "out", "impressions")
    assert first == {"reason": "record: must be valid JSON", "source": paths[0], "record": broken}
    assert second["record"] == {**late, "impressions": [late["impressions"][1]]}
    assert [letter["record"] for letter in letters_of(tmp_path / "out", "feedback")] == [[], "\N{SNOWMAN}"]


def test_bytes_that_are_not_utf8(config: Config, tmp_path: Path):
    write_json(tmp_path / "i.jsonl", GOOD)
    data = (tmp_path / "i.jsonl").read_bytes().replace(b'"r7"', b'"r\xff7"')
    (tmp_path / "i.jsonl").write_bytes(data)
    summary = run(config, str(tmp_path / "i.jsonl"), write_json(tmp_path / "f.jsonl", []), str(tmp_path / "out"))
    assert summary["impressions"]["dead_letters_by_reason"] == {"record: must be UTF-8": 1}
    [letter] = letters_of(tmp_path / "out", "impressions")
    assert "r\\xff7" in letter["record"]


FEEDBACK = {
    "truncated": ('{"request_id": "r1"', "record: must be valid JSON"),
    "no event": (setting("event", ...), "event: missing"),
    "event a number": (setting("event", 5), "event: must be a string"),
    "no request": (setting("request_id", None), "request_id: missing"),
    "no item": (setting("item_id", ...), "item_id: missing"),
    "item a float": (setting("item_id", 1.5), "item_id: must be a string, an integer or a boolean"),
    "no time": (setting("timestamp", ...), "timestamp: missing"),
    "no value": (setting("value", None), "value: missing for the event of a regression objective"),
    "value a string": (setting("value", "7"), "value: must be a number"),
    "value below 0": (setting("value", -1.0), "value: must be at least 0, because of the objective's transform log1p"),
    "value 1e31": (setting("value", 1e31), "value: must be a number of at most 1e+30 in size"),
    "value NaN": (setting("value", float("nan")), "value: must be a number of at most 1e+30 in size"),
    "value huge": (setting("value", 10**400), "value: must be a number of at most 1e+30 in size"),
}


def test_each_bad_event_by_its_reason(config: Config, tmp_path: Path):
    events: list[Any] = []
    for change, _ in FEEDBACK.values():
        record = event(3, "v1", "watch", 42.0)
        if callable(change):
            change(record)
        events += [record if callable(change) else change, event(3, "v1", "watch", 7.0)]
    paths = write_json(tmp_path / "i.jsonl", GOOD), write_json(tmp_path / "f.jsonl", [*events, event(3, "v1", "click")])
    feedback = run(config, *paths, str(tmp_path / "out"))["feedback"]
    assert feedback["dead_letters_by_reason"] == dict(Counter(reason for _, reason in FEEDBACK.values()))
    assert (feedback["joined"], feedback["duplicates"]) == (2, len(FEEDBACK) - 1)
    assert feedback["reconciled"]
    labels = [example["watch_time_label"] for example in read_all(config, tmp_path / "out")]
    assert [label for label in labels if label is not None] == [7.0]


def test_bad_rows_of_a_flat_table(config: Config, tmp_path: Path):
    rows = [
        {
            "request_id": f"r{number}",
            "timestamp": 1_651_017_600.0 + number,
            "user_id": number,
            "device": "tv",
            "watch_history": ["v1"],
            "video_id": "v2",
            "duration": 3.0,
            "content": [0.5] * 6,
            "position": 1.0,
        }
        for number in range(20)
    ]
    rows[3]["position"] = 1.5
    rows[4]["duration"] = float("nan")
    rows[5]["content"] = [0.5] * 4
    rows[6]["video_id"] = None
    rows[7]["timestamp"] = None
    rows[8]["request_id"] = None
    rows[9]["position"] = None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "i.parquet", row_group_size=6)
    summary = run(config, str(tmp_path / "i.parquet"), write_json(tmp_path / "f.jsonl", []), str(tmp_path / "out"))
    assert summary["impressions"]["dead_letters_by_reason"] == {
        "position: must be an integer from 1": 1,
        "duration: must be a finite number": 1,
        "content: must have 6 numbers": 1,
        "video_id: missing": 1,
        "timestamp: missing": 1,
        "request_id: missing": 1,
    }
    assert summary["impressions"]["reconciled"]
    assert [letter["record"]["duration"] for letter in letters_of(tmp_path / "out", "impressions")][1] == "nan"
    assert [example["request_id"] for example in read_all(config, tmp_path / "out")][:5] == [
        "r0",
        "r1",
        "r2",
        "r9",
        "r10",
    ]


def test_values_of_mixed_types_are_read(config: Config, tmp_path: Path):
    users: list[Any] = [7, "seven", True, 2**70, -1, "2022-01-01", None]
    records = [request(number, ["v1"]) for number in range(10)]
    for record, user in zip(records, users, strict=False):
        record["context"]["user_id"] = user
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", [])
    summary = run(config, *paths, str(tmp_path / "out"))
    assert summary["impressions"]["dead_letters"] == 0
    assert [example["user_id"] for example in read_all(config, tmp_path / "out")][:7] == [
        "7",
        "seven",
        "true",
        str(2**70),
        "-1",
        "2022-01-01",
        None,
    ]


def mutated(records: list[Any], flips: list[tuple[int, int]], cuts: list[int], path: Path) -> bytes:
    write_json(path, records)
    data = bytearray(path.read_bytes())
    for place, byte in flips:
        data[place % len(data)] = byte
    for place in cuts:
        del data[place % len(data)]
    path.write_bytes(data)
    return bytes(data)


FLIPS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=30)
CUTS = st.lists(st.integers(0, 10**6), max_size=5)


@given(FLIPS, CUTS)
@settings(max_examples=150, deadline=None)
def test_mutated_records_are_read_or_refused(tmp_path_factory, flips, cuts):
    folder = tmp_path_factory.getbasetemp()
    config = parse_config(small_config())
    events = [event(number, f"v{1 + number % 3}", "watch", 4.0) for number in range(20)]
    for log, records, reader in (("impressions", GOOD, ReadImpressions), ("feedback", events, ReadFeedback)):
        data = mutated(records, flips, cuts, folder / f"{log}.jsonl")
        blocks, _ = list_blocks(log, str(folder / f"{log}.jsonl"))
        counts, letters, requests, rows = Counter(), 0, set(), 0
        for block in blocks:
            for output in reader(config, 3, Shuffle()).process(block):
                if not isinstance(output, TaggedOutput):
                    if log == "impressions":
                        batch = ImpressionBatch.from_bytes(output[1])
                        contexts, table = batch.contexts, batch.impressions
                    else:
                        contexts = table = table_from_bytes(output[1])
                    requests |= set(contexts["_request"].to_pylist())
                    rows += table.num_rows
                elif output.tag == COUNTS:
                    counts.update(output.value)
                else:
                    letters += output.value.lines.count(b"\n")
        refused = sum(number for key, number in counts.items() if key[1] == "dead_letters")
        assert letters == refused
        assert counts[log, "records"] == sum(bool(line.strip()) for line in data.split(b"\n"))
        if log == "impressions":
            assert rows == counts[log, "rows"]
        else:
            ignored = sum(many for key, many in counts.items() if key[:2] == (log, "ignored"))
            assert counts[log, "records"] == rows + refused + ignored
        lines = set(data.split(b"\n"))
        untouched = {record["request_id"] for record in records if json.dumps(record).encode() in lines}
        assert untouched <= requests


@given(FLIPS, CUTS)
@settings(max_examples=4, deadline=None)
@pytest.mark.slow
def test_mutated_logs_reconcile(tmp_path_factory, flips, cuts):
    config = parse_config(small_config())
    folder = tmp_path_factory.mktemp("mutated")
    events = [event(number, f"v{1 + number % 3}", "watch", 4.0) for number in range(20)]
    impressions = mutated(GOOD, flips, cuts, folder / "i.jsonl")
    feedback = mutated(events, flips, cuts, folder / "f.jsonl")
    summary = run(config, str(folder / "i.jsonl"), str(folder / "f.jsonl"), str(folder / "out"))
    assert summary["impressions"]["records"] == sum(bool(line.strip()) for line in impressions.split(b"\n"))
    assert summary["feedback"]["read"] == sum(bool(line.strip()) for line in feedback.split(b"\n"))
    for log in ("impressions", "feedback"):
        assert summary[log]["reconciled"]
        assert len(letters_of(folder / "out", log)) == summary[log]["dead_letters"]
    assert len(read_all(config, folder / "out")) == summary["impressions"]["examples"]

"""Bad records: each with its reason in the dead letters, counted, and the rest correct."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from pipelines.impressions import run
from tests.configs import small_config
from tests.pipelines.bad_records import FEEDBACK, GOOD, ONE_IMPRESSION, WHOLE_RECORDS, changed, setting
from tests.pipelines.logs import event, request, write_json
from tests.pipelines.reading import letters_of, read_all


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

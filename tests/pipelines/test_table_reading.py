"""Tables as they are read: what becomes a row, and what a dead letter with which reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.pvalue import TaggedOutput
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.config_loading import parse_config
from pipelines.batches import table_from_bytes
from pipelines.dead_letters import DEAD_LETTERS
from pipelines.log_blocks import list_blocks, table_log
from pipelines.log_reading import COUNTS
from pipelines.shuffle import Shuffle
from pipelines.table_reading import ReadTable
from tests.configs import asof_config
from tests.pipelines.logs import write_json

RAW = asof_config()
RAW["features"] += [
    {"name": "slot", "side": "context", "kind": "categorical", "size": 9},
    {"name": "noise", "side": "context", "kind": "numeric", "transform": "log1p", "table": "slots", "column": "db"},
    {"name": "genres", "side": "context", "kind": "sequence", "buckets": 9, "max_length": 2, "table": "slots"},
]
RAW["tables"].append({"name": "slots", "key": "slot", "timestamp": "since"})
CONFIG = parse_config(RAW)
TIME = 1_651_017_600.25


def read(path: str, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict]:
    """Rows in order of the file, dead letters and counts."""
    table = next(table for table in CONFIG.tables if table.name == name)
    rows, letters, counts = [], [], {}
    blocks, _ = list_blocks(table_log(name), path)
    for block in blocks:
        for output in ReadTable(CONFIG, table, 3, Shuffle()).process(block):
            if not isinstance(output, TaggedOutput):
                rows += table_from_bytes(output[1]).to_pylist()
            elif output.tag == COUNTS:
                counts.update(output.value)
            else:
                assert output.tag == DEAD_LETTERS
                letters += [json.loads(line) for line in output.value.lines.splitlines()]
    return sorted(rows, key=lambda row: row["_order"]), letters, counts


GOOD = {"slot": 3, "since": TIME, "db": 40, "genres": ["a", "b", "c"]}
BAD = [
    ({"slot": None}, "slot: missing"),
    ({"slot": "3"}, "slot: must be an integer from 0 to 9"),
    ({"slot": 10}, "slot: must be an integer from 0 to 9"),
    ({"since": None}, "since: missing"),
    ({"since": "today"}, "since: must be a number of seconds"),
    ({"since": TIME * 1000}, "since: must be UTC seconds from the year 2000 to 2099"),
    ({"db": -1.0}, "db: must be greater than -1, because of its transform log1p"),
    ({"genres": ["a", None]}, "genres: must be a list without nulls"),
]


@pytest.mark.parametrize(("change", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_row_is_a_dead_letter_that_names_the_column(tmp_path: Path, change: dict[str, Any], reason: str):
    rows = [GOOD, {**GOOD, **change}, {**GOOD, "slot": 4.0}]
    found, letters, counts = read(write_json(tmp_path / "t.jsonl", rows), "slots")
    assert [(row["_key"], row["_time"], row["noise"], row["genres"]) for row in found] == [
        ("3", 1_651_017_600_250_000, 40.0, ["b", "c"]),
        ("4", 1_651_017_600_250_000, 40.0, ["b", "c"]),
    ]
    assert [(letter["reason"], letter["record"]) for letter in letters] == [(reason, rows[1])]
    assert counts == {("table-slots", "records"): 3, ("table-slots", "dead_letters", reason): 1}


def test_lines_that_are_no_row(tmp_path: Path):
    lines = ["[1]", "{broken", {"video_id": "", "seconds": 1}, {"video_id": ["v1"]}, {"video_id": 7, "seconds": None}]
    found, letters, _ = read(write_json(tmp_path / "t.jsonl", lines), "videos")
    assert [(row["_key"], row["_time"], row["duration"]) for row in found] == [("7", 0, None)]
    assert [letter["reason"] for letter in letters] == [
        "record: must be an object",
        "record: must be valid JSON",
        "video_id: missing",
        "video_id: must be a string, an integer or a boolean",
    ]


VALUES = (
    st.none() | st.booleans() | st.integers(-1, 11) | st.sampled_from([TIME, 2.5, 7.0]) | st.sampled_from(["", "a"])
)
ROWS = st.lists(
    st.fixed_dictionaries({}, optional={"slot": VALUES, "since": VALUES, "db": VALUES, "genres": st.lists(VALUES)}),
    max_size=12,
)


@given(ROWS)
@settings(max_examples=40, deadline=None)
def test_whole_columns_agree_with_single_rows(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows")
    together, refused, _ = read(write_json(path / "t.jsonl", rows), "slots")
    alone: list = []
    for number, row in enumerate(rows):
        # A line that is no JSON beside it, so that Arrow gives the block up and each row is looked at by itself.
        found, _, _ = read(write_json(path / f"{number}.jsonl", ["{", json.dumps(row) + " "]), "slots")
        alone += found
    without_place = [{key: value for key, value in row.items() if key != "_order"} for row in together]
    assert without_place == [{key: value for key, value in row.items() if key != "_order"} for row in alone]
    assert len(together) + len(refused) == len(rows)


def test_parquet_gives_the_same_rows(tmp_path: Path):
    rows = [{**GOOD, "slot": slot, "since": TIME + slot} for slot in range(9)]
    lines, _, _ = read(write_json(tmp_path / "t.jsonl", rows), "slots")
    pq.write_table(pa.Table.from_pylist([{**row, "more": 1} for row in rows]), tmp_path / "t.parquet", row_group_size=4)
    parquet, letters, _ = read(str(tmp_path / "t.parquet"), "slots")
    assert not letters
    assert [{**row, "_order": 0} for row in parquet] == [{**row, "_order": 0} for row in lines]

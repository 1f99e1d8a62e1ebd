"""Tables of BigQuery, with Beam's connector replaced by one that gives the rows of a list, in no order."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from pipelines import bigquery
from pipelines.bigquery import content_order
from pipelines.impressions import run
from tests.pipelines.logs import event, random_logs, request, write_flat_impressions, write_nested
from tests.pipelines.reading import content_of

NAMES = {
    pa.string(): "STRING",
    pa.int64(): "INTEGER",
    pa.float64(): "FLOAT",
    pa.bool_(): "BOOLEAN",
    pa.timestamp("us", "UTC"): "TIMESTAMP",
    pa.decimal128(38, 9): "NUMERIC",
    pa.date32(): "DATE",
}


def described(field: pa.Field) -> SimpleNamespace:
    """A column as BigQuery's own description of a table has it."""
    repeated = pa.types.is_list(field.type)
    kind = field.type.value_type if repeated else field.type
    fields = [described(inner) for inner in kind] if pa.types.is_struct(kind) else []
    name = "RECORD" if fields else NAMES[kind]
    return SimpleNamespace(name=field.name, type=name, mode="REPEATED" if repeated else "NULLABLE", fields=fields)


def selected(row: Any, paths: list[list[str]]) -> Any:
    """What a query of these columns and fields gives of a value."""
    if isinstance(row, list):
        return [selected(one, paths) for one in row]
    if not isinstance(row, dict) or paths == [[]]:
        return row
    below: dict[str, list[list[str]]] = {}
    for first, *rest in paths:
        below.setdefault(first, []).append(rest)
    return {name: selected(row[name], inner) for name, inner in below.items()}


@dataclasses.dataclass
class Warehouse:
    """Stands for BigQuery and Beam's connector to it: tables by name, whose rows come in the order of `seed`."""

    tables: dict[str, pa.Table]
    seed: int = 0

    def read(self, method: str, table: str, selected_fields: list[str]) -> beam.PTransform:
        assert method == "DIRECT_READ"
        rows = self.tables[table.replace(":", ".")].to_pylist()
        shuffled = [rows[place] for place in np.random.default_rng(self.seed).permutation(len(rows))]
        return beam.Create([selected(row, [name.split(".") for name in selected_fields]) for row in shuffled])

    def lookup(self) -> SimpleNamespace:
        def get_table(*names: str) -> SimpleNamespace:
            table = self.tables[".".join(names)]
            schema = SimpleNamespace(fields=[described(field) for field in table.schema])
            return SimpleNamespace(schema=schema, numBytes=table.nbytes)

        return SimpleNamespace(from_pipeline_options=lambda _: SimpleNamespace(get_table=get_table))


@pytest.fixture
def warehouse(monkeypatch) -> Warehouse:
    made = Warehouse({})
    monkeypatch.setattr(bigquery, "_connector", lambda: SimpleNamespace(read=made.read, lookup=made.lookup()))
    monkeypatch.setattr(bigquery, "_BATCH_ROWS", 16)
    return made


def run_on_tables(config: Config, out: Path) -> dict[str, Any]:
    tables = "bigquery://my-project.logs.impressions", "bigquery://my-project.logs.feedback"
    return run(config, *tables, str(out), ["--num_shards", "3"])


def retyped(table: pa.Table, change: Callable[[float], Any], kind: pa.DataType) -> pa.Table:
    place = table.column_names.index("timestamp")
    return table.set_column(
        place, "timestamp", pa.array([change(time) for time in table["timestamp"].to_pylist()], kind)
    )


@pytest.mark.parametrize(("form", "time"), [("flat", "TIMESTAMP"), ("nested", "NUMERIC")])
def test_a_table_gives_the_bytes_of_the_same_rows_as_parquet(
    config: Config, warehouse: Warehouse, tmp_path: Path, form: str, time: str
):
    records, events = random_logs()
    paths = [
        (write_flat_impressions if form == "flat" else write_nested)(tmp_path / "i.parquet", records),
        write_nested(tmp_path / "f.parquet", events),
    ]
    expected = run(config, *paths, str(tmp_path / "parquet"), ["--num_shards", "3"])
    conversions: dict[str, tuple[Callable[[float], Any], pa.DataType]] = {
        "TIMESTAMP": (
            lambda seconds: datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc),
            pa.timestamp("us", "UTC"),
        ),
        "NUMERIC": (lambda seconds: decimal.Decimal(str(seconds)), pa.decimal128(38, 9)),
    }
    for name, path in zip(("impressions", "feedback"), paths, strict=True):
        warehouse.tables[f"my-project.logs.{name}"] = retyped(pq.read_table(path), *conversions[time])
    summary = run_on_tables(config, tmp_path / "table")
    assert content_of(tmp_path / "parquet") == content_of(tmp_path / "table")
    assert summary == expected
    assert summary["impressions"]["examples"] > 50


@pytest.mark.parametrize("form", ["flat", "nested"])
def test_the_order_of_rows_changes_nothing(config: Config, warehouse: Warehouse, tmp_path: Path, form: str):
    records = [request(number, ["v1", "v2", "v3"]) for number in range(20)]
    # Impressions that nothing but their content tells apart, without a position too, and bad ones.
    again = copy.deepcopy(records[:5])
    for number, record in enumerate(again):
        record["impressions"][0]["item"]["duration"] = 100.0 + number
        record["impressions"][1]["item"]["video_id"] = "v9"
    for record in [*again, records[6]]:
        record["impressions"][2]["position"] = None
    for number, time in enumerate([0.0, 1.0, 1.0, 2.0]):
        records.append({**request(30 + number, ["v1"]), "timestamp": time})
    records += again
    write = write_flat_impressions if form == "flat" else write_nested
    warehouse.tables = {
        "my-project.logs.impressions": pq.read_table(write(tmp_path / "i.parquet", records)),
        "my-project.logs.feedback": pa.Table.from_pylist([event(1, "v1", "click"), event(1, "v1", "click")]),
    }
    contents = []
    for seed in range(2):
        warehouse.seed = seed
        summary = run_on_tables(config, tmp_path / f"{seed}")
        contents.append(content_of(tmp_path / f"{seed}"))
        assert summary["impressions"]["dead_letters"] == 4
        assert summary["impressions"]["duplicates"] == 10
        assert summary["impressions"]["reconciled"]
    assert contents[0] == contents[1]
    letters = [json.loads(line) for name, text in contents[0].items() if "dead" in name for line in text.splitlines()]
    assert sorted(letter["record"]["timestamp"] for letter in letters) == [0.0, 1.0, 1.0, 2.0]
    assert {letter["source"] for letter in letters} == {"bigquery://my-project.logs.impressions"}


def test_content_tells_rows_apart_and_nothing_else_does():
    rows: list[dict[str, Any]] = [
        {"a": "x", "b": "y", "c": [1.0, 2.0], "d": {"e": True, "f": [{"g": 1}]}},
        {"a": "y", "b": "x", "c": [1.0, 2.0], "d": {"e": True, "f": [{"g": 1}]}},
        {"a": "x", "b": "y", "c": [2.0, 1.0], "d": {"e": True, "f": [{"g": 1}]}},
        {"a": "x", "b": "y", "c": [], "d": {"e": True, "f": [{"g": 1}]}},
        {"a": "x", "b": "y", "c": None, "d": {"e": True, "f": [{"g": 1}]}},
        {"a": "x", "b": None, "c": [1.0, 2.0], "d": {"e": False, "f": [{"g": 1}]}},
        {"a": "x", "b": "", "c": [1.0, 2.0], "d": {"e": False, "f": [{"g": 1}]}},
        {"a": "x", "b": "y", "c": [1.0, 2.0], "d": {"e": True, "f": [{"g": 1}, {"g": 0}]}},
        {"a": "x", "b": "y", "c": [1.0, 2.0], "d": {"e": True, "f": [{"g": None}]}},
        {"a": "x", "b": "y", "c": [1.0, 2.0], "d": None},
    ]
    orders = content_order(pa.Table.from_pylist(rows))
    assert len(set(orders.tolist())) == len(rows)
    assert orders.min() >= 0
    schema = pa.Table.from_pylist(rows).schema
    reversed_rows = pa.Table.from_pylist(rows[::-1] + rows[3:5], schema=schema)
    assert content_order(reversed_rows).tolist() == [*orders[::-1].tolist(), *orders[3:5].tolist()]
    assert content_order(schema.empty_table()).tolist() == []


def test_what_cannot_be_a_table_is_refused(config: Config, warehouse: Warehouse, tmp_path: Path):
    rows = pq.read_table(write_flat_impressions(tmp_path / "i.parquet", [request(1, ["v1"])]))
    days = retyped(rows, lambda _: datetime.date(2022, 5, 1), pa.date32())
    warehouse.tables = {"my-project.logs.impressions": days}
    expected = (
        r"The column `timestamp` of a BigQuery table must be of .*cast it by a query. Received: DATE in 'bigquery:"
    )
    with pytest.raises(InputError, match=expected):
        run_on_tables(config, tmp_path / "out")
    warehouse.tables = {"my-project.logs.impressions": rows}
    with pytest.raises(InputError, match=r"feedback log must be a BigQuery table that can be read .*logs\.feedback'\."):
        run_on_tables(config, tmp_path / "out")
    for name in ("bigquery://logs.impressions", "bigquery://p.logs.*", "bigquery:///p/logs"):
        with pytest.raises(InputError, match=r"must be named bigquery://PROJECT\.DATASET\.TABLE\. Received: '"):
            run(config, name, name, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_without_the_extra_one_sentence_says_so(config: Config, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "google.cloud.bigquery_storage", None)
    with pytest.raises(
        InputError, match=r"need the extra `bigquery`: `pip install 'mmoe_ranker\[bigquery\]'`\. Received"
    ):
        run(config, "bigquery://p.d.t", "bigquery://p.d.t", str(tmp_path / "out"))

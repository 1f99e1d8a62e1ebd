"""Beam's own connector over Google's clients, which answer from memory; skipped where the extra is not installed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmoe_ranker.config import Config
from pipelines.impressions import run

pytest.importorskip("google.cloud.bigquery_storage", reason="the extra `bigquery` is not installed")

import fastavro
from apache_beam.io.gcp import bigquery as connector
from apache_beam.io.gcp.bigquery_tools import BigQueryWrapper

from tests.pipelines.logs import random_logs, write_nested

TEXT, NUMBER = ["null", "string"], ["null", "double"]
AVRO = {
    "impressions": {
        "request_id": TEXT,
        "timestamp": ["null", {"type": "long", "logicalType": "timestamp-micros"}],
        "context": {
            "user_id": TEXT,
            "device": TEXT,
            "watch_history": {"type": "array", "items": "string"},
        },
        "impressions": [
            {
                "position": ["null", "long"],
                "item": {"video_id": TEXT, "duration": NUMBER, "content": {"type": "array", "items": "double"}},
            }
        ],
    },
    "feedback": {"request_id": TEXT, "item_id": TEXT, "event": TEXT, "value": NUMBER, "timestamp": NUMBER},
}
TYPES = {"string": "STRING", "double": "FLOAT", "long": "INTEGER"}


def avro_schema(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    def kind_of(name: str, kind: Any) -> Any:
        if isinstance(kind, list) and isinstance(kind[0], dict):
            return {"type": "array", "items": avro_schema(name, kind[0])}
        return avro_schema(name, kind) if isinstance(kind, dict) and "type" not in kind else kind

    listed = [{"name": field, "type": kind_of(f"{name}_{field}", kind)} for field, kind in fields.items()]
    return {"type": "record", "name": name, "fields": listed}


def described(fields: dict[str, Any]) -> list[SimpleNamespace]:
    """BigQuery's description of the columns of a table."""

    def column(name: str, kind: Any) -> SimpleNamespace:
        record = kind[0] if isinstance(kind, list) and isinstance(kind[0], dict) else kind
        if isinstance(record, dict) and "type" not in record:
            mode = "REPEATED" if record is not kind else "NULLABLE"
            return SimpleNamespace(name=name, type="RECORD", mode=mode, fields=described(record))
        if isinstance(kind, dict):
            return SimpleNamespace(name=name, type=TYPES[kind["items"]], mode="REPEATED", fields=[])
        of = "TIMESTAMP" if isinstance(kind[1], dict) else TYPES[kind[1]]
        return SimpleNamespace(name=name, type=of, mode="NULLABLE", fields=[])

    return [column(name, kind) for name, kind in fields.items()]


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_streams_of_the_read_api_give_the_bytes_of_parquet(config: Config, tmp_path: Path):
    records, events = random_logs()
    for one in events:
        one.setdefault("value", None)
    rows = {"impressions": records, "feedback": events}
    paths = [write_nested(tmp_path / f"{name}.parquet", rows[name]) for name in rows]
    times = pq.read_table(paths[0])["timestamp"].to_pylist()
    micros = pa.array([round(time * 1e6) for time in times], pa.int64()).cast(pa.timestamp("us", "UTC")).to_pylist()
    rows["impressions"] = [{**record, "timestamp": time} for record, time in zip(records, micros, strict=True)]
    run(config, *paths, str(tmp_path / "parquet"), ["--num_shards", "2"])

    class Client:
        """Two streams a table: of every second row each, backwards."""

        def create_read_session(self, parent: str, read_session: Any, max_stream_count: int) -> Any:
            assert parent == "projects/my-project"
            assert "context" not in read_session.read_options.selected_fields
            name = read_session.table.split("/")[-1]
            streams = [SimpleNamespace(name=f"{name}-{half}") for half in range(2)]
            return SimpleNamespace(streams=streams, avro_schema="", data_format="AVRO", estimated_total_bytes_scanned=1)

        def read_rows(self, stream: str, **_: Any) -> Any:
            name, half = stream.split("-")
            schema = avro_schema(name, AVRO[name])
            for row in rows[name][int(half) :: 2][::-1]:
                data = io.BytesIO()
                fastavro.schemaless_writer(data, fastavro.parse_schema(schema), row)
                yield SimpleNamespace(
                    avro_schema=SimpleNamespace(schema=json.dumps(schema)),
                    avro_rows=SimpleNamespace(serialized_binary_rows=data.getvalue()),
                )

    def get_table(_self: Any, _project: str, _dataset: str, name: str) -> SimpleNamespace:
        return SimpleNamespace(schema=SimpleNamespace(fields=described(AVRO[name])), numBytes=10_000)

    with (
        mock.patch.object(connector.bq_storage, "BigQueryReadClient", Client),
        mock.patch.object(BigQueryWrapper, "get_table", get_table),
        mock.patch.object(BigQueryWrapper, "_bigquery_client"),
    ):
        tables = [f"bigquery://my-project.logs.{name}" for name in rows]
        run(config, *tables, str(tmp_path / "table"), ["--num_shards", "2"])
    assert written(tmp_path / "table") == written(tmp_path / "parquet")

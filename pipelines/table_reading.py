"""Reads tables of users, items and the like: rows by hash of their key, bad ones with their reason.

A table is a log of its own: JSON lines with an object a row, or flat Parquet. A row is the key, since when it holds,
and the columns that features of the config take; a row of which any of these is wrong is a dead letter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmoe_ranker.config import Config
from mmoe_ranker.config_features import Feature
from mmoe_ranker.config_tables import Table
from mmoe_ranker.errors import InputError
from mmoe_ranker.examples import feature_field
from pipelines.batches import table_to_bytes
from pipelines.bigquery import TableRows
from pipelines.canonical_columns import Checked, arrow_type, check_feature, identifiers, integers, timestamps
from pipelines.json_lines import Wanted
from pipelines.log_blocks import LogBlock, table_log
from pipelines.log_reading import ReadLog
from pipelines.log_tables import Columns
from pipelines.record_checks import BadRecord, feature_value, identifier, record_object, timestamp_micros
from pipelines.shuffle import Shuffle

ALWAYS = 0
"""The time of a row of a table without times: before all requests."""


def table_globs(config: Config, tables: Mapping[str, str]) -> dict[str, str]:
    """The globs of all tables by their `table_log`.

    Args:
      config: names the tables.
      tables: a glob for each by its name.

    Raises:
      InputError: a table is left out, or the config has none of that name.
    """
    names = [table.name for table in config.tables]
    if set(names) != set(tables):
        raise InputError(
            "Files must be given for each table of the config, as `--table NAME=GLOB`, and for no other; "
            f"configured: {', '.join(names) or 'none'}. Received: {', '.join(tables) or 'none'}."
        )
    return {table_log(name): tables[name] for name in names}


def table_features(config: Config, table: str) -> tuple[Feature, ...]:
    """The features that take their values from the table."""
    return tuple(feature for feature in config.features if feature.table == table)


def table_columns(config: Config, table: Table) -> list[str]:
    """The columns that are read of a table: its key, since when a row holds, and what features take."""
    time = [] if table.timestamp is None else [table.timestamp]
    return [table.key, *time, *(_column(feature) for feature in table_features(config, table.name))]


def table_schema(config: Config, table: str) -> pa.Schema:
    """Rows of a table as they are joined: key, time (UTC microseconds), place in the files, values by feature."""
    meta = [("_key", pa.string()), ("_time", pa.int64()), ("_order", pa.int64())]
    return pa.schema([*meta, *((f.name, arrow_type(feature_field(config, f))) for f in table_features(config, table))])


class ReadTable(ReadLog):
    """LogBlock or TableRows -> (bucket of the key, payload of rows of the table); tags: dead letters, counts."""

    def __init__(self, config: Config, table: Table, num_buckets: int, shuffle: Shuffle):
        super().__init__(config, num_buckets, shuffle)
        self._table = table
        self._features = table_features(config, table.name)

    def _wanted(self) -> Wanted:
        return dict.fromkeys(self._parquet_columns())

    def _parquet_columns(self) -> list[str]:
        return table_columns(self._config, self._table)

    def _read_table(self, block: LogBlock | TableRows, table: pa.Table, order: np.ndarray) -> tuple[Any, np.ndarray]:
        columns = Columns(table)
        key, right = _keys(self._config, self._table.key, columns.get(self._table.key))
        right = right.copy()
        time: pa.Array = pa.array(np.full(table.num_rows, ALWAYS))
        if self._table.timestamp is not None:
            time, time_right = timestamps(columns.get(self._table.timestamp))
            right &= time_right
        arrays = [key, time, pa.array(order)]
        for feature in self._features:
            column, column_right = check_feature(self._config, feature, columns.get(_column(feature)))
            right &= column_right
            arrays.append(column)
        rows = pa.Table.from_arrays(arrays, schema=table_schema(self._config, self._table.name))
        rows = rows.filter(pa.array(right))
        return (rows["_key"], rows), ~right

    def _read_records(self, block: LogBlock | TableRows, records: list[tuple[int, Any, bool]]) -> Iterator[Any]:
        taken = []
        for order, record, _ in records:
            try:
                taken.append({**self._check(record), "_order": order})
            except BadRecord as reason:
                self._refuse(block, order, str(reason), record)
        if taken:
            rows = pa.Table.from_pylist(taken, schema=table_schema(self._config, self._table.name))
            yield rows["_key"], rows

    def _check(self, record: Any) -> dict[str, Any]:
        record = record_object(record, "record")
        row: dict[str, Any] = {"_key": _key(self._config, self._table.key, record), "_time": ALWAYS}
        if self._table.timestamp is not None:
            row["_time"] = timestamp_micros(record.get(self._table.timestamp), self._table.timestamp)
        for feature in self._features:
            column = _column(feature)
            try:
                row[feature.name] = feature_value(self._config, feature, record.get(column))
            except BadRecord as reason:
                # The reason names the feature; what is wrong stands in the column.
                raise BadRecord(f"{column}{str(reason).removeprefix(feature.name)}") from None
        return row

    def _to_bytes(self, batch: pa.Table, rows: np.ndarray) -> bytes:
        return table_to_bytes(batch.take(pa.array(rows)))


def _column(feature: Feature) -> str:
    return feature.column or feature.name


def _keys(config: Config, key: str, values: pa.Array) -> Checked:
    """Keys as strings, and which of them are certainly right."""
    size = _size(config, key)
    if size is None:
        return identifiers(values)
    column, right = integers(values, 0, size)
    return column.cast(pa.string()), right & pc.is_valid(column).to_numpy(zero_copy_only=False)


def _key(config: Config, key: str, record: Any) -> str:
    if _size(config, key) is None:
        return identifier(record, key)
    value = feature_value(config, config.feature(key), record.get(key))
    if value is None:
        raise BadRecord(f"{key}: missing")
    return str(value)


def _size(config: Config, key: str) -> int | None:
    """The size of a key that is an integer in the log; the item key is a string there, whatever its feature is."""
    return None if key == config.item_key else config.feature(key).size  # type: ignore[union-attr]

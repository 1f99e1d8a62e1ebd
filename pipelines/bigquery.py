"""Tables of BigQuery as logs: read by Beam's own connector, brought to the Arrow tables that are read of Parquet.

`bigquery://PROJECT.DATASET.TABLE` names one, of rows or of nested records. The Storage Read API serves the rows in
parallel streams and in no order, so what a file's order decides is decided by the content of the rows: which of two
impressions stays that agree in request, item, time and position, and the order of dead letters.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions

from mmoe_ranker.errors import InputError
from pipelines.batches import table_to_bytes
from pipelines.json_lines import Wanted
from pipelines.log_blocks import the

SCHEME = "bigquery://"
_BATCH_ROWS = 1 << 12
_TYPES: dict[str, pa.DataType] = {
    "STRING": pa.string(),
    "INTEGER": pa.int64(),
    "INT64": pa.int64(),
    "FLOAT": pa.float64(),
    "FLOAT64": pa.float64(),
    "NUMERIC": pa.decimal128(38, 9),
    "BIGNUMERIC": pa.decimal256(76, 38),
    "BOOLEAN": pa.bool_(),
    "BOOL": pa.bool_(),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
}


@dataclasses.dataclass(frozen=True)
class TableLog:
    """A log that is a table: its name, the columns that the config names, and the bytes of the whole table."""

    log: str
    path: str
    schema: pa.Schema
    size: int

    @property
    def selected(self) -> list[str]:
        """The columns to read; of a record its fields, with dots."""
        return [name for field in self.schema for name in _paths(field)]


@dataclasses.dataclass(frozen=True)
class TableRows:
    """Some rows of a table, as an Arrow stream."""

    log: str
    path: str
    stream: bytes


def find_table(
    log: str, path: str, columns: list[str], options: PipelineOptions, nested: Wanted | None = None
) -> TableLog:
    """Looks a table up.

    Args:
      log: which log it is: impressions, feedback, or the `table_log` of a table.
      path: `bigquery://PROJECT.DATASET.TABLE`.
      columns: those to read where a row is one impression or event.
      options: of the job, with credentials and project.
      nested: the fields to read where a row is a request with its list of impressions.

    Raises:
      InputError: the extra `bigquery` is not installed, there is no such table, or a column is of a type not read.
    """
    name = re.fullmatch(rf"{SCHEME}(?P<project>[\w:.-]+)\.(?P<dataset>\w+)\.(?P<table>[\w$-]+)", path)
    if name is None:
        raise InputError(f"{the(log)} must be named {SCHEME}PROJECT.DATASET.TABLE. Received: {path!r}.")
    try:
        table = _connector().lookup.from_pipeline_options(options).get_table(*name.groups())
    except InputError:
        raise
    except Exception as error:  # clients, credentials and transport each raise types of their own
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{the(log)} must be a BigQuery table that can be read ({reason}). Received: {path!r}.") from (
            None
        )
    is_nested = nested is not None and any(field.name == "impressions" for field in table.schema.fields)
    wanted: Wanted = nested if nested is not None and is_nested else dict.fromkeys(columns)
    schema = pa.schema(_fields(path, table.schema.fields, wanted))
    return TableLog(log, path, schema, int(table.numBytes))


class ReadRows(beam.PTransform):
    """A pipeline's begin -> TableRows."""

    def __init__(self, table: TableLog):
        super().__init__()
        self._table = table

    def expand(self, begin: Any) -> beam.PCollection:
        """Wires the connector's rows into batches."""
        table = self._table
        project, dataset, name = table.path[len(SCHEME) :].rsplit(".", 2)
        rows = begin | "Rows" >> _connector().read(
            method="DIRECT_READ", table=f"{project}:{dataset}.{name}", selected_fields=table.selected
        )
        batches = rows | "Batch" >> beam.BatchElements(min_batch_size=_BATCH_ROWS, max_batch_size=_BATCH_ROWS)
        return batches | "ToArrow" >> beam.ParDo(_ToArrow(table))


class _ToArrow(beam.DoFn):
    """A list of rows as dicts, as the connector gives them -> TableRows."""

    def __init__(self, table: TableLog):
        self._table = table

    def process(self, rows: list[dict[str, Any]]) -> Iterator[TableRows]:
        # By the table's schema: types guessed from values would depend on which rows came together.
        table = pa.Table.from_pylist(rows, schema=self._table.schema)
        yield TableRows(self._table.log, self._table.path, table_to_bytes(table))


def content_order(table: pa.Table) -> np.ndarray:
    """A number from 0 to 2^63 - 1 a row [R] that depends on the row's values alone, and differs where they do."""
    columns = [_hashes(column.combine_chunks()) for column in table.columns]
    return (_mixed(columns, table.num_rows) >> np.uint64(1)).astype(np.int64)


def _hashes(values: pa.Array) -> np.ndarray:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    kind = values.type
    if pa.types.is_struct(kind):
        hashed = _mixed([_hashes(pc.struct_field(values, place)) for place in range(kind.num_fields)], len(values))
    elif pa.types.is_list(kind):
        sizes = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        ends = np.cumsum(sizes)
        place = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
        each = _mixed([_hashes(values.flatten()), pd.util.hash_array(place)], len(place))
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(each, dtype=np.uint64)])
        hashed = _mixed([total[ends] - total[ends - sizes], pd.util.hash_array(sizes)], len(values))
    elif pa.types.is_string(kind):
        encoded = values.dictionary_encode()
        distinct = pd.util.hash_array(encoded.dictionary.to_numpy(zero_copy_only=False), categorize=False)
        distinct = np.concatenate([distinct, np.zeros(1, np.uint64)])
        hashed = distinct[encoded.indices.fill_null(len(distinct) - 1).to_numpy(zero_copy_only=False)]
    else:
        plain = pa.int64() if pa.types.is_timestamp(kind) or pa.types.is_boolean(kind) else pa.float64()
        plain = kind if pa.types.is_int64(kind) else plain
        numbers = values.cast(plain, safe=False).fill_null(0)
        hashed = pd.util.hash_array(numbers.to_numpy(zero_copy_only=False))
    absent = values.is_null().to_numpy(zero_copy_only=False)
    return np.where(absent, np.uint64(0x9E3779B97F4A7C15), hashed)


def _mixed(columns: list[np.ndarray], num_rows: int) -> np.ndarray:
    mixed = np.zeros(num_rows, np.uint64)
    for column in columns:
        # Each column's place counts: the same value in two columns must not cancel out.
        mixed = pd.util.hash_array(mixed * np.uint64(0x100000001B3) + column)
    return mixed


def _fields(path: str, fields: Any, wanted: Wanted) -> list[pa.Field]:
    chosen = []
    for field in fields:
        if field.name not in wanted:
            continue
        inner = wanted[field.name]
        if field.type in ("RECORD", "STRUCT"):
            below = inner[0] if isinstance(inner, list) else inner or {}
            kind: pa.DataType = pa.struct(_fields(path, field.fields, below))
        elif field.type in _TYPES:
            kind = _TYPES[field.type]
        else:
            raise InputError(
                f"The column `{field.name}` of a BigQuery table must be of one of the types that are read: "
                f"{', '.join(_TYPES)}, or a RECORD of them; cast it by a query. Received: {field.type} in {path!r}."
            )
        chosen.append(pa.field(field.name, pa.list_(kind) if field.mode == "REPEATED" else kind))
    return chosen


def _paths(field: pa.Field) -> Iterator[str]:
    kind = field.type.value_type if pa.types.is_list(field.type) else field.type
    if pa.types.is_struct(kind):
        yield from (f"{field.name}.{path}" for inner in kind for path in _paths(inner))
    else:
        yield field.name


class _Connector(NamedTuple):
    """What is used of Beam's connector: `ReadFromBigQuery`, and `BigQueryWrapper` to look tables up."""

    read: Any
    lookup: Any


def _connector() -> _Connector:
    try:
        import google.cloud.bigquery_storage  # noqa: F401  # without it Beam's modules are there, but empty
        from apache_beam.io.gcp.bigquery import ReadFromBigQuery
        from apache_beam.io.gcp.bigquery_tools import BigQueryWrapper
    except ImportError as error:
        raise InputError(
            f"Tables of BigQuery need the extra `bigquery`: `pip install 'mmoe_ranker[bigquery]'`. Received: {error}."
        ) from None
    return _Connector(ReadFromBigQuery, BigQueryWrapper)

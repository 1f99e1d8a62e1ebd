"""Beam steps that read blocks of the two logs: good records as batches by join bucket, bad ones with their reason."""

from __future__ import annotations

import abc
import json
import math
import operator
from collections import Counter
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from mmoe_ranker.config import Config
from pipelines.batches import (
    FEEDBACK_SCHEMA,
    ImpressionBatch,
    bucket_of,
    rows_by_key,
    table_from_bytes,
    table_to_bytes,
)
from pipelines.bigquery import TableRows, content_order
from pipelines.dead_letters import DEAD_LETTERS, DeadLetters
from pipelines.json_lines import (
    WANTED_FEEDBACK_FIELDS,
    LineParser,
    Lines,
    Wanted,
    parse_line,
    wanted_impression_fields,
)
from pipelines.log_blocks import LogBlock, not_parquet, read_line_chunks, read_tables
from pipelines.log_tables import (
    batch_of_rows,
    feedback,
    flat_impressions,
    is_nested,
    nested_impressions,
    not_utf8,
    readable,
)
from pipelines.record_checks import BadRecord, check_event, check_impression_row, check_request
from pipelines.shuffle import Shuffle

COUNTS = "counts"


class ReadLog(beam.DoFn):
    """What the readers of logs and tables share: opening blocks, setting bad records apart, counting."""

    def __init__(self, config: Config, num_buckets: int, shuffle: Shuffle):
        self._config = config
        self._num_buckets = num_buckets
        self._shuffle = shuffle
        self._letters: list[tuple[int, str]] = []
        self._counts: Counter[tuple[str, ...]] = Counter()

    def process(self, block: LogBlock | TableRows) -> Iterator[Any]:
        """Reads one block, or some rows of a table."""
        self._letters, self._counts = [], Counter()
        for requests, batch in self._read(block):
            for bucket, rows in rows_by_key(bucket_of(requests, self._num_buckets)):
                yield bucket, self._shuffle.put(self._to_bytes(batch, rows))
        for letters in self._dead_letters(block):
            yield beam.pvalue.TaggedOutput(DEAD_LETTERS, letters)
        yield beam.pvalue.TaggedOutput(COUNTS, dict(self._counts))

    def _read(self, block: LogBlock | TableRows) -> Iterator[Any]:
        if isinstance(block, TableRows):
            table = table_from_bytes(block.stream)
            return self._read_rows(block, table, content_order(table))
        return self._read_parquet(block) if block.kind == "parquet" else self._read_lines(block)

    def _dead_letters(self, block: LogBlock | TableRows) -> Iterator[DeadLetters]:
        # In order of the log: lines that are no JSON were found before the others.
        self._letters.sort(key=operator.itemgetter(0))
        files: dict[tuple[int, int], list[str]] = {}
        for order, line in self._letters:
            of_table = (order % self._num_buckets, self._num_buckets)
            files.setdefault(of_table if isinstance(block, TableRows) else (block.index, block.count), []).append(line)
        for file, lines in files.items():
            if isinstance(block, TableRows):
                lines.sort()
            yield DeadLetters(block.log, *file, "".join(lines).encode("utf-8", "backslashreplace"))

    def _refuse(self, block: LogBlock | TableRows, order: int, reason: str, record: Any) -> None:
        self._counts[(block.log, "dead_letters", reason)] += 1
        letter = {"reason": reason, "source": block.path, "record": _plain(record)}
        self._letters.append((order, json.dumps(letter, ensure_ascii=False) + "\n"))

    def _read_lines(self, block: LogBlock) -> Iterator[Any]:
        parser = LineParser(self._wanted())
        for offset, data in read_line_chunks(block):
            lines = Lines.of(data)
            order = block.first_order - block.start + offset + lines.starts
            self._counts[(block.log, "records")] += len(lines)
            left: list[int] = []
            for run, table in parser.parse(lines):
                if table is None:
                    left += run.tolist()
                    continue
                good, suspect = self._read_table(block, table, order[run])
                yield good
                left += run[suspect].tolist()
            records = []
            for line in left:
                try:
                    records.append((int(order[line]), parse_line(lines.text(line)), False))
                except BadRecord as reason:
                    self._refuse(
                        block, int(order[line]), str(reason), lines.text(line).decode("utf-8", "backslashreplace")
                    )
            yield from self._read_records(block, records)

    def _read_parquet(self, block: LogBlock) -> Iterator[Any]:
        for row, table in read_tables(block, self._parquet_columns(), self._repeating_columns()):
            order = block.first_order + row + np.arange(table.num_rows)
            try:
                broken = not_utf8(table)
            except pa.ArrowIndexError as error:  # A broken page of numbers in a dictionary.
                raise not_parquet(block.path, error) from None
            for place in np.flatnonzero(broken).tolist():
                record = {name: readable(table[name][place]) for name in table.column_names}
                self._refuse(block, int(order[place]), "record: must be UTF-8", record)
            if broken.any():
                table, order = table.filter(pa.array(~broken)), order[~broken]
            self._counts[(block.log, "records")] += int(broken.sum())
            yield from self._read_rows(block, table, order)

    def _read_rows(self, block: LogBlock | TableRows, table: pa.Table, order: np.ndarray) -> Iterator[Any]:
        self._counts[(block.log, "records")] += table.num_rows
        good, suspect = self._read_table(block, table, order)
        yield good
        left = table.filter(pa.array(suspect)).to_pylist()
        flat = not is_nested(table)
        records = [(int(place), record, flat) for place, record in zip(order[suspect], left, strict=True)]
        yield from self._read_records(block, records)

    @abc.abstractmethod
    def _wanted(self) -> Wanted:
        """The fields that the parser of JSON lines is to read."""

    @abc.abstractmethod
    def _parquet_columns(self) -> list[str]:
        """The columns that are read of a Parquet file."""

    def _repeating_columns(self) -> list[str]:
        """Which of them, as a rule, hold the same in many rows that follow one another."""
        return []

    @abc.abstractmethod
    def _read_table(self, block: LogBlock | TableRows, table: pa.Table, order: np.ndarray) -> tuple[Any, np.ndarray]:
        """The good rows as (requests, batch), and which rows need to be looked at one by one."""

    @abc.abstractmethod
    def _read_records(self, block: LogBlock | TableRows, records: list[tuple[int, Any, bool]]) -> Iterator[Any]:
        """The good ones among doubtful records, as (requests, batch); the others become dead letters."""

    @abc.abstractmethod
    def _to_bytes(self, batch: Any, rows: np.ndarray) -> bytes:
        """These rows of a batch, as the join takes them."""


class ReadImpressions(ReadLog):
    """LogBlock -> (bucket, payload of an impression batch); tags: dead letters, counts."""

    def _wanted(self) -> Wanted:
        return wanted_impression_fields(self._config)

    def _parquet_columns(self) -> list[str]:
        return ["context", "impressions", *impression_columns(self._config)]

    def _repeating_columns(self) -> list[str]:
        return ["request_id", *(feature.name for feature in self._config.side("context"))]

    def _read_table(self, block: LogBlock | TableRows, table: pa.Table, order: np.ndarray) -> tuple[Any, np.ndarray]:
        of_lines = isinstance(block, LogBlock) and block.kind != "parquet"
        read = nested_impressions if is_nested(table) or of_lines else flat_impressions
        batch, suspect = read(self._config, table, order)
        if isinstance(block, TableRows) and read is flat_impressions:
            batch = _placed_by_content(batch, order[~suspect])
        self._counts[(block.log, "rows")] += batch.impressions.num_rows
        return _by_request(batch), suspect

    def _read_records(self, block: LogBlock | TableRows, records: list[tuple[int, Any, bool]]) -> Iterator[Any]:
        taken = []
        for order, record, flat in records:
            try:
                checked = (check_impression_row if flat else check_request)(self._config, record)
            except BadRecord as reason:
                self._refuse(block, order, str(reason), record)
                continue
            for reason_text, impression in checked.refused:
                # The record with this impression alone, so that it can be put right and read again.
                self._refuse(block, order, reason_text, {**record, "impressions": [impression]})
            if checked.impressions:
                taken.append(({**checked.context, "_order": order}, checked.impressions))
        if taken:
            batch = batch_of_rows(self._config, taken)
            self._counts[(block.log, "rows")] += batch.impressions.num_rows
            yield _by_request(batch)

    def _to_bytes(self, batch: ImpressionBatch, rows: np.ndarray) -> bytes:
        return batch.take(rows).to_bytes()


class ReadFeedback(ReadLog):
    """LogBlock -> (bucket, payload of a feedback table); tags: dead letters, counts."""

    def _wanted(self) -> Wanted:
        return WANTED_FEEDBACK_FIELDS

    def _parquet_columns(self) -> list[str]:
        return feedback_columns()

    def _read_table(self, block: LogBlock | TableRows, table: pa.Table, order: np.ndarray) -> tuple[Any, np.ndarray]:
        events, suspect, ignored = feedback(self._config, table)
        self._counts.update({(block.log, "ignored", name): many for name, many in ignored.items()})
        return (events["_request"], events), suspect

    def _read_records(self, block: LogBlock | TableRows, records: list[tuple[int, Any, bool]]) -> Iterator[Any]:
        rows = []
        for order, record, _ in records:
            try:
                row = check_event(self._config, record)
            except BadRecord as reason:
                self._refuse(block, order, str(reason), record)
                continue
            if row is None:
                # JSON may escape half a surrogate pair, which no UTF-8 can hold.
                name = record["event"].encode("utf-8", "backslashreplace").decode("utf-8")
                self._counts[(block.log, "ignored", name)] += 1
            else:
                rows.append(row)
        if rows:
            events = pa.Table.from_pylist(rows, schema=FEEDBACK_SCHEMA)
            yield events["_request"], events

    def _to_bytes(self, batch: pa.Table, rows: np.ndarray) -> bytes:
        return table_to_bytes(batch.take(pa.array(rows)))


def impression_columns(config: Config) -> list[str]:
    """The columns of a flat table of impressions."""
    logged = [feature.name for feature in config.features if feature.is_logged]
    return ["request_id", "timestamp", "position", config.item_key, *logged]


def feedback_columns() -> list[str]:
    """The columns of a table of feedback."""
    return list(WANTED_FEEDBACK_FIELDS)


def _placed_by_content(batch: ImpressionBatch, order: np.ndarray) -> ImpressionBatch:
    """A flat batch whose rows stand nowhere: which rows follow one another, and so share a context, is chance."""
    contexts, impressions = batch.contexts, batch.impressions
    nowhere = pa.array(np.zeros(contexts.num_rows, np.int64))
    return ImpressionBatch(
        contexts.set_column(contexts.column_names.index("_order"), "_order", nowhere),
        impressions.set_column(impressions.column_names.index("_index"), "_index", pa.array(order)),
    )


def _by_request(batch: ImpressionBatch) -> tuple[pa.ChunkedArray, ImpressionBatch]:
    return batch.contexts["_request"].take(batch.impressions["_row"]), batch


def _plain(value: Any) -> Any:
    """A value as standard JSON can hold it: numbers that are not finite, and times, as strings."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str | bool | int) or value is None or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)

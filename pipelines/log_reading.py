"""Beam steps that read blocks of the two logs: good records as batches by join bucket, bad ones with their reason."""

from __future__ import annotations

import abc
import dataclasses
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
from pipelines.batches import FEEDBACK_SCHEMA, ImpressionBatch, bucket_of, rows_by_key, table_to_bytes
from pipelines.json_lines import (
    WANTED_FEEDBACK_FIELDS,
    LineParser,
    Lines,
    Wanted,
    parse_line,
    wanted_impression_fields,
)
from pipelines.log_blocks import LogBlock, read_line_chunks, read_tables
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

DEAD_LETTERS = "dead_letters"
COUNTS = "counts"


@dataclasses.dataclass(frozen=True)
class DeadLetters:
    """The bad records of one block, as lines of the dead-letter file."""

    log: str
    block: int
    blocks: int
    lines: bytes


class ReadLog(beam.DoFn):
    """What the readers of logs and tables share: opening blocks, setting bad records apart, counting."""

    def __init__(self, config: Config, num_buckets: int, shuffle: Shuffle):
        self._config = config
        self._num_buckets = num_buckets
        self._shuffle = shuffle
        self._letters: list[tuple[int, str]] = []
        self._counts: Counter[tuple[str, ...]] = Counter()

    def process(self, block: LogBlock) -> Iterator[Any]:
        """Reads one block."""
        self._letters, self._counts = [], Counter()
        reader = self._read_parquet if block.kind == "parquet" else self._read_lines
        for requests, batch in reader(block):
            for bucket, rows in rows_by_key(bucket_of(requests, self._num_buckets)):
                yield bucket, self._shuffle.put(self._to_bytes(batch, rows))
        if self._letters:
            # In order of the log: lines that are no JSON were found before the others.
            self._letters.sort(key=operator.itemgetter(0))
            lines = "".join(line for _, line in self._letters).encode("utf-8", "backslashreplace")
            yield beam.pvalue.TaggedOutput(DEAD_LETTERS, DeadLetters(block.log, block.index, block.count, lines))
        yield beam.pvalue.TaggedOutput(COUNTS, dict(self._counts))

    def _refuse(self, block: LogBlock, order: int, reason: str, record: Any) -> None:
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
            self._counts[(block.log, "records")] += table.num_rows
            broken = not_utf8(table)
            for place in np.flatnonzero(broken).tolist():
                record = {name: readable(table[name][place]) for name in table.column_names}
                self._refuse(block, int(order[place]), "record: must be UTF-8", record)
            if broken.any():
                table, order = table.filter(pa.array(~broken)), order[~broken]
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
    def _read_table(self, block: LogBlock, table: pa.Table, order: np.ndarray) -> tuple[Any, np.ndarray]:
        """The good rows as (requests, batch), and which rows need to be looked at one by one."""

    @abc.abstractmethod
    def _read_records(self, block: LogBlock, records: list[tuple[int, Any, bool]]) -> Iterator[Any]:
        """The good ones among doubtful records, as (requests, batch); the others become dead letters."""

    @abc.abstractmethod
    def _to_bytes(self, batch: Any, rows: np.ndarray) -> bytes:
        """These rows of a batch, as the join takes them."""


class ReadImpressions(ReadLog):
    """LogBlock -> (bucket, payload of an impression batch); tags: dead letters, counts."""

    def _wanted(self) -> Wanted:
        return wanted_impression_fields(self._config)

    def _parquet_columns(self) -> list[str]:
        features = [feature.name for feature in self._config.features if feature.is_logged]
        own = ["request_id", "timestamp", "context", "impressions", "position", self._config.item_key]
        return own + features

    def _repeating_columns(self) -> list[str]:
        return ["request_id", *(feature.name for feature in self._config.side("context"))]

    def _read_table(self, block: LogBlock, table: pa.Table, order: np.ndarray) -> tuple[Any, np.ndarray]:
        read = nested_impressions if is_nested(table) or block.kind != "parquet" else flat_impressions
        batch, suspect = read(self._config, table, order)
        self._counts[(block.log, "rows")] += batch.impressions.num_rows
        return _by_request(batch), suspect

    def _read_records(self, block: LogBlock, records: list[tuple[int, Any, bool]]) -> Iterator[Any]:
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
        return list(WANTED_FEEDBACK_FIELDS)

    def _read_table(self, block: LogBlock, table: pa.Table, order: np.ndarray) -> tuple[Any, np.ndarray]:
        events, suspect, ignored = feedback(self._config, table)
        self._counts[(block.log, "rows")] += events.num_rows
        self._counts.update({(block.log, "ignored", name): many for name, many in ignored.items()})
        return (events["_request"], events), suspect

    def _read_records(self, block: LogBlock, records: list[tuple[int, Any, bool]]) -> Iterator[Any]:
        rows = []
        for order, record, _ in records:
            try:
                row = check_event(self._config, record)
            except BadRecord as reason:
                self._refuse(block, order, str(reason), record)
                continue
            if row is None:
                self._counts[(block.log, "ignored", record["event"])] += 1
            else:
                rows.append(row)
        self._counts[(block.log, "rows")] += len(rows)
        if rows:
            events = pa.Table.from_pylist(rows, schema=FEEDBACK_SCHEMA)
            yield events["_request"], events

    def _to_bytes(self, batch: pa.Table, rows: np.ndarray) -> bytes:
        return table_to_bytes(batch.take(pa.array(rows)))


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

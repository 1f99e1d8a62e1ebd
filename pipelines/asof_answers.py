"""Answers the questions of impressions beside the rows and events of their keys: as of each question's time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from mmoe_ranker.config import Config
from mmoe_ranker.config_tables import Table
from pipelines.asof_questions import QUESTIONS, answers_schema, hit_name, questions_at_once
from pipelines.batches import table_from_bytes, table_to_bytes
from pipelines.log_blocks import table_log
from pipelines.log_reading import COUNTS
from pipelines.own_histories import EVENTS_SCHEMA, OwnHistory, histories
from pipelines.shuffle import Payload, Shuffle
from pipelines.table_reading import table_features, table_schema
from pipelines.timelines import Timeline

EVENTS = "events"


class AnswerAsOf(beam.DoFn):
    """(bucket, its values, each with its source) -> (batch's name, (key, payload of answers)); tag: counts.

    A source is the `table_log` of a table, with payloads of its rows; `EVENTS`, likewise; or `QUESTIONS`, of which each
    value is a batch's name and a payload.
    """

    def __init__(self, config: Config, key: str, shuffle: Shuffle):
        self._config = config
        self._key = key
        self._shuffle = shuffle

    def process(self, element: tuple[int, Iterable[tuple[str, Any]]]) -> Iterator[Any]:
        """Answers one bucket; its values are walked through twice."""
        _, values = element
        read = defaultdict(list)
        for source, value in values:
            if source != QUESTIONS:
                read[source].append(table_from_bytes(self._shuffle.get(value)))
        mine = [table for table in self._config.tables if table.key == self._key]
        tables = [TableRows(self._config, table, read[table_log(table.name)]) for table in mine]
        known = pa.concat_tables([EVENTS_SCHEMA.empty_table(), *read[EVENTS]])
        lists = {one.name: OwnHistory(self._config, one, known) for one in histories(self._config, self._key)}
        counts: Counter[tuple[str, ...]] = Counter()
        for one in tables:
            counts.update(one.counts)
        counts.update({("histories", name, "events"): len(own) for name, own in lists.items()})
        yield beam.pvalue.TaggedOutput(COUNTS, dict(counts))

        # The second walk, so that there is never more than a slice of questions and answers at a time.
        step = questions_at_once(self._config, self._key)
        held: list[tuple[Any, pa.Table]] = []
        size = 0
        for source, value in values:
            if source != QUESTIONS:
                continue
            name, payload = value
            held.append((name, table_from_bytes(self._shuffle.get(payload))))
            size += held[-1][1].num_rows
            if size >= step:
                yield from self._answers(tables, lists, held)
                held, size = [], 0
        if held:
            yield from self._answers(tables, lists, held)

    def _answers(
        self, tables: list[TableRows], lists: dict[str, OwnHistory], held: list[tuple[Any, pa.Table]]
    ) -> Iterator[tuple[Any, tuple[str, Payload]]]:
        questions = pa.concat_tables([asked for _, asked in held]).combine_chunks()
        keys, times = questions["_key"].combine_chunks(), questions["_time"].to_numpy()
        columns = {"_row": questions["_row"]}
        for one in tables:
            columns |= one.as_of(keys, times)
        columns |= {name: own.as_of(keys, times) for name, own in lists.items()}
        schema = answers_schema(self._config, self._key)
        answers, start = pa.table([columns[name] for name in schema.names], schema), 0
        for name, asked in held:
            yield name, (self._key, self._shuffle.put(table_to_bytes(answers.slice(start, asked.num_rows))))
            start += asked.num_rows


class TableRows:
    """The rows of one table in a bucket, to be asked as of any times.

    Of rows of one key and time that which stands last in the files holds; the others are counted as duplicates.
    """

    def __init__(self, config: Config, table: Table, parts: list[pa.Table]):
        rows = pa.concat_tables([table_schema(config, table.name).empty_table(), *parts]).combine_chunks()
        timeline = Timeline.of(rows["_key"], rows["_time"].to_numpy(), rows["_order"].to_numpy())
        last = timeline.last_of_each()
        kept = timeline.order[last]
        self._timeline = Timeline(kept, timeline.keys, timeline.times, timeline.places[last])
        self._features = rows.select([f.name for f in table_features(config, table.name)]).take(pa.array(kept))
        self._name = table.name
        log = table_log(table.name)
        self.counts = Counter({(log, "rows"): int(last.sum()), (log, "duplicates"): int((~last).sum())})

    def as_of(self, keys: pa.Array, times: np.ndarray) -> dict[str, pa.Array | pa.ChunkedArray]:
        """Each feature's values [q], null where no row held yet; and whether one did."""
        start, stop = self._timeline.spans(keys, times, inclusive=True)
        found = stop > start
        held = self._features.take(pa.array(stop - 1, mask=~found))
        return {hit_name(self._name): pa.array(found), **{name: held[name] for name in held.column_names}}

"""Features of tables and histories, joined to impressions as of their request's time, never later.

    joined batch -> questions (key, time) by hash of key -> answered beside the rows and events of their keys -> batch

Impressions do not travel to the keys; small questions do, and their answers come back to the batch, which is shuffled
once, whatever the number of keys. So nothing depends on how often a key occurs: a user or an item of a million
impressions is a million questions of some twenty bytes, which are answered a slice at a time beside the rows of its
bucket. One way serves tables of any size and histories alike; a table is never copied to every worker.

A key is the item key, or a feature, by which a table or a history is looked up. Each has its own shuffle.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmoe_ranker.config import Config
from mmoe_ranker.config_features import Feature
from mmoe_ranker.config_tables import Table
from mmoe_ranker.examples import feature_field
from pipelines.batches import ImpressionBatch, bucket_of, ranks, rows_by_key, table_from_bytes, table_to_bytes
from pipelines.canonical_columns import arrow_type
from pipelines.log_blocks import table_log
from pipelines.log_reading import COUNTS, DEAD_LETTERS
from pipelines.own_histories import EVENTS, EVENTS_SCHEMA, OwnHistory, histories, history_keys, key_strings
from pipelines.table_reading import ROWS, ReadTable, table_features, table_schema
from pipelines.timelines import Timeline

_QUESTIONS_SCHEMA = pa.schema([("_row", pa.int64()), ("_key", pa.string()), ("_time", pa.int64())])
# Values that answers may hold at a time: a question of a list or vector feature asks for that many more.
_SLICE_VALUES = 1 << 21
_MOST_QUESTIONS = 1 << 16
_QUESTIONS = "questions"


def asof_keys(config: Config) -> tuple[str, ...]:
    """The item key or features by which tables and histories are looked up, each once."""
    return tuple(dict.fromkeys([*(table.key for table in config.tables), *history_keys(config)]))


def events_tag(key: str) -> str:
    """The output of the join with the events that histories of this key list."""
    return f"events_{key}"


class JoinAsOf(beam.PTransform):
    """Joined batches -> the same with all features; takes and returns a dict of collections.

    Takes `batches`; the LogBlocks of each table, as its `table_log`; and by `events_tag` of each key of a history its
    events, as `own_events` gives them. Returns `batches`, `dead_letters` and `counts`.
    """

    def __init__(self, config: Config, num_buckets: int):
        super().__init__()
        self._config = config
        self._num_buckets = num_buckets

    def expand(self, inputs: dict[str, beam.PCollection]) -> dict[str, beam.PCollection]:
        """Wires the steps."""
        config = self._config
        keys = asof_keys(config)
        asked = inputs["batches"] | "Ask" >> beam.ParDo(_Ask(config, self._num_buckets)).with_outputs(
            *keys, main="batches"
        )
        read = {
            table.name: inputs[table_log(table.name)]
            | f"Read_{table.name}"
            >> beam.ParDo(ReadTable(config, table, self._num_buckets)).with_outputs(DEAD_LETTERS, COUNTS, main="rows")
            for table in config.tables
        }
        answered = []
        for key in keys:
            tables = [read[table.name].rows for table in config.tables if table.key == key]
            events = [inputs[events_tag(key)]] if histories(config, key) else []
            answered.append(
                [asked[key], *tables, *events]
                | f"All_{key}" >> beam.Flatten()
                | f"GroupBy_{key}" >> beam.GroupByKey()
                | f"Answer_{key}" >> beam.ParDo(_Answer(config, key)).with_outputs(COUNTS, main="answers")
            )
        joined = (
            {"batches": asked.batches, "answers": [one.answers for one in answered] | "Answers" >> beam.Flatten()}
            | "GroupByBatch" >> beam.CoGroupByKey()
            | "Attach" >> beam.ParDo(_Attach(config)).with_outputs(COUNTS, main="batches")
        )
        counts = [one[COUNTS] for one in (joined, *answered, *read.values())]
        # Of histories alone there is no table to read.
        letters = [one[DEAD_LETTERS] for one in read.values()]
        return {
            "batches": joined.batches,
            "dead_letters": letters | "DeadLetters" >> beam.Flatten(pipeline=inputs["batches"].pipeline),
            "counts": counts | "Counts" >> beam.Flatten(),
        }


class _Ask(beam.DoFn):
    """Joined batch -> (its name, the batch); a tag a key: (bucket, (`_QUESTIONS`, name, questions))."""

    def __init__(self, config: Config, num_buckets: int):
        self._config = config
        self._num_buckets = num_buckets

    def process(self, streams: tuple[bytes, bytes]) -> Iterator[Any]:
        batch = _ordered(ImpressionBatch.from_bytes(streams))
        name = batch.contexts["_request"][0].as_py(), batch.impressions["_item"][0].as_py()
        yield name, batch.to_bytes()
        row = pa.array(batch.impressions["_row"].to_numpy())
        for key in asof_keys(self._config):
            if _is_of_contexts(self._config, key):
                keys, times = key_strings(batch.contexts[key]), batch.contexts["_time"]
            else:
                column = "_item" if key == self._config.item_key else key
                keys, times = key_strings(batch.impressions[column]), batch.contexts["_time"].take(row)
            asked = pa.Table.from_arrays([pa.array(np.arange(len(keys))), keys, times], schema=_QUESTIONS_SCHEMA)
            asked = asked.filter(pc.is_valid(keys)).combine_chunks()
            step = _questions_at_once(self._config, key)
            for bucket, rows in rows_by_key(bucket_of(asked["_key"], self._num_buckets)):
                for start in range(0, len(rows), step):
                    questions = asked.take(pa.array(rows[start : start + step]))
                    yield beam.pvalue.TaggedOutput(key, (bucket, (_QUESTIONS, name, table_to_bytes(questions))))


class _Answer(beam.DoFn):
    """(bucket, rows, events and questions of its keys) -> (batch's name, (key, answers)); tag: counts."""

    def __init__(self, config: Config, key: str):
        self._config = config
        self._key = key

    def process(self, element: tuple[int, Iterable[tuple[str, Any, bytes]]]) -> Iterator[Any]:
        _, values = element
        rows, events = defaultdict(list), []
        for kind, name, payload in values:
            if kind == ROWS:
                rows[name].append(table_from_bytes(payload))
            elif kind == EVENTS:
                events.append(table_from_bytes(payload))
        tables = [_TableRows(self._config, t, rows[t.name]) for t in self._config.tables if t.key == self._key]
        known = pa.concat_tables([EVENTS_SCHEMA.empty_table(), *events])
        lists = {one.name: OwnHistory(self._config, one, known) for one in histories(self._config, self._key)}
        counts: Counter[tuple[str, ...]] = Counter()
        for one in tables:
            counts.update(one.counts)
        counts.update({("histories", name, "events"): len(own) for name, own in lists.items()})
        yield beam.pvalue.TaggedOutput(COUNTS, dict(counts))

        # A second walk over the values, so that there is never more than a slice of questions and answers at a time.
        step = _questions_at_once(self._config, self._key)
        held: list[tuple[Any, pa.Table]] = []
        size = 0
        for kind, name, payload in values:
            if kind != _QUESTIONS:
                continue
            held.append((name, table_from_bytes(payload)))
            size += held[-1][1].num_rows
            if size >= step:
                yield from self._answers(tables, lists, held)
                held, size = [], 0
        if held:
            yield from self._answers(tables, lists, held)

    def _answers(
        self, tables: list[_TableRows], lists: dict[str, OwnHistory], held: list[tuple[Any, pa.Table]]
    ) -> Iterator[tuple[Any, tuple[str, bytes]]]:
        questions = pa.concat_tables([asked for _, asked in held]).combine_chunks()
        keys, times = questions["_key"].combine_chunks(), questions["_time"].to_numpy()
        columns = {"_row": questions["_row"]}
        for one in tables:
            columns |= one.as_of(keys, times)
        columns |= {name: own.as_of(keys, times) for name, own in lists.items()}
        schema = _answers_schema(self._config, self._key)
        answers, start = pa.table([columns[name] for name in schema.names], schema), 0
        for name, asked in held:
            yield name, (self._key, table_to_bytes(answers.slice(start, asked.num_rows)))
            start += asked.num_rows


class _TableRows:
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
        return {_hit(self._name): pa.array(found), **{name: held[name] for name in held.column_names}}


class _Attach(beam.DoFn):
    """(name, the batch and its answers) -> the batch with all features; tag: counts, of impressions."""

    def __init__(self, config: Config):
        self._config = config

    def process(self, element: tuple[Any, dict[str, Iterable[Any]]]) -> Iterator[Any]:
        _, values = element
        (streams,) = values["batches"]
        batch = ImpressionBatch.from_bytes(streams)
        contexts, impressions = batch.contexts, batch.impressions
        shown = np.bincount(impressions["_row"].to_numpy(), minlength=contexts.num_rows)
        given = defaultdict(list)
        for key, payload in values["answers"]:
            given[key].append(table_from_bytes(payload))
        counts: Counter[tuple[str, ...]] = Counter()
        for key in asof_keys(self._config):
            answers = pa.concat_tables([_answers_schema(self._config, key).empty_table(), *given[key]])
            if _is_of_contexts(self._config, key):
                contexts = _with_answers(contexts, answers)
                counts.update(_counts(self._config, key, contexts, shown))
            else:
                impressions = _with_answers(impressions, answers)
                counts.update(_counts(self._config, key, impressions, np.ones(impressions.num_rows, np.int64)))
        yield beam.pvalue.TaggedOutput(COUNTS, dict(counts))
        hits = [_hit(table.name) for table in self._config.tables]
        contexts, impressions = (
            table.drop_columns([name for name in hits if name in table.column_names])
            for table in (contexts, impressions)
        )
        yield ImpressionBatch(contexts, impressions).to_bytes()


def _with_answers(table: pa.Table, answers: pa.Table) -> pa.Table:
    """A table of contexts or impressions with the columns of its answers; null in rows that nothing was asked of."""
    place = np.full(table.num_rows, -1)
    place[answers["_row"].to_numpy()] = np.arange(answers.num_rows)
    taken = answers.drop_columns(["_row"]).combine_chunks().take(pa.array(place, mask=place < 0))
    for name in taken.column_names:
        table = table.append_column(name, taken[name])
    return table


def _counts(config: Config, key: str, table: pa.Table, weights: np.ndarray) -> Counter[tuple[str, ...]]:
    """Impressions that a table's row held for or not, and whose history is empty; `weights` [n], impressions a row."""
    counts: Counter[tuple[str, ...]] = Counter()
    for one in config.tables:
        if one.key == key:
            hit = table[_hit(one.name)].fill_null(False).to_numpy()
            counts[table_log(one.name), "hits"] = int(weights[hit].sum())
            counts[table_log(one.name), "misses"] = int(weights[~hit].sum())
    for history in histories(config, key):
        empty = pc.equal(pc.list_value_length(table[history.name]), 0).fill_null(False).to_numpy()
        counts["histories", history.name, "empty"] = int(weights[empty].sum())
    return counts


def _ordered(batch: ImpressionBatch) -> ImpressionBatch:
    """In order of request and item, whatever the order in which the join met them.

    Questions name rows by their number, so that a runner that computes the join again must get the same numbers.
    """
    row = batch.impressions["_row"].to_numpy()
    return batch.take(np.lexsort((ranks(batch.impressions["_item"]), ranks(batch.contexts["_request"])[row])))


def _is_of_contexts(config: Config, key: str) -> bool:
    return key != config.item_key and config.feature(key).side == "context"


def _features_by(config: Config, key: str) -> list[Feature]:
    tables = [feature for table in config.tables if table.key == key for feature in table_features(config, table.name)]
    return [*tables, *histories(config, key)]


def _answers_schema(config: Config, key: str) -> pa.Schema:
    hits = [(_hit(table.name), pa.bool_()) for table in config.tables if table.key == key]
    features = [(f.name, arrow_type(feature_field(config, f))) for f in _features_by(config, key)]
    return pa.schema([("_row", pa.int64()), *hits, *features])


def _hit(table: str) -> str:
    return f"_hit_{table}"


def _questions_at_once(config: Config, key: str) -> int:
    lengths = {"sequence": "max_length", "vector": "size"}
    widest = max(getattr(one, lengths[one.kind]) if one.kind in lengths else 1 for one in _features_by(config, key))
    return max(1, min(_MOST_QUESTIONS, _SLICE_VALUES // widest))

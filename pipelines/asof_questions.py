"""Questions of impressions and their answers: what travels between joined batches and the keys of tables and histories.

A question is a key and a time: what did the table, or the feedback, know of this key then? A key is the item key, or a
feature, by which a table or a history is looked up. Of a key of the context each row of a batch's contexts asks, of
another key each impression. The answer is a row of the features that go by the key.

Shapes: R requests and I impressions of a batch.
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
from mmoe_ranker.examples import feature_field
from pipelines.batches import ImpressionBatch, bucket_of, ranks, rows_by_key, table_from_bytes, table_to_bytes
from pipelines.canonical_columns import arrow_type
from pipelines.log_blocks import table_log
from pipelines.log_reading import COUNTS
from pipelines.own_histories import histories, history_keys, key_strings
from pipelines.shuffle import Payload, Shuffle
from pipelines.table_reading import table_features

QUESTIONS = "questions"
_QUESTIONS_SCHEMA = pa.schema([("_row", pa.int64()), ("_key", pa.string()), ("_time", pa.int64())])
# Values that answers may hold at a time: a question of a list or vector feature asks for that many more.
_SLICE_VALUES = 1 << 21
_MOST_QUESTIONS = 1 << 16


def asof_keys(config: Config) -> tuple[str, ...]:
    """The item key or features by which tables and histories are looked up, each once."""
    return tuple(dict.fromkeys([*(table.key for table in config.tables), *history_keys(config)]))


def questions_tag(key: str) -> str:
    """The output of `AskAsOf` with the questions of this key."""
    return f"{QUESTIONS}_{key}"


def _features_by(config: Config, key: str) -> list[Feature]:
    tables = [feature for table in config.tables if table.key == key for feature in table_features(config, table.name)]
    return [*tables, *histories(config, key)]


def answers_schema(config: Config, key: str) -> pa.Schema:
    """What answers a question of this key: its row in the batch, for each table whether a row held, the features."""
    hits = [(hit_name(table.name), pa.bool_()) for table in config.tables if table.key == key]
    features = [(f.name, arrow_type(feature_field(config, f))) for f in _features_by(config, key)]
    return pa.schema([("_row", pa.int64()), *hits, *features])


def hit_name(table: str) -> str:
    """The column that says whether a row of the table held."""
    return f"_hit_{table}"


def questions_at_once(config: Config, key: str) -> int:
    """How many questions of a key are answered together: the fewer, the longer its lists and vectors."""
    lengths = {"sequence": "max_length", "vector": "size"}
    widest = max(getattr(one, lengths[one.kind]) if one.kind in lengths else 1 for one in _features_by(config, key))
    return max(1, min(_MOST_QUESTIONS, _SLICE_VALUES // widest))


class AskAsOf(beam.DoFn):
    """Payload of a joined batch -> (its name, payload); by `questions_tag` of each key: (bucket, (name, payload))."""

    def __init__(self, config: Config, num_buckets: int, shuffle: Shuffle):
        self._config = config
        self._num_buckets = num_buckets
        self._shuffle = shuffle

    def process(self, payload: Payload) -> Iterator[Any]:
        """Asks for one batch, which is called after its first impression."""
        batch = _ordered(ImpressionBatch.from_bytes(self._shuffle.get(payload)))
        name = batch.contexts["_request"][0].as_py(), batch.impressions["_item"][0].as_py()
        yield name, self._shuffle.put(batch.to_bytes())
        row = pa.array(batch.impressions["_row"].to_numpy())
        for key in asof_keys(self._config):
            if _is_of_contexts(self._config, key):
                keys, times = key_strings(batch.contexts[key]), batch.contexts["_time"]
            else:
                column = "_item" if key == self._config.item_key else key
                keys, times = key_strings(batch.impressions[column]), batch.contexts["_time"].take(row)
            asked = pa.Table.from_arrays([pa.array(np.arange(len(keys))), keys, times], schema=_QUESTIONS_SCHEMA)
            asked = asked.filter(pc.is_valid(keys)).combine_chunks()
            step = questions_at_once(self._config, key)
            for bucket, rows in rows_by_key(bucket_of(asked["_key"], self._num_buckets)):
                for start in range(0, len(rows), step):
                    questions = self._shuffle.put(table_to_bytes(asked.take(pa.array(rows[start : start + step]))))
                    yield beam.pvalue.TaggedOutput(questions_tag(key), (bucket, (name, questions)))


class AttachAnswers(beam.DoFn):
    """(name, payloads of the batch and its answers) -> payload of the batch with all features; tag: counts."""

    def __init__(self, config: Config, shuffle: Shuffle):
        self._config = config
        self._shuffle = shuffle

    def process(self, element: tuple[Any, dict[str, Iterable[Any]]]) -> Iterator[Any]:
        """Puts one batch together."""
        _, values = element
        (whole,) = values["batches"]
        batch = ImpressionBatch.from_bytes(self._shuffle.get(whole))
        contexts, impressions = batch.contexts, batch.impressions
        shown = np.bincount(impressions["_row"].to_numpy(), minlength=contexts.num_rows)
        given = defaultdict(list)
        for key, payload in values["answers"]:
            given[key].append(table_from_bytes(self._shuffle.get(payload)))
        counts: Counter[tuple[str, ...]] = Counter()
        for key in asof_keys(self._config):
            answers = pa.concat_tables([answers_schema(self._config, key).empty_table(), *given[key]])
            if _is_of_contexts(self._config, key):
                contexts = _with_answers(contexts, answers)
                counts.update(_counts(self._config, key, contexts, shown))
            else:
                impressions = _with_answers(impressions, answers)
                counts.update(_counts(self._config, key, impressions, np.ones(impressions.num_rows, np.int64)))
        yield beam.pvalue.TaggedOutput(COUNTS, dict(counts))
        hits = [hit_name(table.name) for table in self._config.tables]
        contexts, impressions = (
            table.drop_columns([name for name in hits if name in table.column_names])
            for table in (contexts, impressions)
        )
        yield self._shuffle.put(ImpressionBatch(contexts, impressions).to_bytes())


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
            hit = table[hit_name(one.name)].fill_null(False).to_numpy()
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

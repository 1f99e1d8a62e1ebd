"""Features of tables and histories, joined to impressions as of their request's time, never later.

    joined batch -> questions (key, time) by hash of key -> answered beside the rows and events of their keys -> batch

Impressions do not travel to the keys; small questions do, and their answers come back to the batch, which is shuffled
once, whatever the number of keys. So nothing depends on how often a key occurs: a user or an item of a million
impressions is a million questions of some twenty bytes, which are answered a slice at a time beside the rows of its
bucket. One way serves tables of any size and histories alike; a table is never copied to every worker.

A key is the item key, or a feature, by which a table or a history is looked up. Each has its own shuffle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from mmoe_ranker.config import Config
from pipelines.asof_answers import EVENTS, AnswerAsOf
from pipelines.asof_questions import QUESTIONS, AskAsOf, AttachAnswers, asof_keys, questions_tag
from pipelines.dead_letters import DEAD_LETTERS
from pipelines.log_blocks import table_log
from pipelines.log_reading import COUNTS
from pipelines.own_histories import histories
from pipelines.shuffle import Shuffle
from pipelines.table_reading import ReadTable


def events_tag(key: str) -> str:
    """The output of the join with the events that histories of this key list."""
    return f"events_{key}"


class JoinAsOf(beam.PTransform):
    """Joined batches -> the same with all features; takes and returns a dict of collections.

    Takes `batches`; the LogBlocks of each table, as its `table_log`; and by `events_tag` of each key of a history its
    events, as `own_events` gives them. Returns `batches`, `dead_letters` and `counts`.
    """

    def __init__(self, config: Config, num_buckets: int, shuffle: Shuffle):
        super().__init__()
        self._config = config
        self._num_buckets = num_buckets
        self._shuffle = shuffle

    def expand(self, inputs: dict[str, beam.PCollection]) -> dict[str, beam.PCollection]:
        """Wires the steps."""
        config, num_buckets, shuffle = self._config, self._num_buckets, self._shuffle
        keys = asof_keys(config)
        asked = inputs["batches"] | "Ask" >> beam.ParDo(AskAsOf(config, num_buckets, shuffle)).with_outputs(
            *map(questions_tag, keys), main="batches"
        )
        read = {
            table.name: inputs[table_log(table.name)]
            | f"Read_{table.name}"
            >> beam.ParDo(ReadTable(config, table, num_buckets, shuffle)).with_outputs(
                DEAD_LETTERS, COUNTS, main="rows"
            )
            for table in config.tables
        }
        answered = []
        for key in keys:
            sources = {table_log(table.name): read[table.name].rows for table in config.tables if table.key == key}
            if histories(config, key):
                sources[EVENTS] = inputs[events_tag(key)]
            sources[QUESTIONS] = asked[questions_tag(key)]
            # Grouped as one collection, because Beam's CoGroupByKey would hold all values of a bucket at once.
            named = [values | f"{source}_{key}" >> beam.ParDo(_From(source)) for source, values in sources.items()]
            answered.append(
                named
                | f"All_{key}" >> beam.Flatten()
                | f"GroupBy_{key}" >> beam.GroupByKey()
                | f"Answer_{key}" >> beam.ParDo(AnswerAsOf(config, key, shuffle)).with_outputs(COUNTS, main="answers")
            )
        joined = (
            {"batches": asked.batches, "answers": [one.answers for one in answered] | "Answers" >> beam.Flatten()}
            | "GroupByBatch" >> beam.CoGroupByKey()
            | "Attach" >> beam.ParDo(AttachAnswers(config, shuffle)).with_outputs(COUNTS, main="batches")
        )
        counts = [one[COUNTS] for one in (joined, *answered, *read.values())]
        # Of histories alone there is no table to read.
        letters = [one[DEAD_LETTERS] for one in read.values()]
        return {
            "batches": joined.batches,
            "dead_letters": letters | "DeadLetters" >> beam.Flatten(pipeline=inputs["batches"].pipeline),
            "counts": counts | "Counts" >> beam.Flatten(),
        }


class _From(beam.DoFn):
    """(bucket, value) -> (bucket, (source, value)): what shares a shuffle must be told apart."""

    def __init__(self, source: str):
        self._source = source

    def process(self, element: tuple[int, Any]) -> Iterator[tuple[int, tuple[str, Any]]]:
        bucket, value = element
        yield bucket, (self._source, value)

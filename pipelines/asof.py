"""Features of tables and histories, joined to impressions as of their request's time, never later.

    joined batch -> questions (key, time) by hash of key -> answered beside the rows and events of their keys -> batch

Impressions do not travel to the keys; small questions do, and their answers come back to the batch, which is shuffled
once, whatever the number of keys. So nothing depends on how often a key occurs: a user or an item of a million
impressions is a million questions of some twenty bytes, which are answered a slice at a time beside the rows of its
bucket. One way serves tables of any size and histories alike; a table is never copied to every worker.

A key is the item key, or a feature, by which a table or a history is looked up. Each has its own shuffle.
"""

from __future__ import annotations

import apache_beam as beam

from mmoe_ranker.config import Config
from pipelines.asof_answers import AnswerAsOf
from pipelines.asof_questions import AskAsOf, AttachAnswers, asof_keys, questions_tag
from pipelines.log_blocks import table_log
from pipelines.log_reading import COUNTS, DEAD_LETTERS
from pipelines.own_histories import histories
from pipelines.table_reading import ReadTable


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
        asked = inputs["batches"] | "Ask" >> beam.ParDo(AskAsOf(config, self._num_buckets)).with_outputs(
            *map(questions_tag, keys), main="batches"
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
                [asked[questions_tag(key)], *tables, *events]
                | f"All_{key}" >> beam.Flatten()
                | f"GroupBy_{key}" >> beam.GroupByKey()
                | f"Answer_{key}" >> beam.ParDo(AnswerAsOf(config, key)).with_outputs(COUNTS, main="answers")
            )
        joined = (
            {"batches": asked.batches, "answers": [one.answers for one in answered] | "Answers" >> beam.Flatten()}
            | "GroupByBatch" >> beam.CoGroupByKey()
            | "Attach" >> beam.ParDo(AttachAnswers(config)).with_outputs(COUNTS, main="batches")
        )
        counts = [one[COUNTS] for one in (joined, *answered, *read.values())]
        # Of histories alone there is no table to read.
        letters = [one[DEAD_LETTERS] for one in read.values()]
        return {
            "batches": joined.batches,
            "dead_letters": letters | "DeadLetters" >> beam.Flatten(pipeline=inputs["batches"].pipeline),
            "counts": counts | "Counts" >> beam.Flatten(),
        }

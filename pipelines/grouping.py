"""The job up to its parts, which making examples, checking and scoring share: read, join, plan, bring together.

blocks of both logs -> batches by hash of request -> join, labels -> batches by part in time
                        features of tables and histories, where there are any: `asof` ┘
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from pipelines.asof import JoinAsOf, events_tag
from pipelines.asof_questions import asof_keys
from pipelines.batches import ImpressionBatch, rows_by_key, table_from_bytes
from pipelines.dead_letters import DEAD_LETTERS, GatherDeadLetters
from pipelines.joining import join
from pipelines.log_blocks import table_log
from pipelines.log_reading import COUNTS, ReadFeedback, ReadImpressions
from pipelines.log_sources import find_log
from pipelines.own_histories import history_keys, own_events
from pipelines.sampling import sample_negatives
from pipelines.shuffle import Payload, Shuffle
from pipelines.splits import MergeHistograms, Plan, TimeHistogram, draws, hashed_split, plan_parts

_HISTOGRAM = "histogram"
MAX_IGNORED = 1000
OTHER_EVENTS = "(others)"
_OTHERS = ("feedback", "ignored", OTHER_EVENTS)
_BUCKET_BYTES = 16 << 20  # Of raw logs a join bucket.


class ExamplesOptions(PipelineOptions):
    """The job's own option beside Beam's."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        parser.add_argument(
            "--num_shards",
            type=int,
            default=None,
            help="Buckets of the join, and example files over all splits; default: by the size of the logs.",
        )


def num_shards_of(options: PipelineOptions) -> int | None:
    """The option --num_shards.

    Raises:
      InputError: it is not positive.
    """
    num_shards = options.view_as(ExamplesOptions).num_shards
    if num_shards is not None and num_shards < 1:
        raise InputError(f"The option --num_shards must be at least 1. Received: {num_shards}.")
    return num_shards


def create_blocks(
    config: Config, pipeline: beam.Pipeline, globs: Mapping[str, str], num_shards: int | None
) -> tuple[dict[str, beam.PCollection], int]:
    """Each log as a collection of blocks or rows, and the number of buckets to join them in.

    Raises:
      InputError: no file matches a log's glob, or one is of a kind that is not read; or so with a BigQuery table.
    """
    logs = {log: find_log(config, pipeline.options, log, pattern) for log, pattern in globs.items()}
    blocks = {name: log.read(pipeline) for name, log in logs.items()}
    return blocks, num_shards or max(2, -(-sum(log.size for log in logs.values()) // _BUCKET_BYTES))


class GroupParts(beam.PTransform):
    """The job up to its parts: {`impressions`, `feedback`, each `table_log`: blocks or rows} -> a dict of collections.

    `grouped`: ((split, index, count) of a part, payloads of its joined batches); `feedback`: (bucket, payload of a
    feedback table), as read; `dead_letters`: DeadLetters; and one element each: `counts` (Counter), `plan` (Plan).
    What the payloads stand for, `shuffle` tells.
    """

    def __init__(self, config: Config, num_buckets: int, num_shards: int | None = None, shuffle: Shuffle | None = None):
        super().__init__()
        self._config = config
        self._num_buckets = num_buckets
        # What travels by key is small beside the impressions.
        self._num_key_buckets = max(2, num_buckets // 8)
        self._num_shards = num_shards
        self._shuffle = shuffle or Shuffle()

    def expand(self, blocks: dict[str, beam.PCollection]) -> dict[str, beam.PCollection]:
        """Wires the steps."""
        config, shuffle = self._config, self._shuffle
        impressions = blocks["impressions"] | "ReadImpressions" >> beam.ParDo(
            ReadImpressions(config, self._num_buckets, shuffle)
        ).with_outputs(DEAD_LETTERS, COUNTS, main="batches")
        feedback = blocks["feedback"] | "ReadFeedback" >> beam.ParDo(
            ReadFeedback(config, self._num_buckets, shuffle)
        ).with_outputs(DEAD_LETTERS, COUNTS, main="batches")
        own = [events_tag(key) for key in history_keys(config)]
        joined = (
            {"impressions": impressions.batches, "feedback": feedback.batches}
            | "GroupByBucket" >> beam.CoGroupByKey()
            | "Join"
            >> beam.ParDo(_Join(config, self._num_key_buckets, shuffle)).with_outputs(
                COUNTS, _HISTOGRAM, *own, main="batches"
            )
        )
        letters = [impressions[DEAD_LETTERS], feedback[DEAD_LETTERS]]
        counts = [impressions[COUNTS], feedback[COUNTS], joined[COUNTS]]
        batches = joined.batches
        if asof_keys(config):
            logs = [table_log(table.name) for table in config.tables]
            sources = {**{log: blocks[log] for log in logs}, **{tag: joined[tag] for tag in own}}
            asof = {"batches": batches, **sources} | "JoinAsOf" >> JoinAsOf(config, self._num_key_buckets, shuffle)
            batches = asof["batches"]
            letters.append(asof["dead_letters"])
            counts.append(asof["counts"])
        plan = (
            joined[_HISTOGRAM]
            | "MergeHistograms" >> beam.CombineGlobally(MergeHistograms())
            | "PlanParts" >> beam.ParDo(_PlanParts(config, self._num_shards))
        )
        assigned = batches | "AssignParts" >> beam.ParDo(
            _AssignParts(config, shuffle), beam.pvalue.AsSingleton(plan)
        ).with_outputs(COUNTS, main="batches")
        return {
            "grouped": assigned.batches | "GroupByPart" >> beam.GroupByKey(),
            "feedback": feedback.batches,
            "dead_letters": letters | "AllDeadLetters" >> beam.Flatten() | "GatherDeadLetters" >> GatherDeadLetters(),
            "counts": [*counts, assigned[COUNTS]]
            | "AllCounts" >> beam.Flatten()
            | "MergeCounts" >> beam.CombineGlobally(_MergeCounts()),
            "plan": plan,
        }


class _Join(beam.DoFn):
    """(bucket, its batches of both logs) -> joined batch; tags: counts, histogram of request times, own events."""

    def __init__(self, config: Config, num_key_buckets: int, shuffle: Shuffle):
        self._config = config
        self._num_key_buckets = num_key_buckets
        self._shuffle = shuffle

    def process(self, element: tuple[int, dict[str, Iterable[Payload]]]) -> Iterator[Any]:
        _, payloads = element
        batches = [ImpressionBatch.from_bytes(self._shuffle.get(payload)) for payload in payloads["impressions"]]
        events = [table_from_bytes(self._shuffle.get(payload)) for payload in payloads["feedback"]]
        joined = join(self._config, batches, events)
        yield beam.pvalue.TaggedOutput(COUNTS, dict(joined.counts))
        if joined.batch is None:
            return
        yield beam.pvalue.TaggedOutput(_HISTOGRAM, TimeHistogram.of_batch(self._config, joined.batch))
        for key in history_keys(self._config):
            for bucket, own in own_events(self._config, key, joined.batch, joined.heard, self._num_key_buckets):
                yield beam.pvalue.TaggedOutput(events_tag(key), (bucket, self._shuffle.put(own)))
        yield self._shuffle.put(joined.batch.to_bytes())


class _PlanParts(beam.DoFn):
    def __init__(self, config: Config, num_shards: int | None):
        self._config = config
        self._num_shards = num_shards

    def process(self, histogram: TimeHistogram) -> Iterator[Plan]:
        yield plan_parts(self._config, self._num_shards, histogram)


class _AssignParts(beam.DoFn):
    """Joined batch -> (the part, batch of its impressions that stay); tag: counts, of splitting and sampling."""

    def __init__(self, config: Config, shuffle: Shuffle):
        self._config = config
        self._shuffle = shuffle

    def process(self, payload: Payload, plan: Plan) -> Iterator[Any]:
        batch = ImpressionBatch.from_bytes(self._shuffle.get(payload))
        contexts = batch.contexts
        of_context = plan.part_of(hashed_split(self._config, contexts), contexts["_time"].to_numpy(), draws(contexts))
        parts = of_context[batch.impressions["_row"].to_numpy()]
        if (by := self._config.split.by) is not None:
            unnamed = batch.contexts["_request"].filter(pc.is_null(batch.contexts[by]))
            yield beam.pvalue.TaggedOutput(COUNTS, {("split", "by_request"): pc.count_distinct(unnamed).as_py()})
        stay = np.arange(len(parts))
        if self._config.sampling is not None:
            training = np.array([part.split == "train" for part in plan.parts])[parts]
            sampled = sample_negatives(self._config, batch, training)
            yield beam.pvalue.TaggedOutput(COUNTS, dict(sampled.counts))
            batch, stay = sampled.batch, np.flatnonzero(sampled.kept)
        for place, rows in rows_by_key(parts[stay]):
            part = plan.parts[place]
            yield (part.split, part.index, part.count), self._shuffle.put(batch.take(stay[rows]).to_bytes())


class _MergeCounts(beam.CombineFn):
    """Counts to their sum."""

    def create_accumulator(self) -> Counter[tuple[str, ...]]:
        return Counter()

    def add_input(self, accumulator: Counter[tuple[str, ...]], element: dict[tuple[str, ...], int]) -> Counter:
        accumulator.update(element)
        return few_ignored(accumulator)

    def merge_accumulators(self, accumulators: Iterable[Counter[tuple[str, ...]]]) -> Counter:
        merged: Counter[tuple[str, ...]] = Counter()
        for one in accumulators:
            merged.update(one)
        return few_ignored(merged)

    def extract_output(self, accumulator: Counter[tuple[str, ...]]) -> Counter:
        return accumulator


def few_ignored(counts: Counter[tuple[str, ...]]) -> Counter[tuple[str, ...]]:
    """The counts with at most `MAX_IGNORED` names of ignored events: a log may hold an id where the name should be.

    Those with the least hashes stay, and the others are added up under one name, so that the order of merging does not
    matter: a name that stays in the end was never among the others of a part.
    """
    named = [key for key in counts if key[:2] == _OTHERS[:2] and key != _OTHERS]
    if len(named) <= MAX_IGNORED:
        return counts
    named.sort(key=lambda key: hashlib.blake2b(key[2].encode("utf-8", "surrogatepass")).digest())
    counts[_OTHERS] += sum(counts.pop(key) for key in named[MAX_IGNORED:])
    return counts

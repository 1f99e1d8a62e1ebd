"""`check`: the logs held against the config before anyone trains.

    blocks of both logs -> joined parts, as the examples are made of -> measures of each part -> figures, findings

The logs are read, joined and split by the very steps that make examples; nothing is encoded. Negatives are not sampled,
whatever the config says, because it is the log that is looked at. Memory is bounded by the number of features, not by
the logs: see `tallies` for what is exact, and how far the rest is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from pipelines.batches import ImpressionBatch, table_from_bytes
from pipelines.checking.figures import figures_of
from pipelines.checking.findings import Finding, findings
from pipelines.checking.measures import Measures, MergeMeasures
from pipelines.checking.measuring import measure_part
from pipelines.grouping import GroupParts, create_blocks, num_shards_of
from pipelines.output_folder import is_local, read_file, remove, write_file
from pipelines.running import check_paths, make_pipeline, parse_options, run_and_wait
from pipelines.shuffle import Payload, Shuffle
from pipelines.summary import refuse_empty
from pipelines.table_reading import table_globs


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What `check` found.

    Attributes:
      figures: of `figures_of`, ready for JSON.
      findings: the gravest first.
    """

    figures: dict[str, Any]
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """Both in one document."""
        return {**self.figures, "findings": [dataclasses.asdict(finding) for finding in self.findings]}


class _MeasurePart(beam.DoFn):
    """(part, payloads of its batches) -> measures."""

    def __init__(self, config: Config, shuffle: Shuffle):
        self._config = config
        self._shuffle = shuffle

    def process(self, element: tuple[tuple[str, int, int], Iterable[Payload]]) -> Iterator[Measures]:
        (split, _, _), payloads = element
        batches = [ImpressionBatch.from_bytes(self._shuffle.get(payload)) for payload in payloads]
        batch = ImpressionBatch.concatenate(batches)
        yield measure_part(self._config, split, batch)


class _EventTimes(beam.DoFn):
    """(bucket, payload of a feedback table) -> by event, its first and last time."""

    def __init__(self, shuffle: Shuffle):
        self._shuffle = shuffle

    def process(self, element: tuple[int, Payload]) -> Iterator[dict[str, tuple[int, int]]]:
        events = table_from_bytes(self._shuffle.get(element[1]))
        found = events.group_by("_event", use_threads=False).aggregate([("_time", "min"), ("_time", "max")])
        yield {row["_event"]: (row["_time_min"], row["_time_max"]) for row in found.to_pylist()}


class _MergeEventTimes(beam.CombineFn):
    def create_accumulator(self) -> dict[str, tuple[int, int]]:
        return {}

    def add_input(
        self, accumulator: dict[str, tuple[int, int]], element: dict[str, tuple[int, int]]
    ) -> dict[str, tuple[int, int]]:
        for name, (first, last) in element.items():
            before = accumulator.get(name, (first, last))
            accumulator[name] = min(first, before[0]), max(last, before[1])
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[dict[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
        merged: dict[str, tuple[int, int]] = {}
        for one in accumulators:
            merged = self.add_input(merged, one)
        return merged

    def extract_output(self, accumulator: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        return accumulator


class _WriteResult(beam.DoFn):
    """Hands the small results to the process that started the job."""

    def process(
        self,
        counts: Counter[tuple[str, ...]],
        path: str,
        measures: Measures | None,
        event_times: dict[str, tuple[int, int]],
    ) -> None:
        write_file(path, pickle.dumps((counts, measures, event_times)))


def run(
    config: Config,
    impressions: str,
    feedback: str,
    beam_args: Sequence[str] = (),
    tables: Mapping[str, str] | None = None,
) -> CheckReport:
    """Checks two logs.

    Args:
      config: what they are held against.
      impressions: path or glob of the ranked-list log, as for `impressions.run`.
      feedback: path or glob of the feedback log.
      beam_args: Beam options, and `--num_shards`; a runner on other machines needs `--temp_location`.
      tables: path or glob of each table of the config, by its name.

    Raises:
      InputError: an option, a path or the logs cannot be used: there is no valid impression.
    """
    options = parse_options(beam_args)
    config = config.model_copy(update={"sampling": None})
    num_shards = num_shards_of(options)
    globs = {"impressions": impressions, "feedback": feedback, **table_globs(config, tables or {})}
    check_paths(options, list(globs.values()))
    pipeline = make_pipeline(options)
    blocks, num_buckets = create_blocks(config, pipeline, globs, num_shards)
    with _shared_folder(options) as folder:
        shuffle = Shuffle.inside(folder, options)
        logs = blocks | "GroupParts" >> GroupParts(config, num_buckets, num_shards, shuffle)
        path = FileSystems.join(folder, "result")
        measures = (
            logs["grouped"]
            | "MeasureParts" >> beam.ParDo(_MeasurePart(config, shuffle))
            | "MergeMeasures" >> beam.CombineGlobally(MergeMeasures())
        )
        event_times = (
            logs["feedback"]
            | "EventTimes" >> beam.ParDo(_EventTimes(shuffle))
            | "MergeEventTimes" >> beam.CombineGlobally(_MergeEventTimes())
        )
        _ = logs["counts"] | "WriteResult" >> beam.ParDo(
            _WriteResult(), path, beam.pvalue.AsSingleton(measures), beam.pvalue.AsSingleton(event_times)
        )
        run_and_wait(pipeline)
        counts, measured, times = _read_result(path)
    if measured is None:
        refuse_empty(impressions, counts)
    figures = figures_of(config, counts, measured, times)
    return CheckReport(figures, findings(config, figures))


@contextlib.contextmanager
def _shared_folder(options: PipelineOptions) -> Iterator[str]:
    """A new folder that workers reach, gone afterwards: below `--temp_location`, or on this machine."""
    beside = options.view_as(GoogleCloudOptions).temp_location
    if beside is None:
        with tempfile.TemporaryDirectory() as folder:
            yield folder
        return
    folder = FileSystems.join(beside, f"check-{uuid.uuid4().hex}")
    if is_local(folder):
        os.makedirs(folder)
    try:
        yield folder
    finally:
        remove(folder)


def _read_result(path: str) -> Any:
    try:
        return pickle.loads(read_file(path))
    except FileNotFoundError:
        raise InputError(
            "The option --temp_location must name a folder that the workers of the runner share with this machine. "
            f"Received: no result in {path!r}."
        ) from None

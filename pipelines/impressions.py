"""The main job: impression and feedback logs to chronological tf.Examples, vocabularies, statistics and a summary.

    blocks of both logs -> batches by hash of request -> join, labels -> batches by part in time -> files, reports
                            features of tables and histories, where there are any: `asof` ┘

Work is done on batches of columns from end to end. Two shuffles move them: one brings a request's impressions and
feedback together, one brings the impressions of a period together. Between the two, a histogram of request times
decides where splits and parts begin. Every output is a function of the logs and the config alone: the number of workers
and how the runner bundles the work change nothing.
"""

from __future__ import annotations

import dataclasses
import pickle
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import dump_config
from pipelines.batches import ImpressionBatch
from pipelines.dead_letters import WriteDeadLetters
from pipelines.example_reports import MergeReports, Report, report_part, training_statistics
from pipelines.grouping import GroupParts, create_blocks, num_shards_of
from pipelines.output_folder import check_replaceable, read_handed, write_file, write_summary, writing_beside
from pipelines.part_writing import in_time_order, part_bytes
from pipelines.running import check_paths, make_pipeline, parse_options, run_and_wait
from pipelines.shuffle import Payload, Shuffle
from pipelines.splits import Part, Plan
from pipelines.summary import check_usable, summarise
from pipelines.table_reading import table_globs

_TOTALS = ".totals"
_REPORT = "report"


@dataclasses.dataclass(frozen=True)
class EncodedPart:
    """A part of the examples as the bytes of its file."""

    part: Part
    content: bytes


class BuildExamples(beam.PTransform):
    """The job without its outputs: {`impressions`, `feedback`, each `table_log`: LogBlocks} -> a dict of collections.

    `parts`: EncodedPart; `dead_letters`: DeadLetters; and one element each: `counts` (Counter), `report` (Report),
    `plan` (Plan).

    Args:
      config: what to build.
      num_buckets: that requests are grouped in.
      num_shards: files of a split, None for as many as its size asks for.
      shuffle: where what is grouped lies meanwhile.
    """

    def __init__(self, config: Config, num_buckets: int, num_shards: int | None = None, shuffle: Shuffle | None = None):
        super().__init__()
        self._config = config
        self._num_buckets = num_buckets
        self._num_shards = num_shards
        self._shuffle = shuffle or Shuffle()

    def expand(self, blocks: dict[str, beam.PCollection]) -> dict[str, beam.PCollection]:
        """Wires the steps."""
        parts = blocks | "GroupParts" >> GroupParts(self._config, self._num_buckets, self._num_shards, self._shuffle)
        encode = beam.ParDo(_EncodePart(self._config, self._shuffle))
        written = parts["grouped"] | "EncodeParts" >> encode.with_outputs(_REPORT, main="parts")
        return {
            "parts": written.parts,
            "dead_letters": parts["dead_letters"],
            "counts": parts["counts"],
            "report": written[_REPORT] | "MergeReports" >> beam.CombineGlobally(MergeReports()),
            "plan": parts["plan"],
        }


class _EncodePart(beam.DoFn):
    """(part, its batches) -> EncodedPart; tag: its report."""

    def __init__(self, config: Config, shuffle: Shuffle):
        self._config = config
        self._shuffle = shuffle

    def process(self, element: tuple[tuple[str, int, int], Iterable[Payload]]) -> Iterator[Any]:
        key, payloads = element
        part = Part(*key)
        batch = in_time_order([ImpressionBatch.from_bytes(self._shuffle.get(payload)) for payload in payloads])
        yield beam.pvalue.TaggedOutput(_REPORT, report_part(self._config, part, batch))
        yield EncodedPart(part, part_bytes(self._config, batch))


def run(
    config: Config,
    impressions: str,
    feedback: str,
    out: str,
    beam_args: Sequence[str] = (),
    tables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Builds the examples folder from two logs, and the tables that the config names.

    Args:
      config: the config; a copy lies in the folder.
      impressions: path or glob of the ranked-list log: JSON lines (`.jsonl`, `.json`, also `.gz`) or `.parquet`; or
        `bigquery://PROJECT.DATASET.TABLE`.
      feedback: path or glob of the feedback log, likewise.
      out: the folder; it appears when everything is done, in place of one that an earlier run wrote.
      beam_args: Beam options, and `--num_shards`.
      tables: path or glob of each table of the config, by its name, likewise.

    Returns:
      The summary, as in `out/summary.json`.

    Raises:
      InputError: an option, a path or the logs cannot be used.
      OSError: the disk is full (ENOSPC), or another failure to write.
    """
    options = parse_options(beam_args)
    num_shards = num_shards_of(options)
    globs = {"impressions": impressions, "feedback": feedback, **table_globs(config, tables or {})}
    check_paths(options, [*globs.values(), out])
    pipeline = make_pipeline(options)
    check_replaceable(out)
    blocks, num_buckets = create_blocks(config, pipeline, globs, num_shards)
    with writing_beside(out) as folder:
        shuffle = Shuffle.inside(folder, options)
        built = blocks | "BuildExamples" >> BuildExamples(config, num_buckets, num_shards, shuffle)
        _ = built["parts"] | "WriteParts" >> beam.ParDo(_WritePart(), folder)
        _ = built["dead_letters"] | "WriteDeadLetters" >> beam.ParDo(WriteDeadLetters(), folder)
        _ = built["counts"] | "WriteTotals" >> beam.ParDo(
            _WriteTotals(), folder, beam.pvalue.AsSingleton(built["report"]), beam.pvalue.AsSingleton(built["plan"])
        )
        run_and_wait(pipeline)
        shuffle.remove()
        return _finish(config, impressions, folder)


class _WritePart(beam.DoFn):
    def process(self, encoded: EncodedPart, folder: str) -> None:
        write_file(FileSystems.join(folder, encoded.part.path), encoded.content)


class _WriteTotals(beam.DoFn):
    """Hands the small results to the process that started the job."""

    def process(self, counts: Counter[tuple[str, ...]], folder: str, report: Report, plan: Plan) -> None:
        write_file(FileSystems.join(folder, _TOTALS), pickle.dumps((counts, report, plan)))


def _finish(config: Config, impressions: str, folder: str) -> dict[str, Any]:
    counts, report, plan = pickle.loads(read_handed(folder, _TOTALS))
    check_usable(config, impressions, counts, report, plan)
    statistics, vocabularies = training_statistics(config, counts, report, plan.parts)
    with tempfile.TemporaryDirectory() as local:
        statistics.save(Path(local))
        for path in sorted(Path(local).rglob("*")):
            if path.is_file():
                write_file(FileSystems.join(folder, str(path.relative_to(local))), path.read_bytes())
    write_file(FileSystems.join(folder, "config.yaml"), dump_config(config).encode("utf-8"))
    summary = summarise(config, counts, report, plan, vocabularies)
    write_summary(folder, summary)
    return summary

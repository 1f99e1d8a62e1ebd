"""Batch scoring: an exported model over examples, or over ranked-list logs: predictions, combined scores and ranks.

files of examples ──────────────────────┐
logs -> examples, as the main job does ─┴─> batches -> RunInference -> the scores of a file together -> files
"""

from __future__ import annotations

import datetime
import json
import pickle
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.ml.inference.base import RunInference

from mmoe_ranker.config import Config, Split
from mmoe_ranker.config_loading import parse_config, parse_mapping
from mmoe_ranker.errors import InputError
from pipelines.dead_letters import WriteDeadLetters
from pipelines.grouping import GroupParts, create_blocks, num_shards_of
from pipelines.output_folder import (
    SUMMARY,
    check_replaceable,
    read_file,
    read_handed,
    write_file,
    write_summary,
    writing_beside,
)
from pipelines.running import check_paths, make_pipeline, parse_options, run_and_wait
from pipelines.scoring.files import (
    EncodeExamples,
    ExampleFile,
    FileFormat,
    KeyByFile,
    ReadExamples,
    ScoredFile,
    WriteScores,
)
from pipelines.scoring.model import RankerHandler
from pipelines.shuffle import Shuffle
from pipelines.splits import SPLITS
from pipelines.summary import impression_counts

# Stands at the head of a summary, and tells that a folder of scores is ours to replace.
FORMAT = "mmoe_ranker scores 1"

_TOTALS = ".totals"
_LONG_AGO = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


class ScoreExamples(beam.PTransform):
    """ExampleBatches -> ScoredFiles, one a file that was written.

    Args:
      handler: loads the model in the worker, and runs it.
      form: of the files.
      folder: to write into.
      shuffle: where what is grouped lies meanwhile.
    """

    def __init__(self, handler: RankerHandler, form: FileFormat, folder: str, shuffle: Shuffle):
        super().__init__()
        self._handler = handler
        self._form = form
        self._folder = folder
        self._shuffle = shuffle

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """Wires the steps."""
        return (
            batches
            | "Score" >> RunInference(self._handler)
            | "KeyByFile" >> beam.ParDo(KeyByFile(self._shuffle))
            | "GroupByFile" >> beam.GroupByKey()
            | "WriteScores" >> beam.ParDo(WriteScores(self._form, self._shuffle), self._folder)
        )


def score_examples(
    models: str,
    examples: str,
    split: str,
    out: str,
    version: int | None = None,
    form: FileFormat = "parquet",
    score_weights: Mapping[str, float] | None = None,
    beam_args: Sequence[str] = (),
) -> dict[str, Any]:
    """Scores one split of a folder of examples.

    Args:
      models: folder of versions, as `export` writes it.
      examples: folder as the main job writes it.
      split: `train`, `validation` or `test`.
      out: the folder; it appears when everything is done, in place of one that an earlier run wrote.
      version: of the model; None for the newest.
      form: of the files of scores.
      score_weights: by objective, in place of the weights that the model was exported with.
      beam_args: Beam options.

    Returns:
      The summary, as in `out/summary.json`.

    Raises:
      InputError: an option, a folder or the model cannot be used.
      OSError: the disk is full (ENOSPC), or another failure to write.
    """
    pipeline = _pipeline(beam_args, [models, examples, out])
    if (shards := num_shards_of(pipeline.options)) is not None:
        raise InputError(f"The option --num_shards goes with logs: examples keep their files. Received: {shards}.")
    check_replaceable(out, FORMAT)
    config, files = _example_files(examples, split)
    handler = _handler(models, version, config, score_weights, labels=True)
    with writing_beside(out, FORMAT) as folder:
        shuffle = Shuffle.inside(folder, pipeline.options)
        listed = pipeline | "Files" >> beam.Create(files) | "Spread" >> beam.Reshuffle()
        batches = listed | "ReadExamples" >> beam.ParDo(ReadExamples())
        read = batches | "Sizes" >> beam.Map(len) | "Read" >> beam.CombineGlobally(sum)
        written = batches | "ScoreExamples" >> ScoreExamples(handler, form, folder, shuffle)
        scored_files, num_read = _run(pipeline, written, read, folder, shuffle)
        if not scored_files:
            raise InputError(f"The split `{split}` must hold an example. Received: {examples!r} with none.")
        scored = sum(file.examples for file in scored_files)
        counts = {"read": num_read, "scored": scored, "reconciled": num_read == scored}
        return _summarise(folder, config, scored_files, {"examples": {"split": split, **counts}})


def score_logs(
    models: str,
    config: Config,
    impressions: str,
    out: str,
    version: int | None = None,
    form: FileFormat = "parquet",
    score_weights: Mapping[str, float] | None = None,
    beam_args: Sequence[str] = (),
) -> dict[str, Any]:
    """Scores ranked-list logs; no feedback is needed, and no label is written.

    Args:
      models, out, version, form, score_weights: as for `score_examples`.
      config: of the logs; its features are those that the model was trained with.
      impressions: path or glob, as for the main job.
      beam_args: Beam options, and `--num_shards`.

    Returns:
      The summary, as in `out/summary.json`.

    Raises:
      InputError: an option, a path, the logs or the model cannot be used.
      OSError: the disk is full (ENOSPC), or another failure to write.
    """
    pipeline = _pipeline(beam_args, [models, impressions, out])
    num_shards = num_shards_of(pipeline.options)
    if absent := [feature.name for feature in config.features if not feature.is_logged]:
        raise InputError(
            "Logs can be scored where all features stand in them; with tables or histories, make examples first and "
            f"score those. Received: the features {', '.join(absent)}."
        )
    check_replaceable(out, FORMAT)
    blocks, num_buckets = create_blocks(config, pipeline, {"impressions": impressions}, num_shards)
    handler = _handler(models, version, config, score_weights, labels=False)
    # Nothing of a log to score is for training: no vocabularies are counted and no negatives are left out.
    update = {"split": Split(validation_start=_LONG_AGO, test_start=_LONG_AGO), "sampling": None}
    whole = config.model_copy(update=update)
    with writing_beside(out, FORMAT) as folder:
        shuffle = Shuffle.inside(folder, pipeline.options)
        logs = {**blocks, "feedback": pipeline | "NoFeedback" >> beam.Create([])}
        parts = logs | "GroupParts" >> GroupParts(whole, num_buckets, num_shards, shuffle)
        _ = parts["dead_letters"] | "WriteDeadLetters" >> beam.ParDo(WriteDeadLetters(), folder)
        batches = parts["grouped"] | "EncodeExamples" >> beam.ParDo(EncodeExamples(whole, impressions, shuffle))
        written = batches | "ScoreExamples" >> ScoreExamples(handler, form, folder, shuffle)
        files, counts = _run(pipeline, written, parts["counts"], folder, shuffle)
        found = _log_counts(counts, files)
        if not files:
            raise InputError(
                f"The impressions log must hold at least one valid impression. Received: {impressions!r}, "
                f"{found['records']} records, refused: {found['dead_letters_by_reason']}."
            )
        return _summarise(folder, config, files, {"impressions": found})


def _pipeline(beam_args: Sequence[str], paths: Sequence[str]) -> beam.Pipeline:
    options = parse_options(beam_args)
    check_paths(options, paths)
    return make_pipeline(options)


def _example_files(examples: str, split: str) -> tuple[Config, list[ExampleFile]]:
    if split not in SPLITS:
        raise InputError(f"The split must be one of {', '.join(SPLITS)}. Received: {split!r}.")
    if not FileSystems.exists(FileSystems.join(examples, SUMMARY)):
        raise InputError(
            f"The folder of examples must be complete, as `mmoe-ranker examples` leaves it, with {SUMMARY} in it. "
            f"Received: {examples!r}."
        )
    found = _matches(FileSystems.join(examples, split, "part-*.tfrecord.gz"))
    if not found:
        raise InputError(f"The split `{split}` must hold an example. Received: {examples!r} with none.")
    text = read_file(FileSystems.join(examples, "config.yaml")).decode("utf-8")
    config = parse_config(parse_mapping(text, f"The config of {examples}"), f"of {examples}")
    return config, [ExampleFile(index, len(found), path) for index, path in enumerate(found)]


def _handler(
    models: str, version: int | None, config: Config, score_weights: Mapping[str, float] | None, labels: bool
) -> RankerHandler:
    versions = {}
    for path in _matches(FileSystems.join(models, "*", "saved_model.pb")):
        folder = FileSystems.split(path)[0]
        name = FileSystems.split(folder)[1]
        # An export that is not published yet has no number.
        if re.fullmatch("[0-9]+", name):
            versions[int(name)] = folder
    if not versions:
        raise InputError(
            "`models` must hold at least one version, a sub-folder named by an integer with a SavedModel in it, as "
            f"`mmoe-ranker export` leaves it. Received: {models!r}."
        )
    chosen = max(versions) if version is None else version
    if chosen not in versions:
        known = ", ".join(map(str, sorted(versions)))
        raise InputError(f"`version` must be one that is in {models!r}: {known}. Received: {version}.")
    return RankerHandler(versions[chosen], chosen, config, score_weights or {}, labels)


def _matches(pattern: str) -> list[str]:
    found = FileSystems.match([pattern])[0].metadata_list
    return sorted(entry.path for entry in found)


class _WriteTotals(beam.DoFn):
    """Hands the small results to the process that started the job."""

    def process(self, files: list[ScoredFile], folder: str, counts: Any) -> None:
        write_file(FileSystems.join(folder, _TOTALS), pickle.dumps((files, counts)))


def _run(
    pipeline: beam.Pipeline, written: beam.PCollection, counts: beam.PCollection, folder: str, shuffle: Shuffle
) -> tuple[list[ScoredFile], Any]:
    files = written | "AllFiles" >> beam.combiners.ToList()
    _ = files | "WriteTotals" >> beam.ParDo(_WriteTotals(), folder, beam.pvalue.AsSingleton(counts))
    run_and_wait(pipeline)
    shuffle.remove()
    return pickle.loads(read_handed(folder, _TOTALS))


def _log_counts(counts: Counter[tuple[str, ...]], files: list[ScoredFile]) -> dict[str, Any]:
    found = impression_counts(counts, sum(file.requests for file in files), sum(file.examples for file in files))
    # Nothing is sampled out here, and requests stand in the summary of either kind.
    return {
        "scored" if name == "examples" else name: value
        for name, value in found.items()
        if name not in ("requests", "sampled_out")
    }


def _summarise(folder: str, config: Config, files: list[ScoredFile], counts: dict[str, Any]) -> dict[str, Any]:
    one = files[0].scored_by
    model = {
        "name": one["model"],
        "version": int(one["version"]),
        "score_weights": json.loads(one["score_weights"]),
    }
    requests = sum(file.requests for file in files)
    summary = {"format": FORMAT, "config": config.name, "model": model, **counts, "requests": requests}
    write_summary(folder, summary)
    return summary

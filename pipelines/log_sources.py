"""Where the two logs come from: files of any file system that Beam knows, or tables of BigQuery."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from mmoe_ranker.config import Config
from pipelines.bigquery import SCHEME, ReadTable, TableLog, find_table
from pipelines.json_lines import WANTED_FEEDBACK_FIELDS, wanted_impression_fields
from pipelines.log_blocks import LogBlock, list_blocks
from pipelines.log_reading import feedback_columns, impression_columns


@dataclasses.dataclass(frozen=True)
class Log:
    """A log that was found, of `size` bytes."""

    name: Literal["impressions", "feedback"]
    size: int
    source: TableLog | list[LogBlock]

    def read(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """What `ReadImpressions` and `ReadFeedback` take: LogBlocks, which any worker may open, or TableRows."""
        name = self.name.capitalize()
        if isinstance(self.source, TableLog):
            return pipeline | f"{name}Table" >> ReadTable(self.source)
        listed = pipeline | f"{name}Blocks" >> beam.Create(self.source)
        return listed | f"{name}Spread" >> beam.Reshuffle()


def find_log(config: Config, options: PipelineOptions, name: Literal["impressions", "feedback"], pattern: str) -> Log:
    """Finds a log.

    Args:
      config: names the columns.
      options: of the job, for credentials.
      name: which log.
      pattern: path or glob of files, or `bigquery://PROJECT.DATASET.TABLE`.

    Raises:
      InputError: nothing is there, or nothing that is read.
    """
    if not pattern.startswith(SCHEME):
        blocks, size = list_blocks(name, pattern)
        return Log(name, size, blocks)
    fields: Any = wanted_impression_fields(config) if name == "impressions" else WANTED_FEEDBACK_FIELDS
    columns = impression_columns(config) if name == "impressions" else feedback_columns()
    table = find_table(name, pattern, fields, columns, options)
    return Log(name, table.size, table)

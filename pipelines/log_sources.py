"""Where the two logs come from: files of any file system that Beam knows, or tables of BigQuery."""

from __future__ import annotations

import dataclasses

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from mmoe_ranker.config import Config
from pipelines.bigquery import SCHEME, ReadRows, TableLog, find_table
from pipelines.json_lines import wanted_impression_fields
from pipelines.log_blocks import LogBlock, list_blocks, table_log
from pipelines.log_reading import feedback_columns, impression_columns
from pipelines.table_reading import table_columns


@dataclasses.dataclass(frozen=True)
class Log:
    """A log, or a table of users or the like, that was found, of `size` bytes."""

    name: str
    size: int
    source: TableLog | list[LogBlock]

    def read(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """What `ReadImpressions` and `ReadFeedback` take: LogBlocks, which any worker may open, or TableRows."""
        name = self.name.capitalize()
        if isinstance(self.source, TableLog):
            return pipeline | f"{name}Table" >> ReadRows(self.source)
        listed = pipeline | f"{name}Blocks" >> beam.Create(self.source)
        return listed | f"{name}Spread" >> beam.Reshuffle()


def find_log(config: Config, options: PipelineOptions, name: str, pattern: str) -> Log:
    """Finds a log.

    Args:
      config: names the columns.
      options: of the job, for credentials.
      name: `impressions`, `feedback`, or the `table_log` of a table.
      pattern: path or glob of files, or `bigquery://PROJECT.DATASET.TABLE`.

    Raises:
      InputError: nothing is there, or nothing that is read.
    """
    if not pattern.startswith(SCHEME):
        blocks, size = list_blocks(name, pattern)
        return Log(name, size, blocks)
    if name == "impressions":
        table = find_table(name, pattern, impression_columns(config), options, nested=wanted_impression_fields(config))
    elif name == "feedback":
        table = find_table(name, pattern, feedback_columns(), options)
    else:
        [described] = [table for table in config.tables if table_log(table.name) == name]
        table = find_table(name, pattern, table_columns(config, described), options)
    return Log(name, table.size, table)

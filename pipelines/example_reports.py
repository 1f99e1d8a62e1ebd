"""What is counted while examples are written: statistics of the training split, rates for the summary.

A report is mergeable. Integers add up in any order; sums of floats do not, so those are kept part by part (a few
numbers each) and added in the order of the parts at the end: the result is the same whatever the number of workers.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmoe_ranker.config import Config
from mmoe_ranker.examples import label_name
from mmoe_ranker.statistics import LabelStatistics, NumericStatistics, Statistics
from pipelines.batches import ImpressionBatch
from pipelines.splits import Part
from pipelines.value_counts import CategoryCounts, NumberCounts


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, sum, and sum of squared distances from the mean, of the values that are there; and how many are not."""

    count: int
    missing: int
    sum: float
    squares: float
    min: float
    max: float

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Of a column [N] in which NaN means missing."""
        there = values[~np.isnan(values)]
        if not len(there):
            return cls(0, len(values), 0.0, 0.0, np.inf, -np.inf)
        squares = float(np.square(there - there.mean()).sum())
        missing = len(values) - len(there)
        return cls(len(there), missing, float(there.sum()), squares, float(there.min()), float(there.max()))

    @classmethod
    def merge(cls, many: Iterable[Moments]) -> Moments:
        """Of all values together: squares = sum of squares_i + n_i (mean_i - mean)^2 (Chan et al. 1983)."""
        many = list(many)
        count, total = sum(one.count for one in many), sum(one.sum for one in many)
        mean = total / count if count else 0.0
        squares = sum(one.squares + one.count * (one.sum / one.count - mean) ** 2 for one in many if one.count)
        low, high = min((one.min for one in many), default=np.inf), max((one.max for one in many), default=-np.inf)
        return cls(count, sum(one.missing for one in many), total, squares, low, high)

    @property
    def mean(self) -> float:
        """0 where there is no value."""
        return self.sum / self.count if self.count else 0.0

    @property
    def std(self) -> float:
        """The population's standard deviation; 0 where there is no value."""
        return float(np.sqrt(self.squares / self.count)) if self.count else 0.0


@dataclasses.dataclass
class PartReport:
    """What one part adds: by feature or objective name, moments; by slice and its values, label sums.

    Attributes:
      examples, requests, first_time, last_time: of the part.
      numeric: moments after the transform; only of parts of the training split.
      labels: moments after the transform.
      rates: by objective, count and sum of labels in original units.
      slices: by the names of a slice's features, by their values: impressions, then labelled and sum by objective.
    """

    examples: int
    requests: int
    first_time: int
    last_time: int
    numeric: dict[str, Moments]
    labels: dict[str, Moments]
    rates: dict[str, tuple[int, float]]
    slices: dict[tuple[str, ...], dict[tuple[Any, ...], tuple[int, list[tuple[int, float]]]]]


@dataclasses.dataclass
class Report:
    """Of any number of parts, by part; counts of vocabulary values and of missing features over all of them.

    `numbers` are those of numeric features with quantiles.
    """

    parts: dict[Part, PartReport]
    vocabularies: dict[str, CategoryCounts]
    numbers: dict[str, NumberCounts]
    missing: Counter[str]


def report_part(config: Config, part: Part, batch: ImpressionBatch) -> Report:
    """The report of one part's examples."""
    impressions, contexts = batch.impressions, batch.contexts
    # What a request says once counts for each of its impressions, without being copied to them.
    shown = np.bincount(impressions["_row"].to_numpy(), minlength=contexts.num_rows)
    once = np.ones(impressions.num_rows, np.int64)
    training = part.split == "train"
    numeric, vocabularies, numbers, missing = {}, {}, {}, Counter[str]()
    for feature in config.features:
        column, times = (contexts, shown) if feature.side == "context" else (impressions, once)
        column = column[feature.name]
        missing[feature.name] = int(times[column.is_null().to_numpy()].sum())
        if training and feature.kind == "numeric":
            values = _per_impression(batch, feature.name)
            numeric[feature.name] = Moments.of(_transformed(values, feature.transform))
            if feature.quantiles is not None:
                numbers[feature.name] = NumberCounts.of(values)
        elif training and getattr(feature, "vocabulary", None) == "auto":
            vocabularies[feature.name] = CategoryCounts.of(column, times)
    labels, rates = {}, {}
    for objective in config.objectives:
        column = impressions[label_name(objective.name)]
        if training:
            labels[objective.name] = Moments.of(_transformed(column, getattr(objective, "transform", "none")))
        rates[objective.name] = (len(column) - column.null_count, pc.sum(column.cast(pa.float64())).as_py() or 0.0)
    times = batch.contexts["_time"].to_numpy()
    one = PartReport(
        examples=batch.impressions.num_rows,
        requests=pc.count_distinct(batch.contexts["_request"]).as_py(),
        first_time=int(times.min()),
        last_time=int(times.max()),
        numeric=numeric,
        labels=labels,
        rates=rates,
        slices={names: _slice(config, names, batch) for names in slice_names(config)},
    )
    return Report({part: one}, vocabularies, numbers, missing)


def slice_names(config: Config) -> tuple[tuple[str, ...], ...]:
    """The slices of the summary: each feature of the bias tower, and its crosses."""
    bias = config.model.bias
    return (*((name,) for name in getattr(bias, "features", ())), *getattr(bias, "cross", ()))


def _per_impression(batch: ImpressionBatch, name: str) -> pa.ChunkedArray:
    if name in batch.impressions.column_names:
        return batch.impressions[name]
    return batch.contexts[name].take(batch.impressions["_row"])


def _slice(
    config: Config, names: tuple[str, ...], batch: ImpressionBatch
) -> dict[tuple[Any, ...], tuple[int, list[tuple[int, float]]]]:
    labels = [label_name(name) for name in config.objective_names]
    table = pa.table({f"key{place}": _per_impression(batch, name) for place, name in enumerate(names)})
    for label in labels:
        table = table.append_column(label, batch.impressions[label].cast(pa.float64()))
    keys = [f"key{place}" for place in range(len(names))]
    sums = [(label, how) for label in labels for how in ("count", "sum")]
    grouped = table.group_by(keys, use_threads=False).aggregate([([], "count_all"), *sums])
    rows = {}
    for entry in grouped.to_pylist():
        figures = [(entry[f"{label}_count"], entry[f"{label}_sum"] or 0.0) for label in labels]
        rows[tuple(entry[key] for key in keys)] = (entry["count_all"], figures)
    return rows


def _transformed(column: pa.ChunkedArray, transform: str) -> np.ndarray:
    values = column.cast(pa.float64()).to_numpy()
    return np.log1p(values) if transform == "log1p" else values


def _negatives_kept(counts: Counter[tuple[str, ...]], name: str) -> float:
    negatives = counts["negatives", "all", name]
    return counts["negatives", "kept", name] / negatives if negatives else 1.0


class MergeReports(beam.CombineFn):
    """Reports to their union."""

    def create_accumulator(self) -> Report:
        """Of no parts."""
        return Report({}, {}, {}, Counter())

    def add_input(self, accumulator: Report, element: Report) -> Report:
        """Adds one."""
        accumulator.parts.update(element.parts)
        accumulator.missing.update(element.missing)
        for name, counted in element.vocabularies.items():
            accumulator.vocabularies[name] = accumulator.vocabularies.get(name, CategoryCounts.none()).plus(counted)
        for name, numbers in element.numbers.items():
            accumulator.numbers[name] = accumulator.numbers.get(name, NumberCounts.none()).plus(numbers)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Report]) -> Report:
        """Adds all."""
        merged = self.create_accumulator()
        for one in accumulators:
            merged = self.add_input(merged, one)
        return merged

    def extract_output(self, accumulator: Report) -> Report:
        """As it is."""
        return accumulator


def training_statistics(
    config: Config, counts: Counter[tuple[str, ...]], report: Report, order: tuple[Part, ...]
) -> tuple[Statistics, dict[str, Any]]:
    """The statistics of the training split: of the examples that sampling kept, and the share of negatives kept.

    Args:
      config: names features and objectives.
      counts: of the whole job, with what sampling counted.
      report: of all parts.
      order: the parts in order of time.

    Returns:
      The statistics; and by vocabulary, how many distinct values were left out: too rare, or with a newline.
    """
    parts = [report.parts[part] for part in order if part.split == "train" and part in report.parts]
    numeric, vocabularies, left_out = {}, {}, {}
    for feature in config.features:
        if feature.kind == "numeric":
            moments = Moments.merge(one.numeric[feature.name] for one in parts)
            some = moments.count > 0
            numeric[feature.name] = NumericStatistics(
                count=moments.count,
                missing=moments.missing,
                mean=moments.mean,
                std=moments.std,
                min=moments.min if some else 0.0,
                max=moments.max if some else 0.0,
                quantiles=report.numbers.get(feature.name, NumberCounts.none()).edges(feature.quantiles or 1),
            )
        elif getattr(feature, "vocabulary", None) == "auto":
            counted = report.vocabularies.get(feature.name, CategoryCounts.none())
            vocabularies[feature.name], left_out[feature.name] = counted.most_frequent(feature.min_count)  # type: ignore[union-attr]
    labels = {}
    for name in config.objective_names:
        moments = Moments.merge(one.labels[name] for one in parts)
        labels[name] = LabelStatistics(
            count=moments.count,
            mean=moments.mean,
            std=moments.std,
            least=moments.min if moments.count else 0.0,
            negatives_kept=_negatives_kept(counts, name),
        )
    return Statistics(sum(one.examples for one in parts), numeric, labels, vocabularies), left_out

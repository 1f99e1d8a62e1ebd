"""The metrics of one objective, and those of an order against its labels, on rows sorted once for all of them.

Each metric goes to the report and, as a statistic of the same rows, to the bootstrap. Sorted rows are let go as soon as
their metrics are taken, so that memory holds one order at a time.

Shapes: N impressions, M of them labelled, S values of a slice.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker import metrics
from mmoe_ranker.evaluation_rows import Codes, EvaluationRows
from mmoe_ranker.evaluation_statistics import Kept, Statistics
from mmoe_ranker.metrics.bootstrap import Path
from mmoe_ranker.metrics.classification import auc_of, cross_entropies, pr_auc_of
from mmoe_ranker.metrics.grouped import group_auc_of
from mmoe_ranker.metrics.resampling import Formula, entropy_ratio, ratio, root_ratio
from mmoe_ranker.metrics.rows import labelled_rows

RELIABILITY_BINS = 20


class ObjectiveRows:
    """One objective's rows of a split.

    Args:
        name: of the objective.
        labels: [N], NaN where missing.
        predicted: [N].
        rows: the columns of the split.
        binary: whether labels are 0 and 1, and predictions probabilities.

    Attributes:
        kept: the M rows that have a label.
        labels: [M].
        predicted: [M].
        sorted: the rows by falling prediction; None where there are none.

    Raises:
        InputError: values out of range.
    """

    def __init__(
        self, name: str, labels: NDArray[np.float64], predicted: NDArray[np.float64], rows: EvaluationRows, binary: bool
    ) -> None:
        kinds = ("binary", "probability") if binary else ("real", "real")
        names = ("labels", "predictions", "groups")
        counted = labelled_rows(labels, predicted, label_kind=kinds[0], prediction_kind=kinds[1], names=names)
        self.name, self.binary, self.rows = name, binary, rows
        self.kept: Kept = slice(None) if counted.kept is None else counted.kept
        self.labels, self.predicted = counted.labels, counted.predictions
        self.given_labels = labels
        self.sorted = metrics.SortedRows.best_first(counted) if len(counted) else None
        # By feature of side bias that is known of every row: AUC in each value, by the codes of the slice.
        self.value_aucs: dict[str, metrics.GroupedMetric] = {}

    def within(self, codes: Codes) -> metrics.SortedRows | None:
        """The rows inside groups, [N], without those whose group is not known; None where none is left."""
        known = self.sorted
        if known is not None and np.any(codes < 0):
            known = known.relabelled(np.where(codes < 0, np.nan, self.given_labels))
        return known.within(codes) if known is not None else None

    @functools.cached_property
    def reliability(self) -> metrics.ReliabilityCurve:
        """The reliability curve of the objective's probabilities."""
        return metrics.reliability_curve(self.labels, self.predicted, num_bins=RELIABILITY_BINS)

    @functools.cached_property
    def row_formulas(self) -> dict[str, tuple[Formula, tuple[NDArray[Any], ...]]]:
        """Metrics that are formulas of sums over rows: of these columns, [M] each, then of the number of rows."""
        if self.binary:
            losses = cross_entropies(self.labels, self.predicted)
            return {
                "log_loss": (ratio, (losses,)),
                "normalized_entropy": (entropy_ratio, (losses, self.labels)),
                "calibration": (_first_ratio, (self.predicted, self.labels)),
            }
        errors = self.predicted - self.labels
        return {"rmse": (root_ratio, (errors**2,)), "mae": (ratio, (np.abs(errors),))}


def objective_report(one: ObjectiveRows, statistics: Statistics, k: int) -> dict[str, Any]:
    """The metrics of an objective's predictions on all its rows; names as in `evaluation_metrics`.

    Args:
      one: the objective's rows.
      statistics: get those whose intervals are drawn.
      k: ranks that count.
    """
    path: Path = ("objectives", one.name)
    report: dict[str, Any] = {"impressions": len(one.rows), "labelled": len(one.labels), "mean_label": None}
    if len(one.labels):
        report["mean_label"] = float(np.mean(one.labels))
        statistics.add_rows((*path, "mean_label"), ratio, one.kept, one.labels)
    if one.sorted is not None and one.binary:
        report |= {"auc": auc_of(one.sorted), "pr_auc": pr_auc_of(one.sorted)}
        statistics.add_areas(one.sorted, auc=(*path, "auc"), pr_auc=(*path, "pr_auc"))
    elif one.binary:
        report |= {"auc": None, "pr_auc": None}
    for name, (formula, columns) in one.row_formulas.items():
        sums = [np.atleast_1d(column.sum()) for column in columns]
        report[name] = float(formula(*sums, np.array([float(len(one.labels))]))[0])
        statistics.add_rows((*path, name), formula, one.kept, *columns)
    if one.binary:
        # Without an interval: each redraw adds its noise to that of the rows, which a sum of absolute values does not
        # take out again, and neither percentiles of draws nor these reflected cover the error of a calibrated model.
        report["calibration_error"] = one.reliability.expected_calibration_error if len(one.labels) else None
    else:
        report["xauc"] = metrics.xauc(one.labels, one.predicted)
    return report | _grouped_report(one, statistics, k, path)


def _grouped_report(one: ObjectiveRows, statistics: Statistics, k: int, path: Path) -> dict[str, Any]:
    report: dict[str, Any] = {}
    aucs: dict[str, Any] = {}
    for group, codes in one.rows.groups.items():
        inside = one.within(codes)
        if codes is one.rows.requests:
            report |= ranking_report(inside, codes, k, statistics, {name: (*path, name) for name in ranking_names(k)})
        if one.binary:
            aucs[group] = _grouped(_group_auc(inside, codes, statistics, (*path, "group_auc", group)))
    if one.binary:
        report |= {"group_auc": aucs, "auc_within": {}}
        for name, codes in one.rows.within.items():
            sliced = one.rows.slices[name]
            is_slice = len(sliced.texts) == sliced.num_values and not np.any(codes < 0)
            named = sliced.codes if is_slice else codes
            metric = _group_auc(one.within(codes), named, statistics, (*path, "auc_within", name))
            report["auc_within"][name] = _grouped(metric)
            if is_slice and metric is not None:
                one.value_aucs[name] = metric
    return report


def ranking_names(k: int) -> tuple[str, ...]:
    """The metrics of `ranking_report`."""
    return f"ndcg@{k}", "mrr", f"recall@{k}"


def ranking_report(
    inside: metrics.SortedRows | None,
    requests: Codes,
    k: int,
    statistics: Statistics,
    paths: dict[str, Path],
) -> dict[str, Any]:
    """NDCG@k, MRR and recall@k of rows sorted within requests; None for labels below 0, which are no gains.

    Args:
      inside: the rows, or None where they have no metrics.
      requests: [N], from 0.
      k: ranks that count.
      statistics: get those whose intervals are drawn.
      paths: by metric, its path in the report.
    """
    if inside is None or np.min(inside.labels) < 0:
        total = 0 if inside is None else len(inside.segments)
        return {name: {"value": None, "groups_counted": 0, "groups_total": total} for name in paths}
    lists = metrics.RankedLists(inside, requests)
    report = {}
    for name, metric in zip(paths, (lists.ndcg(k), lists.mrr(), lists.recall(k)), strict=True):
        statistics.add_groups(paths[name], metric, inside)
        report[name] = _grouped(metric)
    return report


def slice_reports(one: ObjectiveRows, feature: str, statistics: Statistics, intervals: bool) -> list[dict[str, Any]]:
    """The metrics of an objective in each value of a slice, [S].

    Args:
      one: the objective's rows.
      feature: that slices.
      statistics: get those whose intervals are drawn.
      intervals: whether any are of slices.
    """
    sliced = one.rows.slices[feature]
    num_values, codes = len(sliced.texts), sliced.codes[one.kept]
    labelled = np.bincount(codes, minlength=num_values).astype(np.float64)
    columns = {
        "impressions": np.bincount(sliced.codes, minlength=num_values).tolist(),
        "labelled": labelled.astype(int).tolist(),
        "mean_label": ratio(np.bincount(codes, one.labels, num_values), labelled).tolist(),
    }
    paths: list[Path] = [("slices", feature, text, one.name) for text in sliced.texts]
    formulas = {name: formula for name, formula in one.row_formulas.items() if name != "normalized_entropy"}
    if one.binary:
        areas = np.full(num_values, np.nan)
        if one.sorted is not None:
            found = one.value_aucs.get(feature)
            if found is None or intervals:
                inside = one.sorted.within(sliced.codes)
                found = group_auc_of(inside, sliced.codes)
                if intervals:
                    statistics.add_areas(inside, segment_aucs=[(*paths[code], "auc") for code in found.groups])
            areas[found.groups] = found.values
        columns["auc"] = areas.tolist()
    if intervals:
        statistics.add_slices(sliced.codes, one.kept, paths, formulas)
    for name, (formula, rows) in formulas.items():
        columns[name] = formula(*(np.bincount(codes, row, num_values) for row in rows), labelled).tolist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _group_auc(
    inside: metrics.SortedRows | None, codes: Codes, statistics: Statistics, path: Path
) -> metrics.GroupedMetric | None:
    if inside is None:
        return None
    metric = group_auc_of(inside, codes)
    statistics.add_group_auc(path, metric, inside)
    return metric


def _grouped(metric: metrics.GroupedMetric | None) -> dict[str, Any]:
    if metric is None:
        return {"value": None, "groups_counted": 0, "groups_total": 0}
    return {"value": metric.value, "groups_counted": metric.groups_counted, "groups_total": metric.groups_total}


def _first_ratio(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64], rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The calibration ratio, of summed predictions, labels and rows."""
    return ratio(numerator, denominator)

"""The report on a split: which metrics of `metrics` on what, with intervals, slice by slice, as a dict for JSON.

`evaluation_text` prints it. Nothing here needs TensorFlow: predictions were made before (`evaluation`).

The report, with OBJECTIVE, FEATURE, VALUE for names; a metric that the rows do not define is None:

    impressions, requests: int
    objectives.OBJECTIVE:
        impressions, labelled: int; mean_label: float
        binary: auc, pr_auc, log_loss, normalized_entropy, calibration (ratio), calibration_error (ECE)
        regression: rmse, mae, xauc
        ndcg@K, mrr, recall@K: GROUPED, of the objective's own predictions against its label, per request
        group_auc: {request_id and each of evaluation.group_by: GROUPED}      (binary)
        auc_within: {each categorical feature of side bias: GROUPED}          (binary)
    combined_score: {ndcg@K, mrr, recall@K: {OBJECTIVE: GROUPED}}, of the combined score against each label
    reliability.OBJECTIVE: {predicted, observed, weights: lists over bins of rising prediction}    (binary)
    agreement: {predictions, labels: {OBJECTIVE: {OBJECTIVE: Spearman's rank correlation}}}
    slices.FEATURE.VALUE.OBJECTIVE: {impressions, labelled, mean_label; auc, log_loss, calibration; rmse, mae}
    gates: utilisation and health of the experts, where there are any
    intervals: {objectives, combined_score: as above, with [low, high] in place of the metric}; of all but XAUC,
        the calibration error, agreement and slices
    bootstrap: {replicates, by, level, units}, what the intervals come from; absent without intervals, as these are
    sampled: {impressions, share, by}, and errors.OBJECTIVE: {auc, pr_auc}, where there were more impressions than are
        kept (`bounded_predictions`): auc, pr_auc, log_loss, normalized_entropy and calibration are of all of them,
        the first two at most the error away; all else is of a sample of whole units, and so are all intervals
    notes: sentences on what is not defined and why, and on what was left out

where GROUPED is {value, groups_counted, groups_total}: the mean over the groups that define the metric, and how many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mmoe_ranker import metrics
from mmoe_ranker.combined_score import CombinedScore
from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.evaluation_objectives import (
    ObjectiveRows,
    objective_report,
    ranking_names,
    ranking_report,
    slice_reports,
)
from mmoe_ranker.evaluation_rows import EvaluationRows
from mmoe_ranker.evaluation_statistics import Statistics, Units
from mmoe_ranker.examples import REQUEST_ID
from mmoe_ranker.json_numbers import without_nan
from mmoe_ranker.metrics.bootstrap import Path
from mmoe_ranker.metrics.rows import labelled_rows
from mmoe_ranker.predictions import Everything, Predictions


def evaluate(predictions: Predictions, config: Config) -> dict[str, Any]:
    """The report on a split.

    Args:
      predictions: of one split; none at all gives a report without metrics.
      config: the config that trained; its section `evaluation` says how rows are grouped and sliced, and what the
        bootstrap draws.

    Returns:
      A dict that `json.dumps` takes, as the module's docstring lays it out.
    """
    rows = EvaluationRows(predictions, config)
    bootstrap = config.evaluation.bootstrap
    report: dict[str, Any] = {"impressions": len(rows), "requests": rows.num_requests, "objectives": {}}
    report |= {"combined_score": {}, "reliability": {}, "agreement": _agreement(predictions, config)}
    report |= {"slices": {name: {text: {} for text in sliced.texts} for name, sliced in rows.slices.items()}}
    if predictions.expert_health is not None:
        report["gates"] = _gates_report(predictions.expert_health, config)
    intervals: dict[str, Any] = {}
    notes = rows.notes()
    units = _units(predictions, rows, config, notes)
    for part, statistics in _parts(predictions, rows, config, units, notes):
        _merge(report, part)
        if units is not None:
            found = metrics.bootstrap_intervals(
                statistics.collected, units.number, bootstrap.replicates, level=bootstrap.level
            )
            for path, interval in found.items():
                _merge(intervals, _nested(path, [interval.low, interval.high]))
    if predictions.everything is not None:
        _tell_everything(report, predictions.everything, notes)
    if units is not None:
        report["intervals"] = intervals
        report["bootstrap"] = {**bootstrap.model_dump(), "units": units.number}
    return without_nan(report | {"notes": notes})


def _tell_everything(report: dict[str, Any], everything: Everything, notes: list[str]) -> None:
    report["sampled"] = {name: getattr(everything, name) for name in ("impressions", "share", "by")}
    report["errors"] = {}
    bounds = []
    for name, totals in everything.totals.items():
        auc, pr_auc = totals.auc(), totals.pr_auc()
        report["errors"][name] = {"auc": auc.error, "pr_auc": pr_auc.error}
        if math.isfinite(auc.error):
            bounds.append(f"{name} {auc.error:.1e} and {pr_auc.error:.1e}")
        report["objectives"][name] |= {
            "auc": auc.value,
            "pr_auc": pr_auc.value,
            "log_loss": totals.log_loss(),
            "normalized_entropy": totals.normalized_entropy(),
            "calibration": totals.calibration_ratio(),
        }
    kept = f"{report['impressions']:,} of {everything.impressions:,} impressions, a sample of whole units of"
    notes.append(
        f"Metrics are of {kept} {everything.by}, but AUC, PR-AUC, log loss, normalised entropy and calibration are of "
        "all impressions" + (f", AUC and PR-AUC at most so far off: {', '.join(bounds)}." if bounds else ".")
    )


def paired_differences(
    first: Predictions, second: Predictions, config: Config, scores: Sequence[CombinedScore] = ()
) -> tuple[dict[Path, metrics.PairedDifference], list[str]]:
    """Every metric of two models on the same impressions, with the difference and its paired interval.

    Args:
      first: of one model.
      second: of the other: the same impressions in the same order, with the same labels.
      config: which metrics, slices and bootstrap; both must have its objectives.
      scores: the combined scores that rank, the first model's and the second's; by default both by that of `config`.

    Returns:
      By path in the report, such as ("objectives", "click", "auc"), ("combined_score", "ndcg@10", "click") or
      ("slices", "device", "phone", "click", "auc"): first, second, second less first, low and high; NaN where not
      defined (low and high of the calibration error never are), absent where either model does not have it. And
      sentences on what is missing and why.

    Raises:
      InputError: the impressions differ, or `evaluation.bootstrap.replicates` is 0.
    """
    _check_same(first, second, config)
    bootstrap = config.evaluation.bootstrap
    rows = EvaluationRows(first, config)
    notes = rows.notes()
    units = _units(first, rows, config, notes)
    differences: dict[Path, metrics.PairedDifference] = {}
    if units is None:
        return differences, notes
    pairs = (
        _parts(one, rows, config, units, notes, True, score)
        for one, score in zip((first, second), scores or (None, None), strict=True)
    )
    for (of_first, one), (of_second, other) in zip(*pairs, strict=True):
        differences |= metrics.paired_bootstrap(
            one.collected, other.collected, units.number, bootstrap.replicates, level=bootstrap.level
        )
        for name in of_first.get("objectives", {}):
            path: Path = ("objectives", name, "calibration_error")
            before, after = (side["objectives"][name].get(path[-1]) for side in (of_first, of_second))
            if before is not None and after is not None:
                differences[path] = metrics.PairedDifference(before, after, after - before, math.nan, math.nan)
    return differences, list(dict.fromkeys(notes))


def _parts(
    predictions: Predictions,
    rows: EvaluationRows,
    config: Config,
    units: Units | None,
    notes: list[str],
    paired: bool = False,
    score: CombinedScore | None = None,
) -> Iterator[tuple[dict[str, Any], Statistics]]:
    """A part of the report with its statistics at a time, so that memory holds those of one objective."""
    k = config.evaluation.ndcg_k
    for objective in config.objectives:
        name, statistics = objective.name, Statistics(units)
        labels, predicted = predictions.labels[name], predictions.predictions[name]
        part: dict[str, Any] = {"objectives": {name: {"impressions": len(rows)}}}
        try:
            one = ObjectiveRows(name, labels, predicted, rows, objective.kind == "binary")
        except InputError as error:
            notes.append(f"`{name}` has no metrics: {error}")
        else:
            part["objectives"] = {name: objective_report(one, statistics, k)}
            if one.binary:
                curve = one.reliability._asdict()
                part["reliability"] = {name: {column: values.tolist() for column, values in curve.items()}}
            part["slices"] = {
                feature: {
                    text: {name: report}
                    for text, report in zip(sliced.texts, slice_reports(one, feature, statistics, paired), strict=True)
                }
                for feature, sliced in rows.slices.items()
            }
            notes += _what_is_missing(one)
        yield part, statistics
    terms = config.combined_score
    score = score or CombinedScore.from_terms(config.objective_names, terms.form, terms.terms)
    yield _combined_part(predictions, rows, config, units, notes, score)


def _combined_part(
    predictions: Predictions,
    rows: EvaluationRows,
    config: Config,
    units: Units | None,
    notes: list[str],
    score: CombinedScore,
) -> tuple[dict[str, Any], Statistics]:
    statistics = Statistics(units)
    k = config.evaluation.ndcg_k
    combined = score.score(predictions.predictions)
    part: dict[str, Any] = {name: {} for name in ranking_names(k)}
    inside = None
    try:
        counted = labelled_rows(np.zeros(len(combined)), combined, names=("labels", "combined_score", "groups"))
        inside = metrics.SortedRows.best_first(counted).within(rows.requests) if len(counted) else None
    except InputError as error:
        notes.append(f"The combined score has no metrics: {error}")
    for name in config.objective_names:
        labelled = inside.relabelled(predictions.labels[name]) if inside is not None else None
        paths: dict[str, Path] = {metric: ("combined_score", metric, name) for metric in part}
        for metric, value in ranking_report(labelled, rows.requests, k, statistics, paths).items():
            part[metric][name] = value
    return {"combined_score": part}, statistics


def _units(predictions: Predictions, rows: EvaluationRows, config: Config, notes: list[str]) -> Units | None:
    by = config.evaluation.bootstrap.by
    if not config.evaluation.bootstrap.replicates or not len(rows):
        return None
    units = Units(*rows.units(predictions, by))
    if units.number == 1:
        notes.append(f"No metric has an interval: all impressions are of one value of `{by}`.")
    return units


def _what_is_missing(one: ObjectiveRows) -> list[str]:
    if not len(one.labels):
        return [f"`{one.name}` has no labelled impression, and so no metrics."]
    if one.binary and one.labels.min() == one.labels.max():
        which = "positive" if one.labels[0] else "negative"
        return [f"`{one.name}` has {which} labels alone; AUC and normalised entropy need both classes."]
    if not one.binary and one.labels.min() < 0:
        return [f"`{one.name}` has labels below 0, which are no gains: it has no NDCG, MRR and recall."]
    return []


def _agreement(predictions: Predictions, config: Config) -> dict[str, dict[str, dict[str, float]]]:
    names = config.objective_names
    return {
        "predictions": metrics.rank_correlations({name: predictions.predictions[name] for name in names}),
        "labels": metrics.rank_correlations({name: predictions.labels[name] for name in names}),
    }


def _gates_report(health: metrics.ExpertHealth, config: Config) -> dict[str, Any]:
    objectives = {
        name: {
            "utilisation": health.utilisation[index].tolist(),
            "entropy": float(health.entropy[index]),
            "entropy_share": float(health.entropy_share[index]),
            "polarised": float(health.polarised[index]),
        }
        for index, name in enumerate(config.objective_names)
    }
    own = getattr(config.model.sharing, "objective_experts", 0)
    return {"objectives": objectives, "own_experts": own, "dead_experts": health.dead_experts}


def _check_same(first: Predictions, second: Predictions, config: Config) -> None:
    if not config.evaluation.bootstrap.replicates:
        raise InputError("`evaluation.bootstrap.replicates` must be at least 1 to compare two models. Received: 0.")
    columns = {REQUEST_ID: (first.columns[REQUEST_ID], second.columns[REQUEST_ID])}
    columns |= {name: (first.labels[name], second.labels[name]) for name in config.objective_names}
    for name, (one, other) in columns.items():
        equal_nan = one.dtype.kind == "f" and other.dtype.kind == "f"
        if not np.array_equal(one, other, equal_nan=equal_nan):
            what = "request ids" if name == REQUEST_ID else f"labels of `{name}`"
            raise InputError(
                f"Two models are compared on the same impressions in the same order. Received: {what} that differ, of "
                f"{len(one):,} and {len(other):,} impressions."
            )


def _nested(path: Path, value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return value


def _merge(into: dict[str, Any], part: dict[str, Any]) -> None:
    for key, value in part.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value

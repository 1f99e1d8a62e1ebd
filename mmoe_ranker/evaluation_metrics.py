"""The report on a split: which metrics of `metrics` on what, slice by slice, as a dict for JSON.

`evaluation_text` prints it. Nothing here needs TensorFlow: predictions were made before (`evaluation`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker import metrics
from mmoe_ranker.combined_score import CombinedScore
from mmoe_ranker.config import Config
from mmoe_ranker.config_objectives import RegressionObjective
from mmoe_ranker.examples import REQUEST_ID
from mmoe_ranker.predictions import Predictions


def evaluate(predictions: Predictions, config: Config) -> dict[str, Any]:
    """The report on a split.

    Per objective: labelled impressions, rate or mean, AUC, log loss, calibration ratio (predicted over observed) or
    RMSE and MAE; group AUC by request and by `evaluation.group_by`; AUC within each value of each bias feature, the
    fair reading of a model blind to position. NDCG of the combined score against each label. The same per value of each
    slice: the features of the bias tower and `evaluation.slices`. Under `gates` the health of the experts.

    Args:
      predictions: of one split.
      config: the config that trained.

    Returns:
      A dict that `json.dumps` takes: a metric that is not defined on these rows is None.
    """
    score = CombinedScore.from_terms(config.objective_names, config.combined_score.form, config.combined_score.terms)
    combined = score.score(predictions.predictions)
    everything = np.ones(len(combined), dtype=bool)
    slices: dict[str, Any] = {}
    for name in slice_names(config):
        values = predictions.columns[name]
        slices[name] = {
            _text(value): _objective_reports(predictions, config, values == value) for value in np.unique(values)
        }
    report = {
        "impressions": len(combined),
        "requests": len(np.unique(predictions.columns[REQUEST_ID])),
        "objectives": _objective_reports(predictions, config, everything, grouped=True),
        "combined_score": {
            f"ndcg@{config.evaluation.ndcg_k}": {
                name: _ndcg(labels, combined, predictions.columns[REQUEST_ID], config.evaluation.ndcg_k)
                for name, labels in predictions.labels.items()
            }
        },
        "slices": slices,
    }
    if predictions.expert_health is not None:
        report["gates"] = _gates_report(predictions.expert_health, config)
    return _without_nan(report)


def slice_names(config: Config) -> list[str]:
    """The features whose values the report is sliced by, each once."""
    of_bias = [feature.name for feature in config.side("bias") if feature.kind == "categorical"]
    names = [*getattr(config.model.bias, "features", ()), *of_bias, *config.evaluation.slices]
    return list(dict.fromkeys(names))


def _objective_reports(
    predictions: Predictions, config: Config, rows: NDArray[np.bool_], grouped: bool = False
) -> dict[str, Any]:
    reports = {}
    for objective in config.objectives:
        labels, predicted = predictions.labels[objective.name][rows], predictions.predictions[objective.name][rows]
        report: dict[str, Any] = {
            "impressions": int(rows.sum()),
            "labelled": int(np.isfinite(labels).sum()),
            "mean_label": float(np.nanmean(labels)) if np.isfinite(labels).any() else None,
        }
        if isinstance(objective, RegressionObjective):
            report |= {"rmse": metrics.rmse(labels, predicted), "mae": metrics.mae(labels, predicted)}
            report |= {"xauc": metrics.xauc(labels, predicted)} if grouped else {}
        else:
            report |= {
                "auc": metrics.auc(labels, predicted),
                "log_loss": metrics.log_loss(labels, predicted),
                "calibration": metrics.calibration_ratio(labels, predicted),
            }
        if grouped:
            columns = {name: column[rows] for name, column in predictions.columns.items()}
            report |= _grouped_report(objective, labels, predicted, columns, config)
        reports[objective.name] = report
    return reports


def _grouped_report(
    objective: object,
    labels: NDArray[np.float64],
    predicted: NDArray[np.float64],
    columns: Mapping[str, NDArray[Any]],
    config: Config,
) -> dict[str, Any]:
    requests, k = columns[REQUEST_ID], config.evaluation.ndcg_k
    report: dict[str, Any] = {f"ndcg@{k}": _ndcg(labels, predicted, requests, k)}
    if isinstance(objective, RegressionObjective):
        return report
    groups = (REQUEST_ID, *config.evaluation.group_by)
    report["mrr"] = _grouped(metrics.mrr(labels, predicted, requests))
    within = [feature.name for feature in config.side("bias") if feature.kind == "categorical"]
    # Impressions of which the group is not known make no group.
    known = {name: _is_known(columns[name]) for name in (*groups, *within)}
    report["group_auc"] = {
        name: _grouped(metrics.group_auc(labels[known[name]], predicted[known[name]], columns[name][known[name]]))
        for name in groups
    }
    report["auc_within"] = {
        name: _grouped(metrics.auc_within(labels[known[name]], predicted[known[name]], columns[name][known[name]]))
        for name in within
    }
    return report


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


def _ndcg(labels: NDArray[Any], scores: NDArray[Any], requests: NDArray[Any], k: int) -> dict[str, Any]:
    """NDCG; undefined for an objective with negative labels, which are no gains."""
    if np.nanmin(labels, initial=0.0) < 0:
        return {"value": None, "groups_counted": 0, "groups_total": len(np.unique(requests))}
    return _grouped(metrics.ndcg(labels, scores, requests, k))


def _grouped(metric: metrics.GroupedMetric) -> dict[str, Any]:
    return {"value": metric.value, "groups_counted": metric.groups_counted, "groups_total": metric.groups_total}


def _text(value: object) -> str:
    if value in (b"", -1):
        return "(missing)"
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _is_known(values: NDArray[Any]) -> NDArray[np.bool_]:
    """[N], where a categorical column as it stands in the examples holds a value."""
    return values != (-1 if np.issubdtype(values.dtype, np.integer) else b"")


def _without_nan(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_nan(value) for key, value in node.items()}
    return None if isinstance(node, float) and not math.isfinite(node) else node

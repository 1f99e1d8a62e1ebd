"""The metrics of a report, one by one: where each stands, its value, its interval, and how the page calls it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

NAMES = {
    "impressions": ("impressions", ""),
    "labelled": ("labels", "impressions that have one"),
    "mean_label": ("mean label", ""),
    "auc": ("AUC", "a positive above a negative; 0.5 is a coin"),
    "pr_auc": ("PR-AUC", "precision over recall; the mean label is a coin"),
    "log_loss": ("log loss", "lower is better"),
    "normalized_entropy": ("normalised entropy", "log loss over that of the mean rate; below 1 it has learned"),
    "calibration": ("predicted over observed", "1 is calibrated"),
    "calibration_error": ("calibration error (ECE)", "mean distance of predicted and observed rate"),
    "rmse": ("RMSE", "in the label's unit; lower is better"),
    "mae": ("MAE", "in the label's unit; lower is better"),
    "xauc": ("XAUC", "pairs in the right order; 0.5 is a coin"),
    "mrr": ("MRR", "1 over the rank of the first positive"),
    "group_auc": ("AUC inside each", "weighted by impressions"),
    "auc_within": ("AUC within each", "fair to a model that does not see it"),
    "recall": ("recall", "positives among the first of each request"),
    "ndcg": ("NDCG", "of each request; 1 is the best order"),
    "request_id": ("request", ""),
}
"""By the report's key: the page's words, and how to read the number."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of a report.

    Attributes:
      path: its keys below the objective.
      value: None where it is not defined.
      low: lower end of its interval, None without.
      high: upper end.
      groups: how many groups counted, of a metric within groups.
    """

    path: tuple[str, ...]
    value: float | None
    low: float | None = None
    high: float | None = None
    groups: int | None = None

    @property
    def title(self) -> str:
        """What the page calls it."""
        return " ".join(_words(key)[0] for key in self.path)

    @property
    def reading(self) -> str:
        """How to read it; "" where its name says it."""
        return _words(self.path[0])[1]


def metrics_of(node: Mapping[str, Any], intervals: Mapping[str, Any] | None = None) -> Iterator[Metric]:
    """Every metric below a node of a report; curves and lists are none.

    Args:
      node: of one objective, or one that maps to such.
      intervals: the node of the report's intervals that it belongs to, None without.
    """
    yield from _metrics((), node, intervals)


def _metrics(path: tuple[str, ...], node: Any, bounds: Any) -> Iterator[Metric]:
    if isinstance(node, Mapping) and "value" not in node:
        for key, below in node.items():
            yield from _metrics((*path, key), below, bounds.get(key) if isinstance(bounds, Mapping) else None)
        return
    low, high = bounds if isinstance(bounds, list) else (None, None)
    if isinstance(node, Mapping):
        yield Metric(path, node["value"], low, high, node.get("groups_counted"))
    elif path and (node is None or (isinstance(node, (int, float)) and not isinstance(node, bool))):
        yield Metric(path, node, low, high)


def _words(key: str) -> tuple[str, str]:
    name, at, k = key.partition("@")
    title, reading = NAMES.get(name, (key.replace("_", " ") if key.islower() else key, ""))
    return title + at + k, reading

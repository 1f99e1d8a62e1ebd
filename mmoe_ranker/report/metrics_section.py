"""How good the model is: every metric of every objective with its interval, and the same slice by slice."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmoe_ranker.config import Config
from mmoe_ranker.config_objectives import RegressionObjective
from mmoe_ranker.report.document import Block, Cell, Section, Table, interval, number, percent
from mmoe_ranker.report.metric_values import Metric, metrics_of

_MOST_VALUES = 30
_IN_SLICES = (("mean_label",), ("auc",), ("rmse",), ("calibration",))
_SHORT = {"mean_label": "mean", "calibration": "p/o"}


def metrics_section(report: Mapping[str, Any], config: Config, split: str) -> Section:
    """The section with the metrics of each objective and of the combined score.

    Args:
      report: as `evaluation_metrics.evaluate` gives it.
      config: the config that trained.
      split: its name.
    """
    regressions = {objective.name for objective in config.objectives if isinstance(objective, RegressionObjective)}
    bounds = report.get("intervals") or {}
    blocks = []
    for heading, names in (
        ("Objectives that happen or not", [name for name in config.objective_names if name not in regressions]),
        ("Objectives with a value", [name for name in config.objective_names if name in regressions]),
    ):
        if names:
            objectives = {
                name: list(metrics_of(report["objectives"][name], bounds.get("objectives", {}).get(name)))
                for name in names
            }
            blocks.append(Block(heading, tables=[_metric_table("Each objective by its own predictions", objectives)]))
    if report.get("combined_score"):
        by_label: dict[str, list[Metric]] = {name: [] for name in config.objective_names}
        for metric in metrics_of(report["combined_score"], bounds.get("combined_score")):
            if metric.path[-1] in by_label:
                by_label[metric.path[-1]].append(
                    Metric(metric.path[:-1], metric.value, metric.low, metric.high, metric.groups)
                )
        caption = "The order by the combined score, against each label"
        blocks.append(Block("Combined score", tables=[_metric_table(caption, by_label)]))
    blocks += _agreement(report.get("agreement") or {})
    sentence = f"All of the {split} split, predicted with the position missing, as the model serves."
    if sampled := report.get("sampled"):
        sentence = (
            f"AUC, PR-AUC, log loss, normalised entropy and the ratio of predicted and observed are of all "
            f"{number(sampled['impressions'])} impressions of the {split} split, the rest of a sample of "
            f"{percent(sampled['share'])}; predicted with the position missing, as the model serves."
        )
    if drawn := report.get("bootstrap"):
        by = drawn["by"].removesuffix("_id")
        sentence += (
            f" Below a value is its {percent(drawn['level'], 0)} interval: {number(drawn['replicates'])} draws of "
            f"the {number(drawn['units'])} {by}s, with replacement."
        )
    return Section("metrics", "Metrics", paragraphs=[sentence], blocks=blocks, missing=report.get("notes", ()))


def slices_section(report: Mapping[str, Any]) -> Section:
    """The section with a table a feature that the report is sliced by.

    Args:
      report: as `evaluation_metrics.evaluate` gives it.
    """
    blocks = [_slices(name, values) for name, values in report.get("slices", {}).items() if values]
    missing = [] if blocks else ["There are no slices: the config names none under `evaluation.slices`."]
    return Section("slices", "Slices", blocks=blocks, missing=missing)


def _agreement(agreement: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> list[Block]:
    tables = [
        Table(
            f"Rank correlation of the {what}",
            [what, *matrix],
            [[name, *(number(row.get(other), 2) for other in matrix)] for name, row in matrix.items()],
        )
        for what, matrix in agreement.items()
        if len(matrix) > 1
    ]
    sentence = "Spearman's correlation over impressions: objectives near 1 order alike, those below 0 pull apart."
    return [Block("How far the objectives agree", [sentence], tables)] if tables else []


def _metric_table(caption: str, columns: Mapping[str, Sequence[Metric]]) -> Table:
    """A row a metric, a column an objective."""
    rows: dict[tuple[str, ...], dict[str, Metric]] = {}
    for name, metrics in columns.items():
        for metric in metrics:
            rows.setdefault(metric.path, {})[name] = metric
    cells = []
    for by_name in rows.values():
        metric = next(iter(by_name.values()))
        if metric.path != ("impressions",):
            cells.append([(metric.title, metric.reading), *(_cell(by_name.get(name)) for name in columns)])
    return Table(caption, ["metric", *columns], cells)


def _cell(metric: Metric | None) -> Cell:
    if metric is None:
        return ""
    beside = []
    if metric.low is not None and metric.high is not None:
        beside.append(interval(metric.low, metric.high))
    if metric.groups is not None and metric.value is not None:
        beside.append(f"{number(metric.groups)} groups")
    return (number(metric.value), "\n".join(beside)) if beside else number(metric.value)


def _digits(path: tuple[str, ...], values: Iterable[Metric | None]) -> int:
    """As many in the whole column: of few impressions, more would say more than is known."""
    largest = max((abs(one.value) for one in values if one is not None and one.value is not None), default=0.0)
    return {"auc": 3, "calibration": 2}.get(path[1], 4 if largest < 1 else 2 if largest < 10 else 1)


def _slice_cell(metric: Metric | None, digits: int) -> Cell:
    return "" if metric is None else number(metric.value, digits)


def _slices(feature: str, values: Mapping[str, Mapping[str, Any]]) -> Block:
    metrics = {
        value: {
            (name, *metric.path): metric
            for name, objective in objectives.items()
            for metric in metrics_of(objective)
            if metric.path in _IN_SLICES
        }
        for value, objectives in values.items()
    }
    sizes = {value: next(iter(objectives.values()))["impressions"] for value, objectives in values.items()}
    shown = list(values)
    sentences = []
    if len(shown) > _MOST_VALUES:
        largest = set(sorted(shown, key=lambda value: -sizes[value])[:_MOST_VALUES])
        shown = [value for value in shown if value in largest]
        sentences = [f"The {_MOST_VALUES} values with the most impressions, of {number(len(values))}."]
    caption = "Mean label; AUC or RMSE; predicted over observed (p/o) of each objective"
    paths = list(dict.fromkeys(path for by_path in metrics.values() for path in by_path))
    titles = [_SHORT.get(path[1], Metric(path[1:], None).title) for path in paths]
    groups = [("", 2), *((name, len(list(its))) for name, its in itertools.groupby(paths, key=lambda path: path[0]))]
    digits = {path: _digits(path, [by_path.get(path) for by_path in metrics.values()]) for path in paths}
    rows = [
        [value, number(sizes[value]), *(_slice_cell(metrics[value].get(path), digits[path]) for path in paths)]
        for value in shown
    ]
    return Block(f"By {feature}", sentences, [Table(caption, [feature, "impressions", *titles], rows, groups=groups)])

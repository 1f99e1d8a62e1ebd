"""Position bias: what positions do to clicks, what the model made of it, and what can be known of either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmoe_ranker import plots
from mmoe_ranker.report.document import Block, Finding, Section, interval, number, percent
from mmoe_ranker.report.figures import PageFigure, page_figure

_TITLE = "Position bias"
Rows = Sequence[Mapping[str, Any]]
_MOVES = 0.1
_AGAINST = -0.1
_FOLLOWS = (("hardly follows", 0.1), ("weakly follows", 0.3), ("partly follows", 0.6), ("closely follows", 1.0))


def position_section(report: Mapping[str, Any] | None, why: str = "") -> Section:
    """The section; whatever the report does not have is a sentence.

    Args:
      report: of `position_bias.report.position_bias_report`, or None.
      why: the sentence on why there is none.
    """
    if report is None:
        return Section("position", _TITLE, missing=[why])
    return Section(
        "position",
        _TITLE,
        findings=position_findings(report),
        blocks=[Block(figures=_figures(report))],
        missing=report["notes"],
    )


def _figures(report: Mapping[str, Any]) -> list[PageFigure]:
    objective, group = report["objective"], " and ".join(report["groups"])
    figures = []
    if report["rates"]:
        figures.append(
            page_figure(
                lambda: plots.rate_by_position(_by_group(report["rates"]), f"rate of {objective}", group),
                "rates",
                f"Rate of {objective} at each position (the paper's figure 6)",
                "What falls with position is both: later positions are seen less, and hold what the logging ranker "
                "thought less of. The bands are 95 % intervals.",
            )
        )
    if report["learned"]:
        figures.append(
            page_figure(
                lambda: plots.learned_bias_over_seeds(report["learned"], objective, group=group),
                "learned",
                "Learned bias at each position (the paper's figure 7)",
                "By what factor the shallow tower says that a position changes the odds of the first: the part of the "
                "fall with position that the model does not count as relevance.",
            )
        )
    if report["examination"]:
        figures.append(
            page_figure(
                lambda: plots.examination(report["examination"]),
                "examination",
                "Examination of each position over the first's, by several references",
                "Clicks on the same item at two positions owe nothing to relevance. A model that falls with them "
                "when it sees the position has found examination; above them it has found part of it, below "
                "them it has taken relevance too. With position missing it should be flat.",
            )
        )
    if any(row["ratio"] is not None for rows in (report["calibration"] or {}).values() for row in rows or ()):
        figures.append(
            page_figure(
                lambda: plots.calibration_by_position(report["calibration"], objective),
                "calibration-by-position",
                f"Predicted over observed rate of {objective} at each position",
                "With the position seen it should be 1 everywhere. With it missing, as the model serves, it predicts "
                "an average position: below 1 at the first, above 1 at the last.",
            )
        )
    return figures


def _by_group(rates: Rows) -> dict[str, dict[int, tuple[float, float, float]]]:
    """By group and position; all groups together only where there is no other."""
    named = [row for row in rates if row["group"] is not None] or rates
    curves: dict[str, dict[int, tuple[float, float, float]]] = {}
    for row in named:
        curves.setdefault(row["group"] or "all", {})[row["position"]] = (row["rate"], row["low"], row["high"])
    return curves


def position_findings(report: Mapping[str, Any]) -> list[Finding]:
    """What the figures come to, the most important sentence first."""
    return [
        *_learned_against_examined(report),
        *_blind(report),
        *_confounding(report),
        *_overlap(report),
        *_ndcg(report),
    ]


def _learned_against_examined(report: Mapping[str, Any]) -> list[Finding]:
    """Both relative to the first position that interventions reach, which need not be the first of the learned bias."""
    interventions = (report.get("examination") or {}).get("interventions") or {"rows": ()}
    examined = {
        row["position"]: row for row in interventions["rows"] if row["group"] is None and row["value"] is not None
    }
    learned: dict[str, dict[int, float]] = {}
    for row in report.get("learned") or ():
        learned.setdefault(row["group"], {})[row["position"]] = row["odds"]
    first = min(examined, default=0)
    curves = [odds for odds in learned.values() if first in odds]
    last = max((position for odds in curves for position in odds if position in examined), default=first)
    if last == first:
        return []
    odds = [curve[last] / curve[first] for curve in curves if last in curve]
    said = number(odds[0], 2) if len(odds) == 1 else f"{number(min(odds), 2)} to {number(max(odds), 2)}"
    row, reference = examined[last], "the first position" if first == 1 else f"position {first}"
    return [
        Finding(
            f"Position {last} has {said} of {reference}'s odds by the learned bias; items that stood at both "
            f"were clicked {number(row['value'], 2)} times as often there ({interval(row['low'], row['high'], 2)})."
        )
    ]


def _blind(report: Mapping[str, Any]) -> list[Finding]:
    rows = (report.get("examination") or {}).get("predicted_missing") or ()
    values = [row["value"] for row in rows if row["value"] is not None]
    if not values:
        return []
    far = max(values, key=lambda value: abs(value - 1))
    if abs(far - 1) < _MOVES:
        return [
            Finding(
                f"As it serves, the model predicts the same of an item at every position, within {percent(_MOVES, 0)}."
            )
        ]
    sentence = (
        f"Even with position missing, the model predicts {number(far, 2)} times as much of an item at some position."
    )
    return [Finding(sentence, True)]


def _confounding(report: Mapping[str, Any]) -> list[Finding]:
    confounding = report.get("confounding")
    if not confounding or confounding["value"] is None:
        return []
    value = confounding["value"]
    how = "runs against" if value < _AGAINST else next(word for word, most in _FOLLOWS if value <= most)
    close = value >= _FOLLOWS[-2][1]
    return [
        Finding(
            f"The order in the log {how} the model's: rank correlation {number(value, 2)} "
            f"({interval(confounding['low'], confounding['high'], 2)}), position missing."
            + (" What position does can then hardly be told from relevance." if close else ""),
            close,
        )
    ]


def _overlap(report: Mapping[str, Any]) -> list[Finding]:
    overlap = report.get("overlap")
    if not overlap or overlap.get("at_several_positions_within_group") is None:
        return []
    share = overlap["at_several_positions_within_group"]
    sentence = f"{percent(share, 0)} of the impressions are of items that stood at several positions"
    return [Finding(sentence + ", which is what natural interventions compare.", share < 0.5)]


def _ndcg(report: Mapping[str, Any]) -> list[Finding]:
    ndcg = report.get("ndcg")
    if not ndcg or ndcg["inverse_propensity"]["value"] is None:
        return []
    logged, weighed = ndcg["logged"], ndcg["inverse_propensity"]
    source = "natural interventions" if ndcg["propensities"] == "interventions" else "EM over the predictions"
    return [
        Finding(
            f"NDCG@{ndcg['k']} of {report['objective']} is {number(logged['value'], 3)} on the clicks as logged, and "
            f"{number(weighed['value'], 3)} ({interval(weighed['low'], weighed['high'], 3)}) with each weighed by the "
            f"inverse of its position's examination, by {source}; the {number(weighed['clicks'])} clicks are then "
            f"worth {number(weighed['effective_clicks'], 0)} of equal weight."
        )
    ]

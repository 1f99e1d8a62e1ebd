"""Position bias: what positions do to clicks, what the model made of it, and what can be known of either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmoe_ranker.report.document import Block, Finding, Section, interval, number, percent
from mmoe_ranker.report.figures import PageFigure, page_figure

_TITLE = "Position bias"
Rows = Sequence[Mapping[str, Any]]
_MOVES = 0.1
_FOLLOWS = (("hardly follows", 0.1), ("weakly follows", 0.3), ("partly follows", 0.6), ("closely follows", 1.0))


def position_section(report: Mapping[str, Any] | None, why: str = "") -> Section:
    """The section; whatever the report does not have is a sentence.

    Args:
      report: of `position_bias.report.position_bias_report`, or None.
      why: the sentence on why there is none.
    """
    if report is None:
        return Section("position", _TITLE, missing=[why])
    objective = report["objective"]
    figures: list[PageFigure] = []
    rates: Rows = report.get("rates") or ()
    if rates:
        title = f"Rate of {objective} at each position (the paper's figure 6)"
        figures.append(
            page_figure(
                lambda: _curves(_grouped(rates, "rate", drop_all=True), f"rate of {objective}", floor=0.0),
                "rates",
                title,
                "What falls with position is both: later positions are seen less, and hold what the logging ranker "
                "thought less of. The bands are 95 % intervals.",
            )
        )
    if report.get("learned"):
        figures.append(
            page_figure(
                lambda: _curves(_grouped(report["learned"], "odds"), "odds", floor=0.0),
                "learned",
                "Learned bias at each position (the paper's figure 7)",
                "By what factor the shallow tower says that a position changes the odds of the first: the part of the "
                "fall above that the model does not count as relevance.",
            )
        )
    if report.get("examination"):
        figures.append(
            page_figure(
                lambda: _curves(_examinations(report["examination"]), "examination", floor=0.0),
                "examination",
                "Examination of each position over the first's, by several references",
                "Interventions compare the same item at two positions; where the learned bias lies on them, it has "
                "found examination; where it falls faster, it has taken relevance with it.",
            )
        )
    calibration = report.get("calibration") or {}
    curves = {f"position {kind}": calibration[kind] for kind in ("missing", "seen") if calibration.get(kind)}
    if curves:
        figures.append(
            page_figure(
                lambda: _curves(
                    {name: _points(rows, "ratio") for name, rows in curves.items()},
                    "predicted over observed",
                    level=1.0,
                    factors=True,
                ),
                "calibration-by-position",
                f"Predicted over observed rate of {objective} at each position",
                "With the position seen it should be 1 everywhere. With it missing, as the model serves, it predicts "
                "an average position: below 1 at the first, above 1 at the last.",
            )
        )
    return Section(
        "position",
        _TITLE,
        findings=position_findings(report),
        blocks=[Block(figures=figures)],
        missing=report.get("notes", ()),
    )


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
    learned, examination = report.get("learned"), report.get("examination")
    interventions = (examination or {}).get("interventions")
    if not learned or not interventions:
        return []
    examined = {
        row["position"]: row for row in interventions["rows"] if row["group"] is None and row["value"] is not None
    }
    last = max((position for position in examined if any(row["position"] == position for row in learned)), default=1)
    if last <= 1:
        return []
    odds = [row["odds"] for row in learned if row["position"] == last]
    said = number(odds[0], 2) if len(odds) == 1 else f"{number(min(odds), 2)} to {number(max(odds), 2)}"
    row = examined[last]
    return [
        Finding(
            f"Position {last} has {said} of the first position's odds by the learned bias; items that stood at both "
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
    how = next(word for word, most in _FOLLOWS if abs(value) <= most)
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


def _grouped(rows: Rows, value: str, drop_all: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Curves by group; that of all groups together only where there is no other."""
    groups = list(dict.fromkeys(row["group"] for row in rows))
    if drop_all and len(groups) > 1:
        groups = [group for group in groups if group is not None]
    return {str(group or "all"): _points([row for row in rows if row["group"] == group], value) for group in groups}


def _points(rows: Rows, value: str) -> list[dict[str, Any]]:
    return [
        {"position": row["position"], "value": row[value], "low": row.get("low"), "high": row.get("high")}
        for row in rows
    ]


def _examinations(examination: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    curves: dict[str, list[dict[str, Any]]] = {}
    interventions = examination.get("interventions")
    if interventions:
        curves["natural interventions"] = _points(
            [row for row in interventions["rows"] if row.get("group") is None], "value"
        )
    for key, name in (
        ("em_by_item", "EM by item"),
        ("em_by_prediction", "EM by prediction"),
        ("predicted_seen", "the model, position seen"),
        ("predicted_missing", "the model, position missing"),
    ):
        if examination.get(key):
            curves[name] = _points(examination[key], "value")
    return curves


def _curves(
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    label: str,
    level: float | None = None,
    floor: float | None = None,
    factors: bool = False,
) -> Figure:
    """A line a curve over positions, with its interval as a band."""
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    if level is not None:
        axes.axhline(level, color=plt.rcParams["grid.color"], linewidth=1.2, zorder=0)
    for name, points in curves.items():
        drawn = [point for point in points if point["value"] is not None]
        positions = [point["position"] for point in drawn]
        (line,) = axes.plot(positions, [point["value"] for point in drawn], marker="o", markersize=3, label=name)
        banded = [point for point in drawn if point["low"] is not None and point["high"] is not None]
        axes.fill_between(
            [point["position"] for point in banded],
            [point["low"] for point in banded],
            [point["high"] for point in banded],
            color=line.get_color(),
            alpha=0.15,
            linewidth=0,
        )
    axes.set(xlabel="position", ylabel=label)
    if floor is not None:
        axes.set_ylim(bottom=floor)
    if factors:
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(lambda factor, _: f"{factor:g}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper left", ncols=2 if max(map(len, curves), default=0) > 12 else 4)
    return figure

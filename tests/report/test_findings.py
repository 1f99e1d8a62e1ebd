"""What the sentences of the page rest on: each says what the numbers bear out, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from mmoe_ranker.report.position_section import position_findings
from mmoe_ranker.report.summary_section import metric_findings
from tests.report.worlds import report_config

_LABELS = {"impressions": 900, "labelled": 900, "mean_label": 0.25}


def _sentences(objectives: dict[str, Any], **report: Any) -> list[str]:
    everything = {name: dict(_LABELS) for name in report_config().objective_names} | objectives
    return [finding.text for finding in metric_findings({"objectives": everything} | report, report_config())]


def test_better_than_by_chance_rests_on_an_interval() -> None:
    objectives = {name: _LABELS | {"auc": 0.7} for name in ("click", "like", "dismiss")}
    objectives["watch_time"] = _LABELS | {"xauc": 0.7}
    intervals = {"objectives": {"click": {"auc": [0.6, 0.8]}, "like": {"auc": [0.45, 0.95]}}}
    sentences = _sentences(objectives, intervals=intervals)
    assert "click is ordered better than by chance." in sentences
    assert "The order of like cannot be told from chance: AUC 0.700 (0.450 to 0.950)." in sentences
    assert not [sentence for sentence in sentences if "watch_time" in sentence or "dismiss" in sentence]


def test_an_order_no_better_than_a_coin_needs_no_interval() -> None:
    sentences = _sentences({"watch_time": _LABELS | {"xauc": 0.48}})
    assert "The order of watch_time cannot be told from chance: XAUC 0.480." in sentences


def test_a_slice_that_is_perfect_is_not_behind() -> None:
    slices = {"device": {"tv": {"click": _LABELS | {"auc": 1.0}}}}
    assert not [one for one in _sentences({"click": _LABELS | {"auc": 1.0}}, slices=slices) if "slice" in one]
    slices["device"]["tv"]["click"]["auc"] = 0.9
    assert [one for one in _sentences({"click": _LABELS | {"auc": 1.0}}, slices=slices) if "device = tv" in one]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-0.9, "runs against"),
        (-0.2, "runs against"),
        (-0.05, "hardly follows"),
        (0.2, "weakly follows"),
        (0.5, "partly follows"),
        (0.9, "closely follows"),
    ],
)
def test_the_log_follows_the_model_or_runs_against_it(value: float, words: str) -> None:
    report = {"confounding": {"value": value, "low": value - 0.01, "high": value + 0.01}}
    (finding,) = position_findings(report)
    assert f"The order in the log {words} the model's" in finding.text
    assert finding.attention == (value >= 0.6)


def _learned_and_examined(learned: dict[str, dict[int, float]], examined: dict[int, float | None]) -> list[str]:
    report = {
        "learned": [
            {"group": group, "position": position, "odds": odds}
            for group, curve in learned.items()
            for position, odds in curve.items()
        ],
        "examination": {
            "interventions": {
                "rows": [
                    {"group": group, "position": position, "value": value, "low": value, "high": value}
                    for group, scale in ((None, 1.0), ("phone", 0.1))
                    for position, one in examined.items()
                    for value in [one and one * scale]
                ]
            }
        },
    }
    return [finding.text for finding in position_findings(report)]


def test_learned_and_examined_are_relative_to_the_same_position() -> None:
    learned = {"phone": {1: 1.0, 2: 0.8, 3: 0.4}, "tv": {1: 1.0, 2: 0.5, 3: 0.2}}
    (sentence,) = _learned_and_examined(learned, {1: 1.0, 2: 0.7, 3: 0.3})
    assert sentence.startswith("Position 3 has 0.20 to 0.40 of the first position's odds by the learned bias;")
    assert "clicked 0.30 times as often there" in sentence
    # Where no items are shared with position 1, clicks are relative to position 2, and the learned odds must be too.
    (sentence,) = _learned_and_examined(learned, {1: None, 2: 1.0, 3: 0.45})
    assert sentence.startswith("Position 3 has 0.40 to 0.50 of position 2's odds by the learned bias;")
    assert "clicked 0.45 times as often there" in sentence


def test_a_group_that_lacks_a_position_is_not_compared_there() -> None:
    learned = {"phone": {1: 1.0, 2: 0.8, 3: 0.4}, "tv": {1: 1.0, 3: 0.2}, "watch": {1: 1.0, 2: 0.7}}
    (sentence,) = _learned_and_examined(learned, {1: None, 2: 1.0, 3: 0.45})
    assert sentence.startswith("Position 3 has 0.50 of position 2's odds by the learned bias;")


@pytest.mark.parametrize("examined", [{}, {1: 1.0}, {1: None, 2: None}, {4: 1.0, 5: 0.5}])
def test_learned_and_examined_without_two_positions_in_common_are_not_compared(examined: dict[int, Any]) -> None:
    assert not _learned_and_examined({"phone": {1: 1.0, 2: 0.8}}, examined)
    assert not _learned_and_examined({}, examined)

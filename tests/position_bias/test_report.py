from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from mmoe_ranker.config_loading import load_config
from mmoe_ranker.position_bias import position_bias_report
from mmoe_ranker.position_bias.report import MOST_GROUPS
from mmoe_ranker.predictions import Predictions
from tests.position_bias.worlds import simulated, true_curve

CONFIG = load_config("watch_next")
BLIND = load_config("watch_next", ["model.bias={kind: none}"])
KEYS = (
    *("notes", "objective", "groups", "positions", "rates", "learned", "examination", "overlap", "confounding"),
    *("ndcg", "calibration"),
)


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    return simulated(requests=3000).predictions()


def _report(predictions: Predictions, config=CONFIG, learned=None):
    report = position_bias_report(predictions, config, learned)
    assert tuple(report) == KEYS
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    return report


def _curve(rows, group=None, name="value"):
    return np.array([row[name] for row in rows if row.get("group") == group])


def test_a_ranker_that_knows_the_truth_is_reported_as_such(predictions: Predictions):
    log = simulated(requests=3000)
    learned = [
        {"position": place, "device": device, "click": float(np.log(value)), "like": 0.0}
        for index, device in enumerate(("phone", "web", "tv"))
        for place, value in enumerate([*true_curve(log, index), 0.5], start=1)
    ]
    report = _report(predictions, learned=learned)
    assert report["notes"] == []
    assert (report["objective"], report["groups"]) == ("click", ["device"])
    assert report["positions"] == list(range(1, 21))
    assert {row["group"] for row in report["rates"]} == {None, "phone", "web", "tv"}
    assert sum(_curve(report["rates"], None, "impressions")) == 60_000
    # Position 21 is in the model and not in the split.
    np.testing.assert_allclose(_curve(report["learned"], "tv", "odds"), true_curve(log, 2))
    examination = report["examination"]
    assert {row["group"] for row in examination["interventions"]["rows"]} == {None, "phone", "web", "tv"}
    phone = _curve(examination["interventions"]["rows"], "phone")
    assert np.all(phone[4:] < true_curve(log, 0)[4:])  # the logging ranker knows its users
    assert examination["predicted_missing"][-1]["high"] < 0.9
    seen = np.array([row["value"] for row in examination["predicted_seen"]])
    clicked = _curve(examination["interventions"]["rows"])
    assert np.abs(np.log(seen / clicked)).mean() < 0.1
    mean_truth = np.average([true_curve(log, device) for device in range(3)], axis=0, weights=np.bincount(log.device))
    found = _curve(examination["em_by_prediction"])
    np.testing.assert_allclose(found[:10], mean_truth[:10], rtol=0.2)
    assert report["overlap"]["at_several_positions"] > 0.9
    assert report["confounding"]["low"] > 0.02
    assert report["ndcg"]["propensities"] == "interventions"
    assert report["ndcg"]["inverse_propensity"]["effective_clicks"] < report["ndcg"]["logged"]["effective_clicks"]
    assert report["calibration"]["missing"][-1]["ratio"] > 3
    assert report["calibration"]["seen"][-1]["ratio"] == pytest.approx(1, abs=0.3)


def test_what_is_missing_is_said_in_a_sentence(predictions: Predictions):
    columns = {name: column for name, column in predictions.columns.items() if name != "position"}
    report = _report(dataclasses.replace(predictions, columns=columns))
    assert "the config has no feature `position` with a `size`." in report["notes"][-1]
    assert report["rates"] is None

    unknown = {**predictions.columns, "position": np.full(len(predictions), -1)}
    report = _report(dataclasses.replace(predictions, columns=unknown))
    assert report["notes"][-1] == (
        "Position bias was not measured: no impression has a position and a label of `click`."
    )
    single = {**predictions.columns, "position": np.ones(len(predictions), np.int64)}
    report = _report(dataclasses.replace(predictions, columns=single))
    assert "every impression stands at the same position." in report["notes"][-1]
    assert report["confounding"]["value"] is None
    assert len(report["calibration"]["seen"]) == 1

    for label in (0.0, 1.0):
        labels = {"click": np.full(len(predictions), label)}
        report = _report(dataclasses.replace(predictions, labels=labels))
        assert report["notes"][-1].endswith(f"every label of `click` is {label:g}.")
        assert report["ndcg"] is report["examination"] is None
        assert report["rates"][0]["rate"] == label


def test_a_model_without_bias_modelling_has_no_learned_bias_and_no_seen_positions(predictions: Predictions):
    report = _report(dataclasses.replace(predictions, seen=None), BLIND)
    assert len(report["notes"]) == 2
    assert report["notes"][0].startswith("There is no learned bias")
    assert report["notes"][1].startswith("There are no predictions with the position seen")
    assert report["notes"][0].endswith("the model has no shallow tower.")
    assert "more than 10,000 combinations" in _report(predictions)["notes"][0]  # it has one, that was not read
    assert report["groups"] == ["device"]  # though no tower crosses it
    assert report["calibration"]["seen"] is report["examination"]["predicted_seen"] is None
    other = _report(predictions, learned=[{"device": "tv", "like": 1.0}])
    assert "no learned bias of `click` by position" in other["notes"][0]


def test_items_that_keep_their_place_leave_em_only():
    log = simulated(requests=300)
    predictions = dataclasses.replace(log, items=np.arange(len(log.items))).predictions()
    report = _report(predictions)
    assert report["examination"]["interventions"]["items"] == 0
    assert {row["value"] for row in report["examination"]["interventions"]["rows"]} == {None}
    assert report["ndcg"]["propensities"] == "em_by_prediction"
    assert "Natural interventions are too few (0 items count, " in report["notes"][-1]
    assert report["ndcg"]["inverse_propensity"]["clicks"] > 100


def test_a_group_that_begins_further_down_is_weighed_on_the_scale_of_all():
    log = simulated(requests=3000)
    log = log.rows((log.device != 2) | (log.positions > 2))  # a television has no first two places
    report = _report(log.predictions())
    curves = {
        group: {row["position"]: row["value"] for row in report["examination"]["interventions"]["rows"]
                if row["group"] == group}
        for group in (None, "phone", "web", "tv")
    }  # fmt: skip
    assert curves["tv"][3] == 1.0
    assert curves[None][3] < 0.8
    names = np.array(["phone", "web", "tv"])[log.device]
    clicked = [(name, place) for name, place, click in zip(names, log.positions, log.clicks, strict=True) if click]
    propensities = np.array(
        [curves[name][place] * (curves[None][3] if name == "tv" else 1.0) for name, place in clicked]
    )
    weights = np.minimum(propensities.max() / propensities, report["ndcg"]["clip"])
    expected = weights.sum() ** 2 / np.sum(weights**2)
    assert report["ndcg"]["inverse_propensity"]["effective_clicks"] == pytest.approx(expected, rel=1e-6)


def test_only_the_largest_groups_get_a_curve():
    log = simulated(requests=1200)
    predictions = log.predictions()
    devices = np.char.mod("d%02d", log.requests % 12).astype(bytes)
    report = _report(dataclasses.replace(predictions, columns={**predictions.columns, "device": devices}))
    groups = {row["group"] for row in report["examination"]["interventions"]["rows"]} - {None}
    assert len(groups) == MOST_GROUPS
    assert len({row["group"] for row in report["rates"]}) == 13


def test_the_report_does_not_depend_on_the_order_of_impressions():
    log = simulated(requests=400)
    mixed = np.random.default_rng(0).permutation(len(log.items))
    one, other = _report(log.predictions()), _report(log.rows(mixed).predictions())
    assert one["examination"]["interventions"]["rows"]
    _assert_close(one, other)


def _assert_close(one, other, path=""):
    """Every number of the report, but for the ends of intervals: the same draws fall on other requests and items."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for name in one.keys() - {"low", "high"}:
            _assert_close(one[name], other[name], f"{path}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), path
        for index, pair in enumerate(zip(one, other, strict=True)):
            _assert_close(*pair, f"{path}[{index}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-6), path
    else:
        assert one == other, path

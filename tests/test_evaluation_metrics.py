"""The report against metrics of rows picked one by one: intervals, slices, and sets on which little is defined."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from mmoe_ranker import metrics
from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.evaluation_metrics import _parts, _units, evaluate, paired_differences
from mmoe_ranker.evaluation_rows import EvaluationRows
from mmoe_ranker.evaluation_text import format_report
from mmoe_ranker.predictions import Predictions
from tests.configs import small_config

OBJECTIVES = ("click", "watch_time", "like", "dismiss")


def _config(**evaluation: Any) -> Config:
    return parse_config(small_config() | {"evaluation": {"bootstrap": {"replicates": 0}} | evaluation})


def _predictions(requests: int = 40, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    count = requests * 5
    click = (rng.random(count) < 0.4).astype(float)
    labels = {"click": click, "watch_time": np.where(click == 1, rng.random(count) * 60, np.nan)}
    labels |= {"like": (rng.random(count) < 0.2).astype(float), "dismiss": (rng.random(count) < 0.3).astype(float)}
    labels["like"][rng.random(count) < 0.3] = np.nan
    predictions = {name: np.round(rng.random(count) * 0.9 + 0.05, 2) for name in OBJECTIVES}  # ties
    predictions["watch_time"] *= 60
    users = rng.choice([b"u1", b"u2", b"u3", b"u4", b"u5", b""], requests)
    columns = {
        "request_id": np.repeat([f"r{index}".encode() for index in range(requests)], 5).astype(object),
        "item_id": np.array([f"v{index}".encode() for index in range(count)]),
        "position": np.tile(np.arange(1, 6), requests),
        "device": np.repeat(rng.choice([b"phone", b"tv", b""], requests), 5).astype(object),
        "user_id": np.repeat(users, 5).astype(object),
        "duration": np.where(rng.random(count) < 0.1, np.nan, rng.exponential(100, count)),
        "watch_history": rng.integers(0, 4, count),
    }
    return Predictions(predictions, labels, columns)


def _rows(data: Predictions, rows: np.ndarray, request_ids: np.ndarray | None = None) -> Predictions:
    columns = {name: column[rows] for name, column in data.columns.items()}
    if request_ids is not None:
        columns["request_id"] = request_ids
    return Predictions(
        {name: values[rows] for name, values in data.predictions.items()},
        {name: values[rows] for name, values in data.labels.items()},
        columns,
    )


def _at(report: Any, path: tuple[str, ...]) -> float:
    for name in path:
        report = report[name]
    report = report["value"] if isinstance(report, dict) else report
    return math.nan if report is None else report


@pytest.mark.parametrize("by", ["request_id", "user_id"])
def test_each_statistic_of_a_draw_is_the_report_on_the_rows_that_it_took(by: str) -> None:
    config = _config(group_by=["user_id"], bootstrap={"replicates": 1, "by": by})
    data = _predictions()
    rows = EvaluationRows(data, config)
    units = _units(data, rows, config, [])
    assert units is not None
    request_of_row = np.repeat(np.arange(40), 5)
    # A user is a unit; a request whose user is not known is one by itself.
    keys = [u if by == "user_id" and u else r for u, r in zip(data.columns["user_id"], request_of_row, strict=True)]
    assert units.number == len(set(keys))
    counts = np.random.default_rng(1).poisson(1.0, (3, units.number)).astype(np.uint8)
    found: dict[tuple[str, ...], np.ndarray] = {}
    for _, statistics in _parts(data, rows, config, units, [], paired=True):
        for statistic in statistics.collected:
            found |= statistic(counts)
    for draw, drawn in enumerate(counts):
        times = drawn[units.codes]
        taken = np.repeat(np.arange(200), times)
        copies = np.concatenate([np.arange(count) for count in times])
        ids = np.array([f"{request_of_row[row]} {copy}".encode() for row, copy in zip(taken, copies, strict=True)])
        report = evaluate(_rows(data, taken, ids), _config(group_by=["user_id"]))
        for path, values in found.items():
            missing = path[0] == "slices" and path[2] not in report["slices"][path[1]]
            expected = math.nan if missing else _at(report, path)
            np.testing.assert_allclose(values[draw], expected, atol=1e-12, err_msg=f"{path}")
    for name in ("log_loss", "normalized_entropy", "calibration", "auc", "pr_auc", "mrr", "recall@10", "ndcg@10"):
        assert ("objectives", "click", name) in found
    assert ("objectives", "click", "group_auc", "user_id") in found
    assert ("objectives", "like", "auc_within", "position") in found
    assert ("combined_score", "ndcg@10", "watch_time") in found
    assert ("slices", "device", "tv", "dismiss", "auc") in found
    assert ("slices", "position", "3", "watch_time", "mae") in found


def test_intervals_stand_where_the_metrics_do(config: Config) -> None:
    config = _config(group_by=["user_id"], bootstrap={"replicates": 60, "level": 0.9})
    data = _predictions(100)
    report = evaluate(data, config)
    assert report["bootstrap"] == {"replicates": 60, "by": "request_id", "level": 0.9, "units": 100}
    for name, interval in report["intervals"]["objectives"]["click"].items():
        if name not in ("group_auc", "auc_within"):
            low, high = interval
            assert low <= _at(report, ("objectives", "click", name)) <= high
    low, high = report["intervals"]["objectives"]["click"]["group_auc"]["user_id"]
    assert low < report["objectives"]["click"]["group_auc"]["user_id"]["value"] < high
    low, high = report["intervals"]["combined_score"]["mrr"]["click"]
    assert low < report["combined_score"]["mrr"]["click"]["value"] < high
    assert "xauc" not in report["intervals"]["objectives"]["watch_time"]
    # A redraw adds its noise to that of the rows: no percentile of the draws is near the error of a calibrated model.
    assert report["objectives"]["click"]["calibration_error"] > 0
    assert "calibration_error" not in report["intervals"]["objectives"]["click"]
    assert json.loads(json.dumps(report)) == report
    text = format_report(report)
    assert "[low, high]: 90 % of 60 draws of 100 values of request_id" in text
    low, high = report["intervals"]["objectives"]["click"]["group_auc"]["request_id"]
    counted = report["objectives"]["click"]["group_auc"]["request_id"]["groups_counted"]
    assert 0 < counted < 100
    assert f" [{low:.4f}, {high:.4f}], {counted} groups" in text
    assert evaluate(data, config) == report
    plain = evaluate(data, _config(group_by=["user_id"]))
    assert plain == {name: value for name, value in report.items() if name not in ("intervals", "bootstrap")}


def test_metrics_are_those_of_scikit_learn_and_of_the_rows() -> None:
    data = _predictions()
    report = evaluate(data, _config())
    click, predicted = data.labels["click"], data.predictions["click"]
    found = report["objectives"]["click"]
    assert found["pr_auc"] == pytest.approx(sklearn_metrics.average_precision_score(click, predicted))
    rate = click.mean()
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    assert found["normalized_entropy"] == pytest.approx(sklearn_metrics.log_loss(click, predicted) / entropy)
    assert found["calibration_error"] == pytest.approx(metrics.expected_calibration_error(click, predicted))
    curve = report["reliability"]["click"]
    assert sum(curve["weights"]) == 200
    error = np.abs(np.subtract(curve["predicted"], curve["observed"]))
    assert np.average(error, weights=curve["weights"]) == pytest.approx(found["calibration_error"])
    requests = np.repeat(np.arange(40), 5)
    assert found["recall@10"]["value"] == 1.0
    assert found["mrr"]["value"] == pytest.approx(metrics.mrr(click, predicted, requests).value)
    p = data.predictions
    score = p["click"] * (p["watch_time"] + 1) ** 0.5 * (p["like"] + 0.05) ** 0.3 * (1 - p["dismiss"]) ** 2
    for name in OBJECTIVES:
        mrr = report["combined_score"]["mrr"][name]
        expected = metrics.mrr(data.labels[name], score, requests)
        assert mrr["value"] == pytest.approx(expected.value)
        assert (mrr["groups_counted"], mrr["groups_total"]) == (expected.groups_counted, expected.groups_total)


def test_agreement_is_the_rank_correlation_of_the_rows_that_both_have() -> None:
    data = _predictions()
    report = evaluate(data, _config())["agreement"]
    for part, columns in (("predictions", data.predictions), ("labels", data.labels)):
        for one in OBJECTIVES:
            for other in OBJECTIVES:
                both = ~np.isnan(columns[one]) & ~np.isnan(columns[other])
                first, second = columns[one][both], columns[other][both]
                if one == other:
                    assert report[part][one][other] == 1.0
                elif len(set(first)) < 2 or len(set(second)) < 2:
                    assert report[part][one][other] is None  # watch time is there where click is 1
                else:
                    assert report[part][one][other] == pytest.approx(stats.spearmanr(first, second).statistic)


def test_numbers_are_sliced_by_buckets_of_equal_counts_and_sequences_by_length() -> None:
    data = _predictions()
    report = evaluate(data, _config(slices=["duration", "watch_history"]))["slices"]
    assert list(report) == ["position", "device", "duration", "watch_history"]
    assert list(report["watch_history"]) == ["0", "1", "2", "3"]
    lengths = data.columns["watch_history"]
    for value in range(4):
        rows = lengths == value
        found = report["watch_history"][str(value)]["click"]
        assert found["impressions"] == rows.sum()
        assert found["auc"] == pytest.approx(
            sklearn_metrics.roc_auc_score(data.labels["click"][rows], data.predictions["click"][rows])
        )
    durations = data.columns["duration"]
    values = list(report["duration"].values())
    assert len(values) == 11
    assert list(report["duration"])[-1] == "(missing)"
    assert values[-1]["click"]["impressions"] == np.isnan(durations).sum()
    sizes = [value["click"]["impressions"] for value in values[:-1]]
    assert max(sizes) - min(sizes) <= 1
    low, high = (float(bound) for bound in list(report["duration"])[3].split(" to "))
    rows = (durations >= low * (1 - 1e-5)) & (durations <= high * (1 + 1e-5))
    assert values[3]["click"]["mean_label"] == pytest.approx(data.labels["click"][rows].mean())
    assert values[3]["like"]["labelled"] == (~np.isnan(data.labels["like"][rows])).sum()


def test_the_largest_values_of_a_slice_are_reported_and_the_rest_together() -> None:
    data = _predictions(100)
    sizes = [4] * 50 + [1] * 300
    ids = np.repeat([f"v{index:03d}".encode() for index in range(350)], sizes).astype(object)
    data.columns["video_id"] = np.random.default_rng(2).permutation(ids)[:500]
    report = evaluate(data, _config(slices=["video_id"]))
    values = report["slices"]["video_id"]
    assert list(values)[-1] == "(other)"
    assert len(values) == 51
    counts = {value: (data.columns["video_id"] == value).sum() for value in set(data.columns["video_id"])}
    kept = {name: found["click"]["impressions"] for name, found in values.items()}
    other = kept.pop("(other)")
    assert all(counts[name.encode()] == size for name, size in kept.items())
    assert sum(kept.values()) + other == 500
    assert min(kept.values()) >= max(size for name, size in counts.items() if name.decode() not in kept)
    rest = np.array([value.decode() not in kept for value in data.columns["video_id"]])
    auc = sklearn_metrics.roc_auc_score(data.labels["click"][rest], data.predictions["click"][rest])
    assert values["(other)"]["click"]["auc"] == pytest.approx(auc)
    assert f"`video_id` has {len(counts)} values; the 50 largest are reported" in " ".join(report["notes"])


def test_position_and_device_are_always_sliced() -> None:
    document = small_config()
    document["model"]["bias"] = {"kind": "none"}
    assert list(evaluate(_predictions(), parse_config(document | {"evaluation": {}}))["slices"]) == [
        "position",
        "device",
    ]


BROKEN = {
    "no impression": lambda data: _rows(data, np.arange(0)),
    "one impression": lambda data: _rows(data, np.arange(1)),
    "one request": lambda data: _rows(data, np.arange(5)),
    "one class": lambda data: dataclasses.replace(
        data, labels=data.labels | {"click": np.zeros(200), "like": np.ones(200)}
    ),
    "no label": lambda data: dataclasses.replace(data, labels={name: np.full(200, np.nan) for name in OBJECTIVES}),
    "no prediction": lambda data: dataclasses.replace(
        data, predictions=data.predictions | {"click": np.full(200, np.nan)}
    ),
}
SAID = {
    "no impression": "There is no impression to evaluate.",
    "one impression": "labels alone; AUC and normalised entropy need both classes.",
    "one request": "No metric has an interval: all impressions are of one value of `request_id`.",
    "one class": "`click` has negative labels alone; AUC and normalised entropy need both classes.",
    "no label": "`watch_time` has no labelled impression, and so no metrics.",
    "no prediction": "`click` has no metrics: `predictions` must hold probabilities from 0 to 1. Received: nan",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_the_rows_do_not_define_is_null_with_a_note(name: str) -> None:
    config = _config(group_by=["user_id"], slices=["duration"], bootstrap={"replicates": 20})
    data = BROKEN[name](_predictions())
    report = evaluate(data, config)
    assert SAID[name] in " ".join(report["notes"])
    json.dumps(report, allow_nan=False)
    assert SAID[name] in format_report(json.loads(json.dumps(report)))
    whole = name in ("one class", "no prediction")
    assert (report["objectives"]["dismiss"].get("auc") is not None) == (whole or name == "one request")
    if name == "one class":
        assert report["objectives"]["like"]["auc"] is None
        assert report["objectives"]["like"]["pr_auc"] == 1.0
        assert report["objectives"]["click"]["pr_auc"] is None
        assert report["objectives"]["click"]["ndcg@10"] == {"value": None, "groups_counted": 0, "groups_total": 40}
    if name == "no prediction":
        assert "The combined score has no metrics: " in " ".join(report["notes"])
        assert report["combined_score"]["ndcg@10"]["dismiss"]["value"] is None
        assert report["objectives"]["click"] == {"impressions": 200}
    differences, notes = paired_differences(data, data, config)
    assert SAID[name] in " ".join(notes)
    assert all(math.isnan(found.difference) or found.difference == 0 for found in differences.values())
    if whole:
        assert differences["objectives", "dismiss", "auc"].low == 0.0


def test_paired_differences_are_those_of_two_reports() -> None:
    config = _config(bootstrap={"replicates": 100})
    first = _predictions(200)
    second = dataclasses.replace(first, predictions=first.predictions | {"click": 0.2 + 0.5 * first.labels["click"]})
    found, _ = paired_differences(first, second, config)
    reports = [evaluate(one, config) for one in (first, second)]
    for path, pair in found.items():
        np.testing.assert_allclose(pair[:2], [_at(report, path) for report in reports], err_msg=str(path))
    error = found["objectives", "click", "calibration_error"]
    assert error.difference == pytest.approx(error.second - error.first)
    assert math.isnan(error.low)
    assert found["objectives", "click", "auc"].low > 0.3
    assert found["objectives", "dismiss", "auc"][2:] == (0.0, 0.0, 0.0)
    assert found["slices", "device", "tv", "click", "auc"].low > 0.2
    assert found["combined_score", "ndcg@10", "click"].low > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: _rows(data, np.arange(195)), r"request ids that differ, of 200 and 195 impressions\."),
        (
            lambda data: dataclasses.replace(data, labels=data.labels | {"like": np.zeros(200)}),
            r"labels of `like` that differ, of 200 and 200 impressions\.",
        ),
    ],
)
def test_two_models_are_compared_on_the_same_impressions(change: Any, message: str) -> None:
    data = _predictions()
    with pytest.raises(InputError, match=f"on the same impressions in the same order. Received: {message}$"):
        paired_differences(data, change(data), _config(bootstrap={"replicates": 5}))
    with pytest.raises(InputError, match=r"replicates` must be at least 1 to compare two models\. Received: 0\.$"):
        paired_differences(data, data, _config())


def test_units_have_one_value_a_request_and_columns_are_there() -> None:
    data = _predictions()
    data.columns["user_id"][0] = b"another"
    config = _config(bootstrap={"replicates": 5, "by": "user_id"})
    with pytest.raises(
        InputError, match=r"one value a request\. Received: 'user_id', which differs within .* on \d+ im"
    ):
        evaluate(data, config)
    del data.columns["duration"]
    with pytest.raises(InputError, match=r"evaluate again\. Received: columns request_id, .*, and no `duration`\.$"):
        evaluate(data, _config(slices=["duration"]))

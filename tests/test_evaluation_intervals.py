"""Bootstrap intervals against reports on the rows of each draw, and differences of two models."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.evaluation_metrics import _parts, _units, evaluate, paired_differences
from mmoe_ranker.evaluation_rows import EvaluationRows
from mmoe_ranker.evaluation_text import format_report
from tests.made_predictions import config_with, made_predictions, rows_of, value_at


@pytest.mark.parametrize("by", ["request_id", "user_id"])
def test_each_statistic_of_a_draw_is_the_report_on_the_rows_that_it_took(by: str) -> None:
    config = config_with(group_by=["user_id"], bootstrap={"replicates": 1, "by": by})
    data = made_predictions()
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
        report = evaluate(rows_of(data, taken, ids), config_with(group_by=["user_id"]))
        for path, values in found.items():
            missing = path[0] == "slices" and path[2] not in report["slices"][path[1]]
            expected = math.nan if missing else value_at(report, path)
            np.testing.assert_allclose(values[draw], expected, atol=1e-12, err_msg=f"{path}")
    for name in ("log_loss", "normalized_entropy", "calibration", "auc", "pr_auc", "mrr", "recall@10", "ndcg@10"):
        assert ("objectives", "click", name) in found
    assert ("objectives", "click", "group_auc", "user_id") in found
    assert ("objectives", "like", "auc_within", "position") in found
    assert ("combined_score", "ndcg@10", "watch_time") in found
    assert ("slices", "device", "tv", "dismiss", "auc") in found
    assert ("slices", "position", "3", "watch_time", "mae") in found


def test_intervals_stand_where_the_metrics_do(config: Config) -> None:
    config = config_with(group_by=["user_id"], bootstrap={"replicates": 60, "level": 0.9})
    data = made_predictions(100)
    report = evaluate(data, config)
    assert report["bootstrap"] == {"replicates": 60, "by": "request_id", "level": 0.9, "units": 100}
    for name, interval in report["intervals"]["objectives"]["click"].items():
        if name not in ("group_auc", "auc_within"):
            low, high = interval
            assert low <= value_at(report, ("objectives", "click", name)) <= high
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
    plain = evaluate(data, config_with(group_by=["user_id"]))
    assert plain == {name: value for name, value in report.items() if name not in ("intervals", "bootstrap")}


def test_paired_differences_are_those_of_two_reports() -> None:
    config = config_with(bootstrap={"replicates": 100})
    first = made_predictions(200)
    second = dataclasses.replace(first, predictions=first.predictions | {"click": 0.2 + 0.5 * first.labels["click"]})
    found, _ = paired_differences(first, second, config)
    reports = [evaluate(one, config) for one in (first, second)]
    for path, pair in found.items():
        np.testing.assert_allclose(pair[:2], [value_at(report, path) for report in reports], err_msg=str(path))
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
        (lambda data: rows_of(data, np.arange(195)), r"request ids that differ, of 200 and 195 impressions\."),
        (
            lambda data: dataclasses.replace(data, labels=data.labels | {"like": np.zeros(200)}),
            r"labels of `like` that differ, of 200 and 200 impressions\.",
        ),
    ],
)
def test_two_models_are_compared_on_the_same_impressions(change: Any, message: str) -> None:
    data = made_predictions()
    with pytest.raises(InputError, match=f"on the same impressions in the same order. Received: {message}$"):
        paired_differences(data, change(data), config_with(bootstrap={"replicates": 5}))
    with pytest.raises(InputError, match=r"replicates` must be at least 1 to compare two models\. Received: 0\.$"):
        paired_differences(data, data, config_with())


def test_units_have_one_value_a_request_and_columns_are_there() -> None:
    data = made_predictions()
    data.columns["user_id"][0] = b"another"
    config = config_with(bootstrap={"replicates": 5, "by": "user_id"})
    with pytest.raises(
        InputError, match=r"one value a request\. Received: 'user_id', which differs within .* on \d+ im"
    ):
        evaluate(data, config)
    del data.columns["duration"]
    with pytest.raises(InputError, match=r"evaluate again\. Received: columns request_id, .*, and no `duration`\.$"):
        evaluate(data, config_with(slices=["duration"]))

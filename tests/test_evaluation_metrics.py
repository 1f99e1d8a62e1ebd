"""The report against metrics of rows picked one by one: values, slices, and sets on which little is defined."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from mmoe_ranker import metrics
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.evaluation_metrics import evaluate, paired_differences
from mmoe_ranker.evaluation_text import format_report
from tests.configs import small_config
from tests.made_predictions import OBJECTIVES, config_with, made_predictions, rows_of


def test_metrics_are_those_of_scikit_learn_and_of_the_rows() -> None:
    data = made_predictions()
    report = evaluate(data, config_with())
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
    data = made_predictions()
    report = evaluate(data, config_with())["agreement"]
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
    data = made_predictions()
    report = evaluate(data, config_with(slices=["duration", "watch_history"]))["slices"]
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
    data = made_predictions(100)
    sizes = [4] * 50 + [1] * 300
    ids = np.repeat([f"v{index:03d}".encode() for index in range(350)], sizes).astype(object)
    data.columns["video_id"] = np.random.default_rng(2).permutation(ids)[:500]
    report = evaluate(data, config_with(slices=["video_id"]))
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
    assert list(evaluate(made_predictions(), parse_config(document | {"evaluation": {}}))["slices"]) == [
        "position",
        "device",
    ]


BROKEN = {
    "no impression": lambda data: rows_of(data, np.arange(0)),
    "one impression": lambda data: rows_of(data, np.arange(1)),
    "one request": lambda data: rows_of(data, np.arange(5)),
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
    config = config_with(group_by=["user_id"], slices=["duration"], bootstrap={"replicates": 20})
    data = BROKEN[name](made_predictions())
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

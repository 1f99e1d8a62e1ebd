"""More impressions than are kept: the sample is of whole units, and totals are of everything."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmoe_ranker import bounded_predictions, metrics
from mmoe_ranker.bounded_predictions import BoundedPredictions
from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.evaluation_metrics import evaluate
from mmoe_ranker.predictions import Predictions
from tests.configs import small_config

OBJECTIVES = ("click", "watch_time", "like", "dismiss")


def _config(**bootstrap: Any) -> Config:
    return parse_config(small_config() | {"evaluation": {"bootstrap": {"replicates": 0} | bootstrap}})


def _predictions(requests: int) -> Predictions:
    rng = np.random.default_rng(3)
    count = requests * 5
    labels = {name: (rng.random(count) < 0.3).astype(float) for name in OBJECTIVES}
    labels["like"][::7] = np.nan
    columns = {
        "request_id": np.repeat([b"r%d" % index for index in range(requests)], 5),
        "user_id": np.repeat([b"u%d" % index if index % 3 else b"" for index in rng.integers(0, 90, requests)], 5),
        "position": np.tile(np.arange(1, 6), requests),
        "device": np.repeat(rng.choice([b"phone", b"tv"], requests), 5),
    }
    predictions = {name: 0.2 * rng.random(count) + 0.5 * np.nan_to_num(labels[name]) for name in OBJECTIVES}
    return Predictions(predictions, labels, columns)


def _collected(data: Predictions, config: Config, max_rows: int, batch: int) -> Predictions:
    bounded = BoundedPredictions(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded_predictions, "MAX_ROWS", max_rows)
        for start in range(0, len(data), batch):
            bounded.add(data.select(np.arange(start, min(start + batch, len(data)))))
    return bounded.result()


def test_what_fits_is_kept_as_it_is() -> None:
    data = _predictions(100)
    found = _collected(data, _config(), 500, 64)
    assert found.everything is None
    for name in OBJECTIVES:
        np.testing.assert_array_equal(found.predictions[name], data.predictions[name])
    np.testing.assert_array_equal(found.columns["request_id"], data.columns["request_id"])
    assert evaluate(found, _config()) == evaluate(data, _config())


@pytest.mark.parametrize("by", ["request_id", "user_id"])
def test_beyond_it_whole_units_are_kept_whatever_the_batches(by: str) -> None:
    data = _predictions(600)
    found = _collected(data, _config(by=by), 1000, 77)  # a request may be cut by the end of a batch
    assert found.everything is not None
    assert found.everything.impressions == 3000
    assert len(found) <= 1000
    units = [one or other for one, other in zip(data.columns[by], data.columns["request_id"], strict=True)]
    kept_units = {one or other for one, other in zip(found.columns[by], found.columns["request_id"], strict=True)}
    rows = np.flatnonzero([unit in kept_units for unit in units])
    for part in ("predictions", "labels", "columns"):
        for name, values in getattr(found, part).items():
            np.testing.assert_array_equal(values, getattr(data, part)[name][rows])
    assert len(kept_units) / len(set(units)) == pytest.approx(found.everything.share, rel=0.4)
    again = _collected(data, _config(by=by), 1000, 500)
    np.testing.assert_array_equal(again.columns["request_id"], found.columns["request_id"])


def test_a_request_whose_number_is_not_known_is_a_unit_by_itself() -> None:
    data = _predictions(600)
    numbers = np.repeat(np.where(np.arange(600) % 2, -1, np.arange(600) % 40), 5)
    data = dataclasses.replace(data, columns=data.columns | {"user_id": numbers})
    found = _collected(data, _config(by="user_id"), 1500, 77)
    assert found.everything is not None
    kept = set(found.columns["request_id"][found.columns["user_id"] == -1])
    # Of 300 requests each by itself about that share stays; as one unit, all or none would.
    assert len(kept) / 300 == pytest.approx(found.everything.share, rel=0.3)
    known = set(found.columns["user_id"][found.columns["user_id"] != -1].tolist())
    expected = np.isin(numbers, list(known)) | np.isin(data.columns["request_id"], list(kept))
    np.testing.assert_array_equal(found.columns["request_id"], data.columns["request_id"][expected])


def test_ids_of_all_batches_share_their_objects() -> None:
    data = _predictions(40)
    for name in ("request_id", "user_id", "device"):
        data.columns[name] = np.array([bytes(bytearray(value)) for value in data.columns[name]], object)
    assert len(set(map(id, data.columns["device"]))) == 200
    found = _collected(data, _config(), 200, 30)
    for name in ("request_id", "user_id", "device"):
        assert found.columns[name].tolist() == data.columns[name].tolist()
        assert len(set(map(id, found.columns[name]))) == len(set(data.columns[name]))


def test_the_report_says_so_and_has_metrics_of_everything_within_their_bounds(tmp_path: Path) -> None:
    data, config = _predictions(600), _config()
    sample = _collected(data, config, 1000, 250)
    report = evaluate(sample, config)
    assert report["sampled"] == {"impressions": 3000, "share": sample.everything.share, "by": "request_id"}
    assert report["impressions"] == len(sample)
    assert "of 3,000 impressions, a sample of whole units of request_id" in report["notes"][-1]
    bounds = report["errors"]["like"]
    assert f"like {bounds['auc']:.1e} and {bounds['pr_auc']:.1e}" in report["notes"][-1]
    for name in ("click", "like"):
        labels, predicted = data.labels[name], data.predictions[name]
        found, errors = report["objectives"][name], report["errors"][name]
        assert abs(found["auc"] - metrics.auc(labels, predicted)) <= errors["auc"]
        assert abs(found["pr_auc"] - metrics.pr_auc(labels, predicted)) <= errors["pr_auc"]
        assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, predicted))
        assert found["normalized_entropy"] == pytest.approx(metrics.normalized_entropy(labels, predicted))
        assert found["calibration"] == pytest.approx(metrics.calibration_ratio(labels, predicted))
        ndcg = metrics.ndcg(sample.labels[name], sample.predictions[name], sample.columns["request_id"], 10)
        assert found["ndcg@10"]["value"] == pytest.approx(ndcg.value)
    json.dumps(report, allow_nan=False)
    sample.save(tmp_path / "predictions.parquet")
    read = Predictions.load(tmp_path / "predictions.parquet")
    assert read.everything is not None
    assert (read.everything.impressions, read.everything.share) == (3000, sample.everything.share)
    assert evaluate(read, config)["sampled"] == report["sampled"]

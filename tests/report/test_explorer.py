"""What the weight explorer embeds: a fair sample, exactly as it was, with the numbers of the package."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mmoe_ranker.config import Config
from mmoe_ranker.report.explorer import Explorer
from tests.report.conftest import Written
from tests.report.decoding import Embedded
from tests.report.worlds import LENGTH, report_config, report_predictions, with_labels


@pytest.fixture(scope="module")
def embedded(written: Written) -> Embedded:
    return Embedded.of(written.html)


def test_everything_that_fits_is_there_exactly(written: Written, embedded: Embedded) -> None:
    assert written.validation is not None
    predictions = written.validation.predictions
    positive = np.any([labels > 0 for labels in predictions.labels.values()], axis=0)
    kept = np.repeat(positive.reshape(-1, LENGTH).any(axis=1), LENGTH)
    for name in predictions.labels:
        np.testing.assert_array_equal(embedded.predictions[name], predictions.predictions[name][kept])
        np.testing.assert_array_equal(embedded.labels[name], predictions.labels[name][kept])


def test_the_sweep_is_ndcg_of_the_combined_score(embedded: Embedded) -> None:
    sweep = embedded.document["sweep"]
    assert len(sweep) > 250
    assert sweep[0]["weights"] == [1.0, 0.5, 0.3, 2.0]
    for point in sweep[::23]:
        expected = embedded.ndcg(point["weights"])
        np.testing.assert_allclose(point["ndcg"], [expected[name] for name in embedded.score.objectives], atol=1e-9)


def test_the_sample_fits_and_is_of_whole_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, config = report_predictions(), report_config()
    monkeypatch.setattr("mmoe_ranker.report.explorer.MAX_BYTES", 12_000)
    small = Explorer.of(predictions, config)
    assert small is not None
    assert small.search.requests < small.available
    assert len(small.sample) == small.search.requests * LENGTH
    assert sum(len(one[key]) for one in _objectives(small) for key in ("predictions", "labels")) <= 12_000
    again = Explorer.of(predictions, config)
    assert again is not None
    assert again.document(config) == small.document(config)


def test_an_objective_of_negative_labels_has_no_ndcg() -> None:
    predictions = report_predictions()
    labels = np.where(predictions.labels["watch_time"] > 0, -1.0, np.nan)
    explorer = Explorer.of(with_labels(predictions, watch_time=labels), report_config())
    assert explorer is not None
    assert [one["name"] for one in _objectives(explorer) if one["ranked"]] == ["click", "like", "dismiss"]
    assert any("negative labels" in note for note in explorer.search.notes)


def test_names_that_yaml_reads_as_something_else_are_quoted() -> None:
    raw = report_config().model_dump(mode="json")
    raw["objectives"] = [
        *raw["objectives"][:3],
        {"name": "no", "family": "satisfaction", "kind": "binary", "event": "no"},
    ]
    terms = {"click": {"weight": 1.0}, "no": {"weight": 1.0, "complement": True}}
    config = report_config(objectives=raw["objectives"], combined_score={"form": "weighted_sum", "terms": terms})
    whole = report_predictions()
    parts = (
        {"no" if name == "dismiss" else name: part[name] for name in part} for part in (whole.predictions, whole.labels)
    )
    explorer = Explorer.of(type(whole)(*parts, whole.columns), config)
    assert explorer is not None
    assert [one["key"] for one in _objectives(explorer, config)] == ["click", "watch_time", "like", "'no'"]


def _objectives(explorer: Explorer, config: Config | None = None) -> list[dict[str, Any]]:
    return json.loads(explorer.document(config or report_config()))["objectives"]

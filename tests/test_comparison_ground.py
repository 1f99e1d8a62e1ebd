"""What two runs are compared on: the same impressions, what both have, and what is said where that is little."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from mmoe_ranker import metrics, pairing
from mmoe_ranker.comparison import compare
from mmoe_ranker.comparison_text import comparison_document, format_comparison
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.pairing import common_ground
from mmoe_ranker.predictions import Everything
from mmoe_ranker.saved_evaluation import SavedEvaluation
from tests.configs import small_config
from tests.noisy_runs import LENGTH, REQUESTS, evaluation_of, noisy_and_clear


@pytest.fixture(scope="module")
def runs() -> tuple[SavedEvaluation, SavedEvaluation]:
    return noisy_and_clear()


def test_impressions_are_paired_whatever_their_order(runs) -> None:
    noisy, clear = runs
    shuffled = np.random.default_rng(4).permutation(REQUESTS * LENGTH)
    other = dataclasses.replace(clear, predictions=clear.predictions.select(shuffled))
    assert comparison_document(compare(noisy, other)) == comparison_document(compare(noisy, clear))


def test_other_impressions_are_refused_or_cut(runs) -> None:
    noisy, clear = runs
    fewer = dataclasses.replace(clear, predictions=clear.predictions.select(np.arange(0, 80 * LENGTH)))
    message = (
        r"^Two runs must be evaluated on the same impressions, told apart by request_id, item_id, position "
        r"\(--common compares those in both\)\. Received: 1,200 and 640 impressions, 640 of them in both\.$"
    )
    with pytest.raises(InputError, match=message):
        compare(noisy, fewer)
    comparison = compare(noisy, fewer, common=True)
    assert comparison.requests == 80
    assert comparison.notes[0] == "Of 1,200 and 640 impressions, 640 of them in both: only these are compared."
    same = dataclasses.replace(noisy, predictions=noisy.predictions.select(np.arange(0, 80 * LENGTH)))
    assert comparison.verdicts == compare(same, fewer).verdicts
    columns = dict(fewer.predictions.columns)
    columns["item_id"] = np.array([b"w" + item for item in columns["item_id"]], dtype=object)
    apart = dataclasses.replace(fewer, predictions=dataclasses.replace(fewer.predictions, columns=columns))
    with pytest.raises(InputError, match=r"position\. Received: 1,200 and 640 impressions, 0 of them in both\.$"):
        compare(noisy, apart, common=True)


def test_what_is_not_of_both_runs_is_said(runs) -> None:
    noisy, _ = runs
    raw = small_config()
    # The second run has no likes, reads watching as whether, and weighs what is left otherwise.
    raw["objectives"] = [raw["objectives"][0], raw["objectives"][3], {**raw["objectives"][2], "name": "watch_time"}]
    raw["combined_score"]["terms"] = {"click": {"weight": 1.0}, "dismiss": {"weight": 9.0, "complement": True}}
    clear = evaluation_of(0.2, seed=2)
    part = {
        side: {name: getattr(clear.predictions, side)[name] for name in ("click", "dismiss", "watch_time")}
        for side in ("predictions", "labels")
    }
    part["labels"]["dismiss"] = part["labels"]["dismiss"].copy()
    part["labels"]["dismiss"][:7] = np.nan
    other = dataclasses.replace(
        clear, config=parse_config(raw), predictions=dataclasses.replace(clear.predictions, **part)
    )
    comparison = compare(noisy, other)
    assert list(comparison.verdicts) == ["click", "dismiss"]
    assert comparison.notes == (
        "`watch_time` is regression in the first run and binary in the second: not compared.",
        "`like` is an objective of the first run alone.",
        "`dismiss` has other labels in the two runs on 7 impressions: both are held against those of the first run.",
        "The combined scores of the runs differ in terms or weights: each run is ranked by its own.",
    )
    p = other.predictions.predictions
    score = p["click"] * (1 - p["dismiss"]) ** 9
    requests = noisy.predictions.columns["request_id"]
    expected = metrics.ndcg(noisy.predictions.labels["dismiss"], score, requests, 10).value
    assert comparison.differences["combined_score", "ndcg@10", "dismiss"].second == pytest.approx(expected)
    raw["objectives"] = [{**raw["objectives"][0], "name": "other"}]
    raw["combined_score"] = {"terms": {"other": {"weight": 1.0}}}
    raw["model"]["bias"] = {"kind": "none"}
    apart = dataclasses.replace(clear, config=parse_config(raw))
    with pytest.raises(
        InputError, match=r"objective of one name and kind in common\. Received: click, .* and other\.$"
    ):
        compare(noisy, apart)


def _without_labels(run: SavedEvaluation, **labels: float) -> SavedEvaluation:
    changed = run.predictions.labels | {name: np.full(REQUESTS * LENGTH, value) for name, value in labels.items()}
    return dataclasses.replace(run, predictions=dataclasses.replace(run.predictions, labels=changed))


def test_a_broken_evaluation_is_said_and_the_rest_is_compared(runs) -> None:
    noisy, clear = (_without_labels(run, like=0.0, dismiss=math.nan) for run in runs)
    predicted = clear.predictions.predictions | {"watch_time": np.full(REQUESTS * LENGTH, math.nan)}
    clear = dataclasses.replace(clear, predictions=dataclasses.replace(clear.predictions, predictions=predicted))
    comparison = compare(noisy, clear)
    verdicts = {name: (one.verdict, one.reason) for name, one in comparison.verdicts.items()}
    assert verdicts["click"] == ("better", "")
    assert verdicts["like"][0] == verdicts["dismiss"][0] == verdicts["watch_time"][0] == "not judged"
    assert "negative labels alone" in verdicts["like"][1]
    assert "no labelled impression" in verdicts["dismiss"][1]
    assert "no metrics" in verdicts["watch_time"][1]
    text = format_comparison(comparison)
    assert all(note in text for note in comparison.notes)
    json.dumps(comparison_document(comparison), allow_nan=False)


def test_a_sample_is_said(runs) -> None:
    everything = Everything(987_654, 0.5, "request_id", {})
    sampled = [
        dataclasses.replace(run, predictions=dataclasses.replace(run.predictions, everything=everything))
        for run in runs
    ]
    (note,) = common_ground(*sampled).notes
    assert note.endswith("drawn from 1,200 of 987,654 impressions, of whole units of request_id.")


def test_many_impressions_are_compared_on_requests_drawn(runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "MAX_IMPRESSIONS", 85)
    ground = common_ground(*runs)
    assert ground.notes == ["10 of 150 requests are drawn, so as to have 85 impressions at most."]
    assert len(ground.first) == len(ground.second) == 80
    np.testing.assert_array_equal(ground.first.columns["item_id"], ground.second.columns["item_id"])
    _, sizes = np.unique(ground.first.columns["request_id"].astype(str), return_counts=True)
    assert sizes.tolist() == [LENGTH] * 10


def test_nothing_to_compare_is_said(runs) -> None:
    nothing = [dataclasses.replace(run, predictions=run.predictions.select(np.arange(0))) for run in runs]
    comparison = compare(*nothing)
    assert {verdict.verdict for verdict in comparison.verdicts.values()} == {"not judged"}
    assert "There is no impression to evaluate." in comparison.notes
    assert "There is no impression to evaluate." in format_comparison(comparison)
    json.dumps(comparison_document(comparison), allow_nan=False)


def test_one_request_is_too_few_for_a_verdict(runs) -> None:
    one = [dataclasses.replace(run, predictions=run.predictions.select(np.arange(LENGTH))) for run in runs]
    verdict = compare(*one).verdicts["click"]
    assert (verdict.verdict, verdict.reason) == ("not judged", "There are too few impressions for an interval.")
    assert not math.isnan(verdict.difference.difference)

"""Two runs held against each other: numbers against scikit-learn's and loops, verdicts where the truth is known."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, roc_auc_score

from mmoe_ranker.comparison import Comparison, compare
from mmoe_ranker.comparison_text import comparison_document, format_comparison
from mmoe_ranker.errors import InputError
from mmoe_ranker.saved_evaluation import SavedEvaluation
from tests.noisy_runs import LENGTH, REQUESTS, evaluation_of, noisy_and_clear


@pytest.fixture(scope="module")
def runs() -> tuple[SavedEvaluation, SavedEvaluation]:
    return noisy_and_clear()


@pytest.fixture(scope="module")
def comparison(runs) -> Comparison:
    return compare(*runs)


def _auc_within_requests(evaluation: SavedEvaluation, name: str) -> float:
    labels, predicted = evaluation.predictions.labels[name], evaluation.predictions.predictions[name]
    lists = [slice(start, start + LENGTH) for start in range(0, REQUESTS * LENGTH, LENGTH)]
    counted = [rows for rows in lists if len(set(labels[rows])) == 2]
    return float(np.mean([roc_auc_score(labels[rows], predicted[rows]) for rows in counted]))


def test_less_noise_is_better_and_more_is_worse(runs, comparison: Comparison) -> None:
    noisy, clear = runs
    forward, backward = comparison, compare(clear, noisy)
    for name, verdict in forward.verdicts.items():
        assert verdict.verdict == "better"
        assert backward.verdicts[name].verdict == "worse"
        expected = verdict.difference
        assert backward.verdicts[name].difference == pytest.approx(
            (expected.second, expected.first, -expected.difference, -expected.high, -expected.low)
        )
    assert {name: one.metric for name, one in forward.verdicts.items()} == {
        "click": "group_auc.request_id",
        "watch_time": "mae",
        "like": "group_auc.request_id",
        "dismiss": "group_auc.request_id",
    }


def test_numbers_are_those_of_scikit_learn(runs, comparison: Comparison) -> None:
    noisy, _ = runs
    found = comparison.verdicts["like"].difference
    expected = [_auc_within_requests(run, "like") for run in runs]
    assert found[:3] == pytest.approx([*expected, expected[1] - expected[0]])
    watched = ~np.isnan(noisy.predictions.labels["watch_time"])
    errors = [
        mean_absolute_error(
            run.predictions.labels["watch_time"][watched], run.predictions.predictions["watch_time"][watched]
        )
        for run in runs
    ]
    assert comparison.verdicts["watch_time"].difference[:2] == pytest.approx(errors)
    on_phone = noisy.predictions.columns["device"] == b"phone"
    (move,) = (
        move for move in comparison.slices if (move.feature, move.value, move.objective) == ("device", "phone", "click")
    )
    aucs = [
        roc_auc_score(run.predictions.labels["click"][on_phone], run.predictions.predictions["click"][on_phone])
        for run in runs
    ]
    assert (move.metric, *move.difference[:2]) == ("auc", *map(pytest.approx, aucs))


def test_intervals_are_those_of_a_bootstrap_by_loops(runs) -> None:
    found = compare(*runs, level=0.9).differences["combined_score", "ndcg@10", "click"]
    per_request = []
    for run in runs:
        p = run.predictions.predictions
        score = p["click"] * (p["watch_time"] + 1) ** 0.5 * (p["like"] + 0.05) ** 0.3 * (1 - p["dismiss"]) ** 2
        values = []
        for start in range(0, REQUESTS * LENGTH, LENGTH):
            labels = run.predictions.labels["click"][start : start + LENGTH]
            order = np.argsort(-score[start : start + LENGTH])
            gains = [
                sum(gain / math.log2(rank + 2) for rank, gain in enumerate(row))
                for row in (labels[order], np.sort(labels)[::-1])
            ]
            values.append(gains[0] / gains[1] if gains[1] else math.nan)
        per_request.append(values)
    assert found.first == pytest.approx(np.nanmean(per_request[0]))
    assert found.second == pytest.approx(np.nanmean(per_request[1]))
    differences = np.subtract(per_request[1], per_request[0])
    rng = np.random.default_rng(5)
    draws = [np.nanmean([differences[index] for index in rng.integers(REQUESTS, size=REQUESTS)]) for _ in range(1500)]
    low, high = np.quantile(draws, [0.05, 0.95])
    width = high - low
    assert found.low == pytest.approx(low, abs=0.2 * width)
    assert found.high == pytest.approx(high, abs=0.2 * width)


def test_runs_of_equal_worth_differ_no_more_often_than_stated() -> None:
    # Two seeds of the same noise: all four verdicts are right with a chance of 81 %, and the seeds are fixed.
    comparison = compare(evaluation_of(0.5, seed=3), evaluation_of(0.5, seed=4))
    assert {verdict.verdict for verdict in comparison.verdicts.values()} == {"no difference seen"}
    assert {move.verdict for move in comparison.slices} == {"no difference seen"}


def test_a_run_and_itself() -> None:
    run = evaluation_of(0.5)
    comparison = compare(run, run)
    assert {verdict.verdict for verdict in comparison.verdicts.values()} == {"no difference seen"}
    assert all(verdict.difference[2:] == (0.0, 0.0, 0.0) for verdict in comparison.verdicts.values())
    assert all(move.p_value == 1.0 for move in comparison.slices)
    assert comparison.notes == ()


def test_slices_move_by_holms_method(runs) -> None:
    noisy, clear = runs
    # The second run is clear on phones alone.
    on_phone = noisy.predictions.columns["device"] == b"phone"
    mixed = {
        name: np.where(on_phone, clear.predictions.predictions[name], values)
        for name, values in noisy.predictions.predictions.items()
    }
    other = dataclasses.replace(noisy, predictions=dataclasses.replace(noisy.predictions, predictions=mixed))
    moves = compare(noisy, other).slices
    assert {move.value for move in moves if move.verdict != "no difference seen" and move.feature == "device"} == {
        "phone"
    }
    assert moves[0].value == "phone"
    # 8 positions and 3 devices, 4 objectives.
    assert len(moves) == 44
    p_values = [move.p_value for move in moves]
    assert p_values == sorted(p_values)
    for rank, move in enumerate(moves):
        assert move.adjusted == min(1.0, max(p * (44 - at) for at, p in enumerate(p_values[: rank + 1])))
        spread = (move.difference.high - move.difference.low) / (2 * 1.959964)
        if spread:
            z = abs(move.difference.difference) / spread
            assert move.p_value == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-4)


def test_a_slice_of_few_labels_is_not_tried(runs) -> None:
    on_phone = np.flatnonzero(runs[0].predictions.columns["device"] == b"phone")
    on_tv = np.flatnonzero(runs[0].predictions.columns["device"] == b"tv")
    rare = np.zeros(REQUESTS * LENGTH)
    rare[on_phone[:19]] = rare[on_tv[:20]] = 1.0
    few = [
        dataclasses.replace(
            run, predictions=dataclasses.replace(run.predictions, labels=run.predictions.labels | {"like": rare})
        )
        for run in runs
    ]
    moves = compare(*few).slices
    assert {move.value for move in moves if (move.feature, move.objective) == ("device", "like")} == {"tv"}


def test_other_metrics_may_judge(runs) -> None:
    comparison = compare(*runs, judge_by={"click": "log_loss", "watch_time": "rmse"})
    assert comparison.verdicts["click"].metric == "log_loss"
    assert comparison.verdicts["click"].verdict == "better"
    assert comparison.verdicts["click"].difference.difference < 0
    assert {move.metric for move in comparison.slices if move.objective == "click"} == {"log_loss"}
    assert {move.metric for move in comparison.slices if move.objective == "watch_time"} == {"rmse"}
    refused = r"^The verdict on `click` must rest on one of .*auc.*\. Received: 'calibration'\.$"
    with pytest.raises(InputError, match=refused):
        compare(*runs, judge_by={"click": "calibration"})
    with pytest.raises(InputError, match=r"rest on one of .*log_loss.*\. Received: 'calibration_error'\.$"):
        compare(*runs, judge_by={"click": "calibration_error"})
    with pytest.raises(InputError, match=r"^A verdict must be on an objective of both runs, .* Received: 'clik'\.$"):
        compare(*runs, judge_by={"clik": "auc"})


def test_the_text_says_what_is_in_the_document(comparison: Comparison) -> None:
    document, text = comparison_document(comparison), format_comparison(comparison)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["impressions"] == {"both": 1200, "a": 1200, "b": 1200}
    assert text.startswith("A  noisy\nB  clear\ntest: 1,200 impressions, 150 requests in both.")
    verdict = document["verdicts"]["click"]
    assert f"{verdict['difference']:+.4f} [{verdict['low']:+.4f}, {verdict['high']:+.4f}]*" in text
    assert "ndcg@10 dismiss (less is better)" in text
    assert document["differences"]["objectives"]["click"]["group_auc"]["request_id"]["a"] == verdict["a"]

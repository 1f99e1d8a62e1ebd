"""Two runs held against each other: numbers against scikit-learn's and loops, verdicts where the truth is known."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, roc_auc_score

from mmoe_ranker import metrics, pairing
from mmoe_ranker.comparison import Comparison, compare
from mmoe_ranker.comparison_text import comparison_document, format_comparison
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.pairing import common_ground
from mmoe_ranker.predictions import Everything, Predictions
from mmoe_ranker.saved_evaluation import SavedEvaluation
from tests.configs import small_config

REQUESTS, LENGTH = 150, 8


def _evaluation(noise: float, seed: int = 1, name: str = "a", **sections: object) -> SavedEvaluation:
    """Labels of one seeded world; predictions are the truth with more or less noise on its logits."""
    truth = np.random.default_rng(0)
    count = REQUESTS * LENGTH
    logits = {objective: truth.normal(-1, 1.5, count) for objective in ("click", "like", "dismiss")}
    labels = {name: (truth.random(count) < 1 / (1 + np.exp(-logit))).astype(float) for name, logit in logits.items()}
    watch = np.exp(truth.normal(3, 1, count))
    labels["watch_time"] = np.where(labels["click"] == 1, watch * np.exp(truth.normal(0, 0.3, count)), np.nan)
    rng = np.random.default_rng(seed)
    predictions = {name: 1 / (1 + np.exp(-logit - noise * rng.normal(size=count))) for name, logit in logits.items()}
    predictions["watch_time"] = watch * np.exp(noise * rng.normal(size=count))
    columns = {
        "request_id": np.repeat(np.array([f"r{index}".encode() for index in range(REQUESTS)], dtype=object), LENGTH),
        "item_id": np.array([f"v{index}".encode() for index in range(count)], dtype=object),
        "position": np.tile(np.arange(1, LENGTH + 1), REQUESTS),
        "device": np.repeat(truth.choice(np.array([b"phone", b"tv", b""], dtype=object), REQUESTS), LENGTH),
    }
    config = parse_config(small_config() | sections)
    order = config.objective_names
    made = Predictions({name: predictions[name] for name in order}, {name: labels[name] for name in order}, columns)
    return SavedEvaluation(Path(name), config, "test", Path("examples"), made, {})


@pytest.fixture(scope="module")
def runs() -> tuple[SavedEvaluation, SavedEvaluation]:
    return _evaluation(2.0, name="noisy"), _evaluation(0.2, seed=2, name="clear")


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
    comparison = compare(_evaluation(0.5, seed=3), _evaluation(0.5, seed=4))
    assert {verdict.verdict for verdict in comparison.verdicts.values()} == {"no difference seen"}
    assert {move.verdict for move in comparison.slices} == {"no difference seen"}


def test_a_run_and_itself() -> None:
    run = _evaluation(0.5)
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


def test_impressions_are_paired_whatever_their_order(runs, comparison: Comparison) -> None:
    noisy, clear = runs
    shuffled = np.random.default_rng(4).permutation(REQUESTS * LENGTH)
    other = dataclasses.replace(clear, predictions=clear.predictions.select(shuffled))
    assert comparison_document(compare(noisy, other)) == comparison_document(comparison)


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
    clear = _evaluation(0.2, seed=2)
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


def test_the_text_says_what_is_in_the_document(comparison: Comparison) -> None:
    document, text = comparison_document(comparison), format_comparison(comparison)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["impressions"] == {"both": 1200, "a": 1200, "b": 1200}
    assert text.startswith("A  noisy\nB  clear\ntest: 1,200 impressions, 150 requests in both.")
    verdict = document["verdicts"]["click"]
    assert f"{verdict['difference']:+.4f} [{verdict['low']:+.4f}, {verdict['high']:+.4f}]*" in text
    assert "ndcg@10 dismiss (less is better)" in text
    assert document["differences"]["objectives"]["click"]["group_auc"]["request_id"]["a"] == verdict["a"]

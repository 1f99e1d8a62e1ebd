"""Many weights at once: against the metric one by one, and against doubles that loop over rows."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker import metrics
from mmoe_ranker.combined_score import CombinedScore
from mmoe_ranker.errors import InputError
from mmoe_ranker.score_weights import pareto_front, sweep, term_effects

PRODUCT = CombinedScore(
    ("click", "watch", "dismiss"), "weighted_product", (1.0, 0.5, 2.0), (0.0, 1.0, 0.0), (False, False, True)
)
SUM = CombinedScore(
    ("click", "watch", "dismiss"), "weighted_sum", (1.0, 0.01, 2.0), (0.0, 1.0, 0.0), (False, False, True)
)


def _rows(seed: int, requests: int = 40) -> tuple[dict, dict, np.ndarray]:
    """Lists of 1 to 9 candidates in mixed order, with many ties and labels that some rows lack."""
    rng = np.random.default_rng(seed)
    names = np.repeat([f"r{index}".encode() for index in range(requests)], rng.integers(1, 10, requests))
    count = len(names)
    click = (rng.random(count) < 0.3).astype(float)
    labels = {
        "click": click,
        "watch": np.where(click == 1, rng.integers(0, 50, count), np.nan),
        "dismiss": np.where(rng.random(count) < 0.8, rng.random(count) < 0.2, np.nan).astype(float),
        "any": (rng.random(count) < 0.5).astype(float),
    }
    predictions = {
        "click": rng.random(count).round(1),
        "watch": (rng.random(count) * 50).round(),
        "dismiss": rng.random(count).round(1),
    }
    return predictions, labels, rng.permutation(names)


def _ndcg_by_hand(labels, scores, requests, k) -> float:
    """Mean over requests of the expected DCG over all orders of equal scores, by loops."""
    lists: dict = {}
    for label, score, request in zip(labels, scores, requests, strict=True):
        if not math.isnan(label):
            lists.setdefault(request, []).append((score, label))
    values = []
    for rows in lists.values():
        ideal = sum(g / math.log2(r + 2) for r, g in enumerate(sorted((g for _, g in rows), reverse=True)[:k]))
        if ideal > 0:
            dcg = 0.0
            for score, gain in rows:
                above = sum(other > score for other, _ in rows)
                same = sum(other == score for other, _ in rows)
                dcg += gain * sum(1 / math.log2(r + 2) for r in range(above, above + same) if r < k) / same
            values.append(dcg / ideal)
    return sum(values) / len(values) if values else math.nan


@pytest.mark.parametrize("score", [PRODUCT, SUM], ids=["product", "sum"])
@pytest.mark.parametrize("k", [1, 3, None])
def test_a_sweep_is_the_metric_under_each_weight(score: CombinedScore, k: int | None) -> None:
    predictions, labels, requests = _rows(1)
    # More weights than are worked out at once; a term left out, all left out.
    weights = np.random.default_rng(2).random((130, 3))
    weights[1, 0] = weights[2] = 0.0
    found = sweep(predictions, labels, requests, score, weights, k)
    assert found.shape == (130, 4)
    for row in (0, 1, 2, 64, 129):
        scores = score.score(predictions, weights[row])
        expected = [metrics.ndcg(values, scores, requests, k).value for values in labels.values()]
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 10]))
def test_a_sweep_is_what_loops_find(seed: int, k: int) -> None:
    predictions, labels, requests = _rows(seed, requests=8)
    weights = np.random.default_rng(seed).integers(0, 3, (2, 3)).astype(float)
    found = sweep(predictions, labels, requests, PRODUCT, weights, k)
    for row, (click, watch, dismiss) in enumerate(weights):
        scores = [
            sum(
                weight and weight * math.log(max(factor, 1e-6))
                for weight, factor in ((click, c), (watch, w + 1.0), (dismiss, 1.0 - d))
            )
            for c, w, d in zip(*predictions.values(), strict=True)
        ]
        expected = [_ndcg_by_hand(values, scores, requests, k) for values in labels.values()]
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-9)


def test_a_label_without_positives_has_no_ndcg_and_spoils_no_other() -> None:
    predictions, labels, requests = _rows(3)
    alone = sweep(predictions, {"click": labels["click"]}, requests, PRODUCT, PRODUCT.weights)
    none = {"zero": np.zeros(len(requests)), "missing": np.full(len(requests), np.nan)}
    found = sweep(
        predictions, {"zero": none["zero"], "click": labels["click"], **none}, requests, PRODUCT, PRODUCT.weights
    )
    assert found.shape == (1, 3)
    assert np.isnan(found[0, [0, 2]]).all()
    assert found[0, 1] == alone[0, 0]


def test_a_long_request_takes_no_more_memory_than_its_keys() -> None:
    rng = np.random.default_rng(8)
    count = 3000
    predictions = {name: rng.random(count).round(2) for name in PRODUCT.objectives}
    gains = {"click": rng.integers(0, 3, count).astype(float)}
    weights = rng.random((64, 3))
    tracemalloc.start()
    found = sweep(predictions, gains, np.zeros(count, int), PRODUCT, weights, 10)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A row against each other under each weight are 3000 x 64 numbers; all rows at once would be 2,000 times these.
    assert most < 100 * count * len(weights) * 8 / 4
    for row in (0, 63):
        scores = PRODUCT.score(predictions, weights[row])
        assert found[row, 0] == pytest.approx(metrics.ndcg(gains["click"], scores, np.zeros(count, int), 10).value)


def test_no_impression_no_ndcg() -> None:
    nothing = np.empty(0)
    predictions = dict.fromkeys(PRODUCT.objectives, nothing)
    assert np.isnan(sweep(predictions, {"click": nothing}, nothing, PRODUCT, [[1.0, 0.0, 0.0]])).all()


def test_a_prediction_that_is_nan_counts_only_with_a_weight() -> None:
    predictions, labels, requests = _rows(4)
    whole = sweep(predictions, labels, requests, PRODUCT, [[1.0, 0.0, 1.0]])
    predictions["watch"] = np.where(np.arange(len(requests)) == 5, np.nan, predictions["watch"])
    np.testing.assert_array_equal(sweep(predictions, labels, requests, PRODUCT, [[1.0, 0.0, 1.0]]), whole)
    with pytest.raises(InputError, match=r"finite where their weight is not 0\. Received: NaN or inf of 'watch'\.$"):
        sweep(predictions, labels, requests, PRODUCT, [[1.0, 1.0, 1.0]])


def test_labels_and_weights_out_of_range_are_refused() -> None:
    predictions, labels, requests = _rows(5)
    with pytest.raises(InputError, match=r"^`labels of click` must hold finite numbers of at least 0\. Received: -1"):
        sweep(predictions, {"click": -labels["click"]}, requests, PRODUCT, PRODUCT.weights)
    with pytest.raises(InputError, match=r"^`weights` must be at least 0 where `complement`"):
        sweep(predictions, labels, requests, PRODUCT, [[1.0, 1.0, -1.0]])


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=0, max_size=25))
def test_the_front_is_what_loops_find(points: list[tuple[int, int, int]]) -> None:
    values = np.array(points, dtype=float).reshape(-1, 3)
    expected = [not any(all(a >= b for a, b in zip(q, p, strict=True)) and q != p for q in points) for p in points]
    assert pareto_front(values).tolist() == expected
    with_hole = np.column_stack([values, np.full(len(values), np.nan)])
    assert pareto_front(with_hole).tolist() == expected


def test_effects_are_what_loops_find() -> None:
    predictions, _, requests = _rows(6)
    effects = term_effects(predictions, requests, PRODUCT)
    rows = [
        (1.0 * math.log(max(c, 1e-6)), 0.5 * math.log(w + 1.0), 2.0 * math.log(max(1.0 - d, 1e-6)))
        for c, w, d in zip(*predictions.values(), strict=True)
    ]
    for term, name in enumerate(PRODUCT.objectives):
        deviations, totals = [], []
        for row, request in zip(rows, requests, strict=True):
            same = [other for other, theirs in zip(rows, requests, strict=True) if theirs == request]
            deviations.append(row[term] - sum(other[term] for other in same) / len(same))
            totals.append(sum(row) - sum(sum(other) for other in same) / len(same))
        effect = effects[name]
        assert effect.mean == pytest.approx(sum(row[term] for row in rows) / len(rows))
        assert effect.spread == pytest.approx(math.sqrt(sum(d * d for d in deviations) / len(rows)))
        expected = sum(d * t for d, t in zip(deviations, totals, strict=True)) / sum(t * t for t in totals)
        assert effect.share == pytest.approx(expected)
    assert sum(effect.share for effect in effects.values()) == pytest.approx(1.0)


def test_effects_of_nothing_are_none() -> None:
    nothing = {name: [] for name in PRODUCT.objectives}
    assert all(math.isnan(value) for effect in term_effects(nothing, [], PRODUCT).values() for value in effect)
    alike = {name: [0.5, 0.5] for name in PRODUCT.objectives}
    assert term_effects(alike, ["r", "r"], PRODUCT)["click"].spread == 0.0
    assert math.isnan(term_effects(alike, ["r", "r"], PRODUCT)["click"].share)

"""Metrics inside groups and requests, and intervals: against naive doubles that enumerate every order of the ties."""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from mmoe_ranker import metrics
from mmoe_ranker.errors import InputError

NAN = math.nan
TIED = st.sampled_from([0.1, 0.5, 0.9])
GROUPS = st.sampled_from([3, -1, 7])


@st.composite
def columns(draw, *elements, max_size=12):
    rows = draw(st.lists(st.tuples(*elements), max_size=max_size))
    return [np.array([row[index] for row in rows]) for index in range(len(elements))]


def labelled_groups(labels, groups):
    return sorted({g for y, g in zip(labels, groups, strict=True) if not math.isnan(y)})


def naive_group_auc(labels, scores, groups):
    total = num_rows = 0.0
    counted = 0
    for group in labelled_groups(labels, groups):
        inside = (groups == group) & ~np.isnan(labels)
        positives = int(labels[inside].sum())
        negatives = int(inside.sum()) - positives
        if positives and negatives:
            total += inside.sum() * roc_auc_score(labels[inside], scores[inside])
            num_rows += inside.sum()
            counted += 1
    return (total / num_rows if counted else NAN), counted, len(labelled_groups(labels, groups))


def list_ndcg(gains, k):
    def dcg(values):
        return sum(value / math.log2(2 + rank) for rank, value in enumerate(values[:k]))

    return dcg(gains) / dcg(sorted(gains, reverse=True))


def list_mrr(gains, k):
    first = next(rank for rank, gain in enumerate(gains, start=1) if gain > 0)
    return 1 / first if k is None or first <= k else 0.0


def list_recall(gains, k):
    return sum(gain > 0 for gain in gains[:k]) / sum(gain > 0 for gain in gains)


def naive_ranking(list_metric, labels, scores, requests, k):
    """The mean over every order of each request's rows that the scores allow, one permutation at a time."""
    values = []
    for request in labelled_groups(labels, requests):
        rows = [row for row in range(len(labels)) if requests[row] == request and not math.isnan(labels[row])]
        if not any(labels[row] > 0 for row in rows):
            values.append(NAN)
            continue
        outcomes = [
            list_metric([labels[row] for row in sorted(order, key=lambda row: -scores[row])], k)
            for order in itertools.permutations(rows)
        ]
        values.append(sum(outcomes) / len(outcomes))
    return values


@settings(deadline=None)
@given(columns(st.sampled_from([0.0, 1.0, NAN]), TIED, GROUPS))
def test_group_auc_equals_a_loop_over_groups(rows):
    if not len(rows[0]):
        return
    found = metrics.group_auc(*rows)
    value, counted, total = naive_group_auc(*rows)
    np.testing.assert_allclose(found.value, value)
    assert (found.groups_counted, found.groups_total) == (counted, total)
    assert found.groups.tolist() == labelled_groups(rows[0], rows[2])


def test_group_auc_by_hand():
    labels = [1, 0, 1, 1, 0, 0, NAN, 1]
    scores = [2, 1, 1, 5, 5, 0, 9, 3]
    users = ["a", "a", "b", "c", "c", "c", "b", "d"]
    found = metrics.group_auc(labels, scores, users)
    # a: 1 over 2 rows; c: (1 + 1/2) / 2 over 3 rows; b and d have one class
    assert found.value == pytest.approx((2 * 1 + 3 * 0.75) / 5)
    assert (found.groups_counted, found.groups_total) == (2, 4)
    assert found.groups.tolist() == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(found.values, [1.0, NAN, 0.75, NAN])
    np.testing.assert_array_equal(found.weights, [2, 1, 3, 1])


def test_group_auc_with_sample_weights():
    found = metrics.group_auc([1, 0, 0, 1, 0], [2, 1, 3, 2, 1], [0, 0, 0, 1, 1], sample_weights=[1, 3, 1, 0.5, 0.5])
    # group 0: beats weight 3 of 4, weight 5; group 1: 1, weight 1
    assert found.value == pytest.approx((5 * 0.75 + 1 * 1.0) / 6)


@pytest.mark.parametrize("kind", ["<U2", "S2", object, np.int64, np.float32, np.uint8])
def test_groups_of_every_type_mean_the_same(kind):
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 5, 60)
    labels, scores = rng.integers(0, 2, 60), rng.uniform(size=60)
    found = metrics.group_auc(labels, scores, groups.astype(kind))
    assert found.value == pytest.approx(naive_group_auc(labels.astype(float), scores, groups)[0])
    assert sorted(int(group) for group in found.groups) == [0, 1, 2, 3, 4]


def test_auc_within_is_row_weighted_over_positions_of_both_classes():
    labels = [1, 0, 1, 0, 0, 0, 1, NAN]
    scores = [3, 1, 1, 2, 2, 5, 9, 9]
    positions = [1, 1, 2, 2, 2, 3, NAN, 1]
    found = metrics.auc_within(labels, scores, positions)
    # position 1: 1 over 2 rows; position 2: 0 over 3 rows; position 3: one class; a row without position is left out
    assert found.value == pytest.approx(2 / 5)
    assert (found.groups_counted, found.groups_total) == (2, 3)


def test_auc_within_position_does_not_reward_knowing_the_position():
    rng = np.random.default_rng(2)
    positions = rng.integers(1, 11, 50_000)
    labels = rng.uniform(size=50_000) < 0.5 / positions
    assert metrics.auc(labels, -positions) > 0.65
    assert metrics.auc_within(labels, -positions, positions).value == 0.5


RANKING = [("ndcg", list_ndcg), ("mrr", list_mrr), ("recall", list_recall)]
GAINS = st.one_of(st.sampled_from([0.0, 1.0, NAN]), st.sampled_from([0.0, 0.5, 3.0]))


@pytest.mark.parametrize(("name", "list_metric"), RANKING)
@settings(max_examples=60, deadline=None)
@given(columns(GAINS, TIED, GROUPS, max_size=7), st.sampled_from([1, 2, 3, 10, None]))
def test_ranking_equals_the_mean_over_all_orders_of_the_ties(name, list_metric, rows, k):
    if not len(rows[0]) or (name == "recall" and k is None):
        return
    found = getattr(metrics, name)(*rows, k=k)
    expected = naive_ranking(list_metric, *rows, k)
    np.testing.assert_allclose(found.values, expected, atol=1e-12)
    there = [value for value in expected if not math.isnan(value)]
    np.testing.assert_allclose(found.value, np.mean(there) if there else NAN)
    assert (found.groups_counted, found.groups_total) == (len(there), len(expected))


def test_ranking_by_hand():
    labels = [0, 1, 1, 0, 0, 1, 0]
    scores = [3, 2, 1, 5, 4, 0.5, 0.4]
    requests = ["a", "a", "a", "b", "b", "c", "c"]
    dcg = 1 / math.log2(3) + 1 / math.log2(4)
    ideal = 1 + 1 / math.log2(3)
    found = metrics.ndcg(labels, scores, requests, k=10)
    np.testing.assert_allclose(found.values, [dcg / ideal, NAN, 1.0])
    assert (found.groups_counted, found.groups_total) == (2, 3)
    assert found.value == pytest.approx((dcg / ideal + 1) / 2)
    assert metrics.mrr(labels, scores, requests).value == pytest.approx((1 / 2 + 1) / 2)
    assert metrics.mrr(labels, scores, requests, k=1).value == pytest.approx(1 / 2)
    assert metrics.recall(labels, scores, requests, k=2).value == pytest.approx((1 / 2 + 1) / 2)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("k", [3, 10, None])
def test_ndcg_agrees_with_scikit_learn(graded, k):
    rng = np.random.default_rng(8)
    gains = rng.exponential(size=(40, 15)) if graded else rng.integers(0, 2, (40, 15)).astype(float)
    scores = rng.integers(0, 4, (40, 15)).astype(float)
    requests = np.repeat(np.arange(40), 15)
    shuffled = rng.permutation(600)
    found = metrics.ndcg(gains.ravel()[shuffled], scores.ravel()[shuffled], requests[shuffled], k=k)
    assert found.value == pytest.approx(ndcg_score(gains, scores, k=k))


def test_the_order_of_rows_does_not_leak_through_ties():
    # clicks at the top of each list, as a log has them, and a model that scores everything alike
    labels = np.tile([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], 5)
    requests = np.repeat(np.arange(5), 10)
    backwards = slice(None, None, -1)
    for metric in (metrics.ndcg, metrics.mrr, metrics.recall):
        value = metric(labels, np.zeros(50), requests, k=2).value
        assert value == pytest.approx(metric(labels[backwards], np.zeros(50), requests, k=2).value)
        assert value < 0.3
    # 1 / 5 of the discounts of two ranks; P(first positive at 1) + P(at 2) / 2 = 1/5 + (4/5)(2/9)/2; 2 of 10
    assert metrics.ndcg(labels, np.zeros(50), requests, k=2).value == pytest.approx(0.2)
    assert metrics.mrr(labels, np.zeros(50), requests, k=2).value == pytest.approx(1 / 5 + 4 / 45)
    assert metrics.recall(labels, np.zeros(50), requests, k=2).value == pytest.approx(0.2)


def test_mrr_of_a_long_tie_is_the_harmonic_mean():
    num_rows = 20_000
    labels = np.zeros(num_rows)
    labels[17] = 1
    expected = sum(1 / rank for rank in range(1, num_rows + 1)) / num_rows
    assert metrics.mrr(labels, np.zeros(num_rows), np.zeros(num_rows)).value == pytest.approx(expected, rel=1e-9)


GROUPED = [metrics.group_auc, metrics.auc_within, metrics.ndcg, metrics.mrr, lambda *rows: metrics.recall(*rows, k=1)]


@pytest.mark.parametrize("metric", GROUPED)
def test_no_row_is_nan_and_wrong_columns_are_refused(metric):
    for rows in (([], [], []), ([NAN], [1.0], [1])):
        found = metric(*rows)
        assert math.isnan(found.value)
        assert (found.groups_counted, found.groups_total) == (0, 0)
    assert math.isnan(metric([0, 0], [1, 2], [1, 1]).value)
    with pytest.raises(InputError, match=r"^`\w+` must have the shape of `labels`, \[2\]\. Received: shape \[1\]\.$"):
        metric([0, 1], [1, 2], [1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.ndcg([1], [1], [1], k=0), r"`k` must be an integer of at least 1\. Received: 0\."),
        (lambda: metrics.mrr([1], [1], [1], k=2.5), r"`k` must be an integer of at least 1\. Received: 2\.5\."),
        (lambda: metrics.recall([1], [1], [1], k=True), r"`k` must be an integer of at least 1\. Received: True\."),
        (lambda: metrics.ndcg([-1], [1], [1]), r"`labels` must hold finite numbers of at least 0\. Received: -1\.0 .*"),
        (lambda: metrics.bootstrap_interval([1], 0, level=1.0), r"`level` must be above 0 .*\. Received: 1\.0\."),
        (lambda: metrics.bootstrap_interval([1], 0, num_replicates=0), r"A bootstrap must .*\. Received: 1 and 0\."),
        (lambda: metrics.bootstrap_interval([1, 2], 0, weights=[1]), r"`sample_weights` must have .*\[1\]\."),
    ],
)
def test_refuses_wrong_arguments(call, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        call()


def test_bootstrap_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(4).normal(2.0, 3.0, 2000)
    interval = metrics.bootstrap_interval(values, seed=1, level=0.9, num_replicates=4000)
    half = 1.6449 * values.std() / math.sqrt(2000)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert interval == metrics.bootstrap_interval(values, seed=1, level=0.9, num_replicates=4000)
    assert interval != metrics.bootstrap_interval(values, seed=2, level=0.9, num_replicates=4000)


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(6)
    covered = 0
    for seed in range(400):
        interval = metrics.bootstrap_interval(rng.exponential(1.0, 100), seed, level=0.8, num_replicates=300)
        covered += interval.low <= 1.0 <= interval.high
    assert 0.72 <= covered / 400 <= 0.86


def test_bootstrap_interval_weighs_groups_and_skips_those_that_do_not_count():
    values, weights = np.array([0.0, NAN, 1.0, 5.0]), np.array([1.0, 9.0, 3.0, 0.0])
    interval = metrics.bootstrap_interval(values, 0, weights=weights)
    assert interval == (0.75, 0.0, 1.0)  # two groups: a quarter of the draws see only one of them
    assert metrics.bootstrap_interval([2.0] * 5, 0) == (2.0, 2.0, 2.0)
    one = metrics.bootstrap_interval([NAN, 2.0], 0)
    assert one.value == 2.0
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert all(math.isnan(value) for value in metrics.bootstrap_interval([], 0))


def test_a_million_rows_take_seconds():
    rng = np.random.default_rng(9)
    scores = rng.uniform(size=1_000_000).astype(np.float32)
    labels = rng.uniform(size=1_000_000) < 0.1
    requests = np.repeat(np.arange(50_000), 20)
    start = time.perf_counter()
    metrics.auc(labels, scores)
    metrics.group_auc(labels, scores, requests)
    metrics.ndcg(labels, scores, requests, k=10)
    # The bound is loose, for busy machines: it is there for what turns quadratic.
    assert time.perf_counter() - start < 15

"""Metrics over all impressions against scikit-learn, scipy, slow naive doubles and values computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from mmoe_ranker import metrics
from mmoe_ranker.errors import InputError

NAN = math.nan
LABELS = st.sampled_from([0.0, 1.0, NAN])
TIED = st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9])
WEIGHTS = st.sampled_from([0.0, 0.5, 1.0, 3.0])


@st.composite
def columns(draw, *elements, max_size=14):
    rows = draw(st.lists(st.tuples(*elements), max_size=max_size))
    return [np.array([row[index] for row in rows], dtype=np.float64) for index in range(len(elements))]


def naive_auc(labels, scores, weights):
    won = total = 0.0
    for y, s, v in zip(labels, scores, weights, strict=True):
        for other_y, other_s, other_v in zip(labels, scores, weights, strict=True):
            if y == 1 and other_y == 0:
                total += v * other_v
                won += v * other_v * (1.0 if s > other_s else 0.5 if s == other_s else 0.0)
    return won / total if total else NAN


def naive_xauc(labels, scores):
    won = total = 0.0
    for y, s in zip(labels, scores, strict=True):
        for other_y, other_s in zip(labels, scores, strict=True):
            if y > other_y:
                total += 1
                won += 1.0 if s > other_s else 0.5 if s == other_s else 0.0
    return won / total if total else NAN


def test_auc_by_hand():
    # pairs: (.8 > .4) (.8 > .5) (.5 > .4) (.5 = .5): 3.5 of 4
    assert metrics.auc([0, 1, 0, 1], [0.4, 0.5, 0.5, 0.8]) == 3.5 / 4
    assert metrics.auc([0, 1, NAN], [0.4, 0.5, 0.1]) == 1.0
    assert metrics.auc([0, 1], [math.inf, -math.inf]) == 0.0


@given(columns(LABELS, TIED, WEIGHTS))
def test_auc_is_the_share_of_pairs(rows):
    labels, scores, weights = rows
    ones = np.ones(len(labels))
    np.testing.assert_allclose(metrics.auc(labels, scores), naive_auc(labels, scores, ones))
    np.testing.assert_allclose(metrics.auc(labels, scores, weights), naive_auc(labels, scores, weights))


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(11)
    probabilities = np.round(rng.uniform(0.01, 0.99, 3000), 2)  # ties
    labels = (rng.uniform(size=3000) < probabilities).astype(float)
    labels[rng.uniform(size=3000) < 0.1] = NAN
    return labels, probabilities, rng.uniform(0, 2, 3000)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.auc, sklearn_metrics.roc_auc_score),
        (metrics.pr_auc, sklearn_metrics.average_precision_score),
        (metrics.log_loss, sklearn_metrics.log_loss),
        (metrics.rmse, sklearn_metrics.root_mean_squared_error),
        (metrics.mae, sklearn_metrics.mean_absolute_error),
    ],
)
def test_agrees_with_scikit_learn(sample, ours, theirs):
    labels, predictions, weights = sample
    there = ~np.isnan(labels)
    assert ours(labels, predictions) == pytest.approx(theirs(labels[there], predictions[there]), rel=1e-9)
    weighted = theirs(labels[there], predictions[there], sample_weight=weights[there])
    assert ours(labels, predictions, weights) == pytest.approx(weighted, rel=1e-9)


@given(columns(LABELS, TIED, WEIGHTS), st.sampled_from(["auc", "pr_auc", "log_loss", "normalized_entropy"]))
def test_whole_weights_are_repeated_rows_and_missing_labels_absent_rows(rows, name):
    labels, probabilities, weights = rows
    times = (2 * weights).astype(int)
    metric = getattr(metrics, name)
    expected = metric(np.repeat(labels, times), np.repeat(probabilities, times))
    np.testing.assert_allclose(metric(labels, probabilities, weights), expected, rtol=1e-9)
    there = ~np.isnan(labels)
    np.testing.assert_equal(metric(labels, probabilities), metric(labels[there], probabilities[there]))


def test_pr_auc_by_hand():
    # scores fall 1, 0, 1: precision 1 at recall 1/2, 2/3 at recall 1
    assert metrics.pr_auc([1, 0, 1], [0.9, 0.8, 0.7]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # all alike: one threshold, precision is the rate
    assert metrics.pr_auc([1, 0, 0, 0], [0.5] * 4) == pytest.approx(0.25)


def test_log_loss_by_hand_and_clipped():
    assert metrics.log_loss([1, 0], [0.5, 0.75]) == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert metrics.log_loss([1.0], [0.0]) == pytest.approx(-math.log(1e-7))
    assert metrics.log_loss([0.0], np.float32([1.0])) == pytest.approx(-math.log(1e-7), rel=1e-6)


def test_normalized_entropy_is_1_for_the_rate_and_by_hand():
    assert metrics.normalized_entropy([1, 0, 0, 0], [0.25] * 4) == pytest.approx(1.0)
    # log loss -log .8 over the entropy of a fair coin
    assert metrics.normalized_entropy([1, 0], [0.8, 0.2]) == pytest.approx(-math.log(0.8) / math.log(2))


def test_calibration_ratio_by_hand():
    assert metrics.calibration_ratio([1, 0, NAN], [0.5, 0.7, 0.9]) == pytest.approx(1.2)
    assert metrics.calibration_ratio([2.0, 1.0], [1.0, 2.0], [3.0, 1.0]) == pytest.approx(5 / 7)


def test_reliability_curve_by_hand():
    labels, probabilities = [0, 1, 0, 1, NAN], [0.1, 0.2, 0.6, 0.8, 0.9]
    curve = metrics.reliability_curve(labels, probabilities, num_bins=2, bins="uniform")
    np.testing.assert_allclose(curve.predicted, [0.15, 0.7])
    np.testing.assert_allclose(curve.observed, [0.5, 0.5])
    np.testing.assert_allclose(curve.weights, [2, 2])
    expected = (0.35 * 2 + 0.2 * 2) / 4
    assert metrics.expected_calibration_error(labels, probabilities, num_bins=2, bins="uniform") == pytest.approx(
        expected
    )
    weighted = metrics.reliability_curve(labels, probabilities, [3, 1, 0, 0, 1], num_bins=2, bins="uniform")
    np.testing.assert_allclose(weighted.predicted, [0.125])
    np.testing.assert_allclose(weighted.observed, [0.25])


def test_quantile_bins_hold_alike_many_rows_and_keep_ties_together():
    curve = metrics.reliability_curve(np.zeros(100), np.linspace(0.001, 0.02, 100), num_bins=4)
    np.testing.assert_array_equal(curve.weights, [25] * 4)
    tied = metrics.reliability_curve([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.9], num_bins=4)
    np.testing.assert_allclose(tied.predicted, [0.5, 0.9])
    np.testing.assert_allclose(tied.observed, [1 / 3, 1.0])


@given(columns(LABELS, TIED, WEIGHTS), st.integers(1, 6), st.sampled_from(["quantile", "uniform"]))
def test_bins_lose_no_row(rows, num_bins, bins):
    labels, probabilities, weights = rows
    curve = metrics.reliability_curve(labels, probabilities, weights, num_bins=num_bins, bins=bins)
    there = ~np.isnan(labels)
    assert len(curve.weights) <= num_bins
    np.testing.assert_allclose(np.sum(curve.weights), np.sum(weights[there]))
    np.testing.assert_allclose(np.sum(curve.weights * curve.observed), np.sum((weights * labels)[there]), atol=1e-12)
    np.testing.assert_allclose(
        np.sum(curve.weights * curve.predicted), np.sum((weights * probabilities)[there]), atol=1e-12
    )


def test_calibrated_predictions_have_a_small_error_and_shifted_ones_the_shift():
    rng = np.random.default_rng(3)
    probabilities = rng.uniform(0.02, 0.2, 200_000)
    labels = rng.uniform(size=200_000) < probabilities
    assert metrics.expected_calibration_error(labels, probabilities) < 0.005
    assert metrics.expected_calibration_error(labels, probabilities + 0.1) == pytest.approx(0.1, abs=0.005)
    assert metrics.calibration_ratio(labels, probabilities) == pytest.approx(1.0, abs=0.02)


@given(columns(st.sampled_from([0.0, 1.0, 2.5, 4.0, NAN]), TIED))
def test_xauc_is_the_share_of_pairs(rows):
    np.testing.assert_allclose(metrics.xauc(*rows), naive_xauc(*rows))


@given(columns(LABELS, TIED))
def test_xauc_of_binary_labels_is_auc(rows):
    np.testing.assert_allclose(metrics.xauc(*rows), metrics.auc(*rows))


def test_xauc_agrees_with_kendall_without_ties():
    rng = np.random.default_rng(5)
    labels = rng.normal(size=1000)
    scores = labels + rng.normal(size=1000)
    assert metrics.xauc(labels, scores) == pytest.approx((stats.kendalltau(labels, scores).statistic + 1) / 2)


@given(columns(st.sampled_from([0.0, 1.0, 2.5, NAN]), st.sampled_from([-1.0, 0.0, 7.0, NAN])))
def test_spearman_agrees_with_scipy(rows):
    first, second = rows
    there = ~np.isnan(first) & ~np.isnan(second)
    constant = there.sum() < 2 or len(set(first[there])) < 2 or len(set(second[there])) < 2
    expected = NAN if constant else stats.spearmanr(first[there], second[there]).statistic
    np.testing.assert_allclose(metrics.spearman(first, second), expected, atol=1e-12)


ALL = [
    metrics.auc,
    metrics.pr_auc,
    metrics.log_loss,
    metrics.normalized_entropy,
    metrics.calibration_ratio,
    metrics.expected_calibration_error,
    metrics.rmse,
    metrics.mae,
    metrics.xauc,
    metrics.spearman,
]


@pytest.mark.parametrize("metric", ALL)
def test_no_row_is_nan_and_wrong_columns_are_refused(metric):
    assert math.isnan(metric([], []))
    assert math.isnan(metric([NAN, NAN], [0.5, 0.5]))
    with pytest.raises(InputError, match=r"` must have the shape of `\w+`, \[2\]\. Received: shape \[3\]\.$"):
        metric([0, 1], [0.1, 0.2, 0.3])
    with pytest.raises(InputError, match=r"` must have one dimension\. Received: shape \[2, 1\]\.$"):
        metric([[0], [1]], [[0.1], [0.2]])
    with pytest.raises(InputError, match=r"` must hold numbers in one array\. Received: values of type <U1\.$"):
        metric([0, 1], ["a", "b"])
    with pytest.raises(InputError, match=r"` must hold numbers in one array\. Received: \[\[0\], \[1, 2\]\]\.$"):
        metric([[0], [1, 2]], [0.1, 0.2])


@pytest.mark.parametrize("metric", [metrics.auc, metrics.normalized_entropy])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_is_nan(metric, label):
    assert math.isnan(metric([label, label, NAN], [0.2, 0.8, 0.5]))


def test_what_else_is_not_defined_is_nan():
    assert math.isnan(metrics.pr_auc([0, 0], [0.2, 0.8]))
    assert math.isnan(metrics.calibration_ratio([0, 0], [0.2, 0.8]))
    assert math.isnan(metrics.xauc([2.0, 2.0], [0.2, 0.8]))
    assert math.isnan(metrics.log_loss([0, 1], [0.2, 0.8], [0, 0]))
    assert math.isnan(metrics.rmse([0, 1], [0.2, 0.8], [0, 0]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.auc([0, 2], [0.1, 0.2]), r"`labels` must hold 0, 1 or NaN.*Received: 2\.0 \(and 1 such"),
        (lambda: metrics.auc([0, 1], [0.1, NAN]), r"`scores` must hold numbers other than NaN.*Received: nan"),
        (lambda: metrics.auc([0, 1], [1, 2], [1]), r"`sample_weights` must have the shape.*Received: shape \[1\]"),
        (lambda: metrics.auc([0, 1], [1, 2], [1, -1]), r"`sample_weights` must hold finite.*Received: -1\.0"),
        (lambda: metrics.log_loss([0], [1.5]), r"`probabilities` must hold probabilities from 0 to 1\. Received: 1\.5"),
        (lambda: metrics.rmse([0], [math.inf]), r"`predictions` must hold finite numbers\. Received: inf"),
        (lambda: metrics.rmse([math.inf], [0]), r"`labels` must hold finite numbers\. Received: inf"),
        (lambda: metrics.reliability_curve([0], [0], num_bins=0), r"`num_bins` must be an integer.*Received: 0"),
        (lambda: metrics.reliability_curve([0], [0], bins="x"), r"`bins` must be quantile or uniform\. Received: 'x'"),
    ],
)
def test_refuses_values_out_of_range(call, message):
    with pytest.raises(InputError, match=rf"^{message}.*\.$"):
        call()


def test_a_prediction_may_be_nan_where_the_label_is_missing():
    assert metrics.auc([0, 1, NAN], [0.1, 0.2, NAN]) == 1.0
    assert metrics.mae([2.0, NAN], [1.0, NAN]) == 1.0

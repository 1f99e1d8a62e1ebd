from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmoe_ranker.errors import InputError
from mmoe_ranker.position_bias import calibration_by_position, learned_curves, order_agreement, rates_by_position
from tests.position_bias.worlds import simulated

_ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, math.nan]), st.integers(-1, 4), st.integers(0, 5), st.sampled_from("ab"))
)


@settings(max_examples=100, deadline=None)
@given(_ROWS)
def test_rates_equal_their_naive_double(rows):
    cells = defaultdict(list)
    for label, position, request, group in rows:
        if position >= 1 and not math.isnan(label):
            cells[group, position].append((request, label))
    columns = list(zip(*rows, strict=True)) or [[], [], [], []]
    found = rates_by_position(*(np.array(column) for column in columns))
    keys = sorted(cells)
    assert list(zip(found.groups.tolist(), found.positions.tolist(), strict=True)) == keys
    for row, key in enumerate(keys):
        labels = [label for _, label in cells[key]]
        count, rate = len(labels), sum(labels) / len(labels)
        by_request = defaultdict(float)
        for request, label in cells[key]:
            by_request[request] += label - rate
        clustered = sum(excess**2 for excess in by_request.values())
        trials = count * min(1.0, count * rate * (1 - rate) / max(clustered, 1e-12)) if 0 < rate < 1 else count
        z = stats.norm.ppf(0.975)
        # The ends are where the distance from the rate is z standard errors of that end.
        for end in (found.low[row], found.high[row]):
            if 0 < end < 1:
                assert abs(rate - end) == pytest.approx(z * math.sqrt(end * (1 - end) / trials), rel=1e-6, abs=1e-7)
        assert found.impressions[row] == count
        assert found.rates[row] == pytest.approx(rate)
        assert found.low[row] <= rate <= found.high[row]


def test_a_request_that_shows_everything_twice_is_no_surer():
    log = simulated(requests=500).rows(np.arange(6000))
    once = rates_by_position(log.clicks, log.positions, log.requests)
    twice = rates_by_position(*(np.tile(column, 2) for column in (log.clicks, log.positions, log.requests)))
    np.testing.assert_allclose(twice.low, once.low)
    np.testing.assert_array_equal(twice.impressions, 2 * once.impressions)
    apart = np.concatenate([log.requests, log.requests + 10_000])
    surer = rates_by_position(np.tile(log.clicks, 2), np.tile(log.positions, 2), apart)
    assert np.all(surer.low > once.low)


def test_labels_of_rates_are_checked():
    with pytest.raises(InputError, match=r"^`labels` must be 0, 1 or NaN. Received: 0.5.$"):
        rates_by_position([0.5], [1], [1])
    with pytest.raises(InputError, match=r"^`groups` must have the shape of `labels`, \[1\]. Received: shape \[2\].$"):
        rates_by_position([1.0], [1], [1], ["a", "b"])


def test_calibration_is_mean_prediction_over_rate():
    positions, requests = np.repeat([1, 2, 3], 4), np.arange(12)
    labels = np.array([1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0.0])
    predictions = np.repeat([0.25, 0.3, 0.1], 4) + np.tile([-0.1, 0.1], 6)
    found = calibration_by_position(labels, predictions, positions, requests)
    np.testing.assert_allclose(found.predicted, [0.25, 0.3, 0.1])
    np.testing.assert_allclose(found.ratio, [0.5, 1.2, math.nan])
    np.testing.assert_allclose(found.low, found.predicted / found.rates.high)
    assert np.all(found.low[:2] < found.ratio[:2])
    assert np.all(found.ratio[:2] < found.high[:2])
    assert found.high[2] == math.inf
    with pytest.raises(InputError, match=r"^`predictions` must have the shape of `labels`, \[12\]"):
        calibration_by_position(labels, predictions[:2], positions, requests)


def test_true_predictions_are_calibrated_where_position_is_seen_only():
    log = simulated()
    seen = calibration_by_position(log.clicks, log.relevance * log.examination, log.positions, log.requests)
    assert ((seen.low <= 1) & (seen.high >= 1)).mean() >= 0.9
    missing = calibration_by_position(log.clicks, log.relevance * log.examination.mean(), log.positions, log.requests)
    assert missing.high[0] < 1 < missing.low[-1]


def test_order_agreement_equals_spearman_of_each_request():
    rng = np.random.default_rng(0)
    requests = np.repeat(np.arange(40), rng.integers(1, 7, 40))
    positions = np.concatenate([rng.permutation(count) + 1 for count in np.bincount(requests)])
    predictions = rng.integers(0, 4, len(requests)) / 4  # ties, and lists of one
    expected = []
    for request in range(40):
        of_request = requests == request
        if of_request.sum() > 1 and len(set(predictions[of_request])) > 1:
            expected.append(stats.spearmanr(-positions[of_request], predictions[of_request]).statistic)
    mixed = rng.permutation(len(requests))
    found = order_agreement(predictions[mixed], positions[mixed], requests[mixed])
    assert found.requests == len(expected)
    assert found.value == pytest.approx(np.mean(expected))
    assert found.low < found.value < found.high


def test_order_agreement_is_1_where_the_ranker_was_followed():
    log = simulated(alignment=1.0, agenda=0.0, noise=0.0, random_share=0.0)
    assert order_agreement(log.relevance, log.positions, log.requests).value == pytest.approx(1.0)
    assert order_agreement(-log.relevance, log.positions, log.requests).value == pytest.approx(-1.0)
    unknown = order_agreement(log.relevance, np.zeros_like(log.positions), log.requests)
    assert unknown.requests == 0
    assert math.isnan(unknown.value)
    with pytest.raises(InputError, match=r"^`requests` must have the shape of `predictions`, \[2\]"):
        order_agreement([0.1, 0.2], [1, 2], [1])


def _bias(position, device, click, like=0.0):
    return {"position": position, "device": device, "click": click, "like": like}


def test_learned_curves_are_odds_against_the_first_position():
    first = [_bias(1, "tv", 0.5), _bias(2, "tv", 0.5 + math.log(0.4)), _bias(None, "tv", 9.0), _bias(1, None, 9.0)]
    second = [_bias(1, "tv", -2.0), _bias(2, "tv", -2.0 + math.log(0.1)), _bias(0, "tv", 9.0)]
    one, two = learned_curves([first, second], "click")
    assert (one["group"], one["position"], one["odds"], one["spread"]) == ("tv", 1, 1.0, 0.0)
    assert two["odds"] == pytest.approx(0.2)  # the geometric mean of 0.4 and 0.1
    assert (two["low"], two["high"]) == (pytest.approx(0.1), pytest.approx(0.4))
    assert two["runs"] == pytest.approx([0.4, 0.1])
    assert two["spread"] == pytest.approx(math.log(4) / math.sqrt(2))
    (only, _) = learned_curves([[{"position": 1, "click": 1.0}, {"position": 2, "click": 0.0}]], "click")
    assert (only["group"], only["spread"]) == ("", None)


def test_learned_curves_of_other_shapes_are_refused():
    rows = [_bias(1, "tv", 0.5), _bias(2, "tv", 0.1)]
    with pytest.raises(InputError, match=r"^`runs` must be learned biases, one or more. Received: none.$"):
        learned_curves([], "click")
    with pytest.raises(InputError, match=r"the same positions of the same groups. Received: 2 rows and 1 rows.$"):
        learned_curves([rows, rows[:1]], "click")
    with pytest.raises(InputError, match=r"rows with `position` and `share`. Received: \["):
        learned_curves([rows], "share")
    with pytest.raises(InputError, match=r"position 1 in each group. Received: none in \['tv'\].$"):
        learned_curves([rows[1:]], "click")

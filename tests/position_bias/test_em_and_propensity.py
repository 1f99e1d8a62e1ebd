from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics import ndcg
from mmoe_ranker.position_bias import (
    PositionOverlap,
    examination,
    examination_by_prediction,
    inverse_propensity_ndcg,
)
from mmoe_ranker.position_bias.propensity import gains_by_request, inverse_weights
from tests.position_bias.worlds import simulated, true_curve


def _overlap(items, positions, clicks):
    return PositionOverlap.of(items.astype(np.uint64), np.zeros(len(items), np.uint64), positions, clicks)


def _logit(probability):
    return np.log(probability / (1 - probability))


@pytest.mark.parametrize("device", [0, 1, 2])
def test_em_finds_the_truth_though_the_ranker_knows_its_users(device: int):
    log = simulated()
    log = log.rows(log.device == device)
    positions, found = examination_by_prediction(log.relevance, log.positions, log.clicks)
    assert positions.tolist() == list(range(1, 21))
    assert np.abs(np.log(found / true_curve(log, device))).mean() < 0.1


def test_one_relevance_an_item_finds_it_where_the_ranker_does_not():
    log = simulated(alignment=0.0)
    log = log.rows(log.device == 0)
    found, _ = examination(_overlap(log.items, log.positions, log.clicks))
    assert np.abs(np.log(np.array(list(found.values())) / true_curve(log, 0))).mean() < 0.1


def test_em_by_prediction_needs_the_order_only():
    log = simulated()
    log = log.rows(log.device == 0)
    shifted = 1 / (1 + np.exp(-(0.5 * _logit(log.relevance) - 2)))  # neither the level nor the scale is right
    _, found = examination_by_prediction(shifted, log.positions, log.clicks)
    assert np.abs(np.log(found / true_curve(log, 0))).mean() < 0.1


def test_em_is_where_the_likelihood_is_largest():
    rng = np.random.default_rng(1)
    predictions, positions = rng.choice([0.2, 0.5, 0.7], 3000), rng.integers(1, 4, 3000)
    examined = np.array([0.9, 0.5, 0.3])
    clicks = rng.random(3000) < examined[positions - 1] * predictions

    def loss(parameters):
        probability = 1 / (1 + np.exp(-parameters[:3]))
        relevance = 1 / (1 + np.exp(-(parameters[3] + parameters[4] * _logit(predictions))))
        click = np.clip(probability[positions - 1] * relevance, 1e-9, 1 - 1e-9)
        return -np.where(clicks, np.log(click), np.log(1 - click)).sum()

    best = 1 / (1 + np.exp(-optimize.minimize(loss, np.array([1.0, 0, 0, 0, 1]), method="BFGS").x[:3]))
    _, found = examination_by_prediction(predictions, positions, clicks)
    np.testing.assert_allclose(found, best / best[0], rtol=5e-3)


def test_em_without_clicks_at_the_first_position_has_no_value():
    clicks = np.array([0.0, 1.0, 0.0, 1.0])
    positions = np.array([1, 2, 1, 2])
    assert np.isnan(examination_by_prediction(np.full(4, 0.5), positions, clicks)[1]).all()
    assert len(examination_by_prediction([], [], [])[1]) == 0


def test_em_refuses_what_is_no_click_or_probability():
    with pytest.raises(InputError, match=r"^`clicks` must be 0, 1 or NaN. Received: 2.$"):
        examination_by_prediction([0.5], [1], [2.0])
    with pytest.raises(InputError, match=r"^`predictions` must be from 0 to 1. Received: 1.5.$"):
        examination_by_prediction([1.5], [1], [1.0])
    with pytest.raises(
        InputError, match=r"^`predictions` must have the shape of `clicks`, \[1\]. Received: shape \[2\].$"
    ):
        examination_by_prediction([0.5, 0.5], [1], [1.0])


def _naive_ndcg(clicks, scores, requests, propensities, k, clip):
    """Without ties."""
    above = below = 0.0
    highest = max(one for one in propensities if not math.isnan(one))
    for request in set(requests):
        rows = [row for row in range(len(clicks)) if requests[row] == request and not math.isnan(propensities[row])]
        gains = {row: clicks[row] * min(highest / propensities[row], clip) for row in rows}
        order = sorted(rows, key=lambda row: -scores[row])
        best = sorted(gains.values(), reverse=True)
        above += sum(gains[row] / math.log2(2 + rank) for rank, row in enumerate(order) if rank < k)
        below += sum(gain / math.log2(2 + rank) for rank, gain in enumerate(best) if rank < k)
    return above / below


def test_ndcg_equals_its_naive_double():
    rng = np.random.default_rng(2)
    requests = rng.integers(0, 30, 300)
    clicks, scores = (rng.random(300) < 0.3).astype(float), rng.random(300)
    propensities = rng.choice([1.0, 0.5, 0.1, 0.02, math.nan], 300)
    found = inverse_propensity_ndcg(clicks, scores, requests, propensities, k=5, clip=15.0)
    assert found.value == pytest.approx(_naive_ndcg(clicks, scores, requests, propensities, 5, 15.0))
    known = propensities[(clicks == 1) & ~np.isnan(propensities)]
    weights = np.minimum(1 / known, 15.0)
    assert found.clicks == len(known)
    assert found.clicks_without_propensity == clicks.sum() - len(known)
    assert found.clipped == pytest.approx((known == 0.02).mean())
    assert found.effective_clicks == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert found.low < found.value < found.high
    # Propensities count up to a factor.
    assert inverse_propensity_ndcg(clicks, scores, requests, propensities * 0.3, k=5, clip=15.0) == found


def test_weighed_clicks_compare_rankers_as_clicks_without_bias_would():
    log = simulated()
    rng = np.random.default_rng(0)
    # What users would click if they looked at everything; and a ranker whose score has part of the bias in it.
    unbiased = (rng.random(len(log.clicks)) < log.relevance).astype(float)
    scores = {"honest": log.relevance, "biased": log.relevance * log.examination**0.5}

    def ratio(clicks, propensities):
        found = [
            inverse_propensity_ndcg(clicks, score, log.requests, propensities, clip=50.0) for score in scores.values()
        ]
        assert found[0].clicks == clicks.sum()
        return found[0].value / found[1].value, found[0].effective_clicks

    everything = np.ones(len(log.clicks))
    wanted, _ = ratio(unbiased, everything)
    logged, effective = ratio(log.clicks, everything)
    weighed, fewer = ratio(log.clicks, log.examination)
    assert logged < 1 < wanted
    assert weighed == pytest.approx(wanted, abs=0.01)
    assert fewer < 0.6 * effective


def test_gains_of_a_request_are_those_of_ndcg():
    clicks, scores, requests = [0, 1, 1, 0, 0, 1.0], [3, 2, 2, 9, 8, 7], [4, 4, 4, 6, 6, 6]
    gains = gains_by_request(clicks, scores, requests, np.ones(6))
    np.testing.assert_allclose(gains.gained / gains.possible, ndcg(clicks, scores, requests).values)
    assert gains.possible.tolist() == [1 + 1 / math.log2(3), 1.0]


def test_without_a_click_there_is_no_ndcg():
    found = inverse_propensity_ndcg([0.0, 1.0], [1.0, 2.0], [1, 1], [1.0, math.nan])
    assert math.isnan(found.value)
    assert (found.clicks, found.clicks_without_propensity, found.requests) == (0, 1, 0)


def test_propensities_and_clip_are_checked():
    with pytest.raises(InputError, match=r"^`propensities` must be above 0 and finite, or NaN. Received: 0.$"):
        inverse_weights([1.0, 0.0])
    with pytest.raises(InputError, match=r"^`clip` must be at least 1. Received: 0.5.$"):
        inverse_weights([1.0], clip=0.5)

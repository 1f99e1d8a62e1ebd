"""Totals over batches against the metrics of all rows at once: exact, or inside the bound that comes with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker import metrics
from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics.binned import BinnedTotals

# Far apart, in one bin but not equal, equal, and at the ends.
PROBABILITIES = st.sampled_from([0.0, 1e-9, 0.3, 0.30000001, 0.30000002, 0.5, 0.5000001, 0.9, 1.0])
ROWS = st.lists(st.tuples(st.sampled_from([0.0, 1.0, math.nan]), PROBABILITIES), max_size=20)


@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=3))
def test_batches_give_what_all_rows_do_within_the_bound(batches):
    totals = BinnedTotals()
    for batch in batches:
        totals.update([label for label, _ in batch], [probability for _, probability in batch])
    labels, probabilities = (np.array([row[place] for batch in batches for row in batch]) for place in (0, 1))
    assert totals.labelled == np.isfinite(labels).sum()
    np.testing.assert_allclose(totals.log_loss(), metrics.log_loss(labels, probabilities))
    np.testing.assert_allclose(totals.normalized_entropy(), metrics.normalized_entropy(labels, probabilities))
    np.testing.assert_allclose(totals.calibration_ratio(), metrics.calibration_ratio(labels, probabilities))
    for found, exact in (
        (totals.auc(), metrics.auc(labels, probabilities)),
        (totals.pr_auc(), metrics.pr_auc(labels, probabilities)),
    ):
        assert math.isnan(found.value) == math.isnan(found.error) == math.isnan(exact)
        if not math.isnan(exact):
            assert abs(found.value - exact) <= found.error + 1e-12


def test_the_bound_is_reached_by_rows_of_one_bin():
    totals = BinnedTotals()
    totals.update([1, 0], [0.50002, 0.50001])
    assert totals.auc() == (0.5, 0.5)  # truly 1
    totals.update([0], [0.6])
    # Of positive, negative in one bin after one negative: precision 1 / 2 at best, 1 / 3 at worst.
    found = totals.pr_auc()
    assert found.value + found.error == pytest.approx(1 / 2)
    assert found.value - found.error <= 1 / 3


def test_the_error_is_small_on_predictions_as_models_give_them():
    rng = np.random.default_rng(4)
    probabilities = rng.beta(1, 9, 200_000)
    labels = rng.random(200_000) < probabilities
    totals = BinnedTotals()
    for rows in np.array_split(np.arange(200_000), 7):
        totals.update(labels[rows], probabilities[rows])
    auc, pr_auc = totals.auc(), totals.pr_auc()
    assert auc.error < 1e-4
    assert pr_auc.error < 2e-3
    assert abs(auc.value - metrics.auc(labels, probabilities)) <= auc.error
    assert abs(pr_auc.value - metrics.pr_auc(labels, probabilities)) <= pr_auc.error


def test_values_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"`probabilities` must hold probabilities from 0 to 1\. Received: 1\.5"):
        BinnedTotals().update([1], [1.5])

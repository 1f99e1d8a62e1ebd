"""The bootstrap: each statistic of a draw against the metric of the rows that were drawn, each as often as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker import metrics
from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics.resampling import entropy_ratio, root_ratio
from mmoe_ranker.metrics.rows import labelled_rows

NAN = math.nan
UNITS = 4
ROWS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, NAN]),
        st.sampled_from([0.1, 0.25, 0.5, 0.9]),
        st.integers(0, UNITS - 1),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=14,
)
COUNTS = st.lists(st.sampled_from([0, 1, 2, 3]), min_size=UNITS, max_size=UNITS)


def _sorted(labels, scores):
    rows = labelled_rows(labels, scores, label_kind="binary")
    return metrics.SortedRows.best_first(rows) if len(rows) else None


@settings(deadline=None)
@given(ROWS, st.lists(COUNTS, min_size=1, max_size=3))
def test_areas_of_a_draw_are_those_of_the_rows_that_it_took(rows, draws):
    labels, scores, units, groups = (np.array(column) for column in zip(*rows, strict=True))
    everything = _sorted(labels, scores)
    if everything is None:
        return
    counts = np.array(draws, np.uint8)
    inside = everything.within(groups)
    found = metrics.ResampledAreas(everything, units, auc=("auc",), pr_auc=("pr",))(counts)
    names = [(str(group),) for group in groups[inside.order[inside.segments]]]
    found |= metrics.ResampledAreas(inside, units, auc=("within",), segment_aucs=names)(counts)
    for draw, drawn in enumerate(counts):
        y, s, g = (np.repeat(column, drawn[units]) for column in (labels, scores, groups))
        np.testing.assert_allclose(found[("auc",)][draw], metrics.auc(y, s))
        np.testing.assert_allclose(found[("pr",)][draw], metrics.pr_auc(y, s))
        np.testing.assert_allclose(found[("within",)][draw], metrics.group_auc(y, s, g).value)
        for (name,) in names:
            np.testing.assert_allclose(found[(name,)][draw], metrics.auc(y[g == int(name)], s[g == int(name)]))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.integers(0, UNITS - 1), st.integers(0, 2)), min_size=1, max_size=12), COUNTS
)
def test_sums_of_slices_are_those_of_the_rows_that_were_drawn(rows, drawn):
    values, units, slices = (np.array(column) for column in zip(*rows, strict=True))
    counts = np.array([drawn], np.uint8)
    sums = metrics.SegmentSums(slices, 3, units, UNITS)
    sums.add([("0",), ("1",), ("2",)], metrics.ratio, values, np.ones(len(values)))
    found = sums(counts)
    for name in range(3):
        taken = np.repeat(values[slices == name], counts[0][units[slices == name]])
        expected = taken.mean() if len(taken) else NAN
        np.testing.assert_allclose(found[(str(name),)][0], expected, atol=1e-12)


def test_formulas_are_the_metrics_and_nan_where_these_are():
    labels, probabilities = np.array([1.0, 0.0, 0.0, 1.0, 0.0]), np.array([0.7, 0.2, 0.4, 0.6, 0.1])
    losses = -np.log(np.where(labels == 1, probabilities, 1 - probabilities))
    rows = np.ones(5)
    sums = metrics.UnitSums(5)
    sums.add(("ne",), entropy_ratio, losses, labels, rows)
    sums.add(("rmse",), root_ratio, (labels - probabilities) ** 2, rows)
    found = sums(np.array([[1, 1, 1, 1, 1], [0, 2, 1, 0, 0], [0, 0, 0, 0, 0]], np.uint8))
    assert found[("ne",)][0] == pytest.approx(metrics.normalized_entropy(labels, probabilities))
    assert found[("rmse",)][0] == pytest.approx(metrics.rmse(labels, probabilities))
    assert found[("rmse",)][1] == pytest.approx(metrics.rmse([0, 0, 0], [0.2, 0.2, 0.4]))
    assert np.isnan(found[("ne",)][1:]).all()  # one class, no row
    assert np.isnan(found[("rmse",)][2])


def _clicks(num_units=300, per_unit=10, seed=1):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=num_units * per_unit)
    taste = np.repeat(rng.normal(size=num_units), per_unit)  # rows of a unit go together
    labels = (rng.random(len(scores)) < 1 / (1 + np.exp(1 - scores - taste))).astype(float)
    return labels, scores, np.repeat(np.arange(num_units), per_unit)


def test_interval_of_auc_is_that_of_drawing_and_sorting_anew():
    labels, scores, units = _clicks()
    areas = metrics.ResampledAreas(_sorted(labels, scores), units, auc=("auc",))
    found = metrics.bootstrap_intervals([areas], 300, replicates=400)[("auc",)]
    rng = np.random.default_rng(5)
    naive = []
    for _ in range(400):
        taken = np.concatenate([np.arange(10) + 10 * unit for unit in rng.integers(0, 300, 300)])
        naive.append(metrics.auc(labels[taken], scores[taken]))
    assert found.value == pytest.approx(metrics.auc(labels, scores))
    width = np.quantile(naive, 0.975) - np.quantile(naive, 0.025)
    assert found.low == pytest.approx(np.quantile(naive, 0.025), abs=0.15 * width)
    assert found.high == pytest.approx(np.quantile(naive, 0.975), abs=0.15 * width)


def test_pairs_take_out_what_both_models_owe_to_the_draw():
    labels, scores, units = _clicks()
    better = scores + 0.3 * (labels - 0.5)
    models = [[metrics.ResampledAreas(_sorted(labels, one), units, auc=("auc",))] for one in (scores, better)]
    found = metrics.paired_bootstrap(*models, 300)[("auc",)]
    assert found.first == pytest.approx(metrics.auc(labels, scores))
    assert found.difference == pytest.approx(metrics.auc(labels, better) - metrics.auc(labels, scores))
    assert 0 < found.low < found.difference < found.high
    alone = metrics.bootstrap_intervals(models[0], 300)[("auc",)]
    assert found.high - found.low < 0.5 * (alone.high - alone.low)
    same = metrics.paired_bootstrap(models[0], models[0], 300)[("auc",)]
    assert same[2:] == (0.0, 0.0, 0.0)
    assert metrics.paired_bootstrap(models[0], [], 300) == {}


def test_draws_take_units_as_often_as_there_are_and_depend_on_the_seed_alone(monkeypatch):
    class Totals:
        def __call__(self, counts):
            return {("total",): counts.sum(axis=1, dtype=float), ("first",): counts[:, 0].astype(float)}

    drawn = metrics.bootstrap([Totals()], 50, replicates=2000, seed=3)
    assert (drawn[("total",)] == 50).all()
    assert drawn[("first",)].mean() == pytest.approx(1.0, abs=0.1)
    assert drawn[("first",)].var() == pytest.approx(1.0, abs=0.15)
    monkeypatch.setitem(metrics.bootstrap.__globals__, "_CELLS_AT_ONCE", 170)  # three draws at once, then two
    np.testing.assert_array_equal(metrics.bootstrap([Totals()], 50, 2000, 3)[("first",)], drawn[("first",)])
    assert (metrics.bootstrap([Totals()], 50, 2000, 4)[("first",)] != drawn[("first",)]).any()


def test_no_interval_of_one_unit_nor_where_draws_do_not_define_the_metric():
    one = metrics.UnitSums(1)
    one.add(("mean",), metrics.ratio, np.array([2.0]), np.array([1.0]))
    found = metrics.bootstrap_intervals([one], 1)[("mean",)]
    assert found.value == 2.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    # One positive among ten units: a third of the draws miss it.
    labels = np.eye(10)[0]
    areas = metrics.ResampledAreas(_sorted(labels, np.arange(10.0)), np.arange(10), auc=("auc",))
    rare = metrics.bootstrap_intervals([areas], 10)[("auc",)]
    assert rare.value == 0.0
    assert math.isnan(rare.low)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.bootstrap([], 0), r"A bootstrap must have at least one unit .* Received: 0 and 200\."),
        (lambda: metrics.bootstrap([], 3, 0), r"A bootstrap must have at least one unit .* Received: 3 and 0\."),
        (lambda: metrics.bootstrap_intervals([], 3, level=0), r"`level` must be above 0 and below 1\. Received: 0\."),
        (lambda: metrics.paired_bootstrap([], [], 3, level=2), r"`level` must be above 0 and below 1\. Received: 2\."),
    ],
)
def test_refuses_wrong_arguments(call, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        call()

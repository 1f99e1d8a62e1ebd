"""Mergeable statistics against numpy on the whole column."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.example_reports import MergeReports, Moments, Report, _quantile_edges, _rounded
from pipelines.splits import Part

VALUES = st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), max_size=40)


@given(st.lists(VALUES, min_size=1, max_size=6))
def test_merged_moments_are_those_of_all_values(parts):
    merged = Moments.merge(Moments.of(np.array(part)) for part in parts)
    whole = np.array([value for part in parts for value in part])
    there = whole[~np.isnan(whole)]
    assert (merged.count, merged.missing) == (len(there), len(whole) - len(there))
    if len(there):
        scale = np.abs(there).max() + 1e-9
        assert merged.mean == pytest.approx(there.mean(), abs=1e-9 * scale)
        assert merged.std == pytest.approx(there.std(), abs=1e-7 * scale)
        assert (merged.min, merged.max) == (there.min(), there.max())
    else:
        assert (merged.mean, merged.std) == (0.0, 0.0)


def test_a_large_offset_does_not_swallow_the_spread():
    values = np.random.default_rng(1).normal(1e9, 1.0, size=10_000)
    merged = Moments.merge([Moments.of(values[:3000]), Moments.of(values[3000:])])
    assert merged.std == pytest.approx(values.std(), rel=1e-6)


def test_reports_merge_in_any_order():
    merge = MergeReports()
    one = Report({Part("train", 0, 2): None}, {"device": {"tv": 2}}, {"age": {1.5: 2}}, {"device": 1})
    two = Report({Part("train", 1, 2): None}, {"device": {"tv": 1, "web": 5}}, {"age": {1.5: 1, 2.0: 1}}, {"device": 0})
    there = merge.add_input(merge.add_input(merge.create_accumulator(), one), two)
    back = merge.merge_accumulators([merge.add_input(merge.create_accumulator(), two), merge.merge_accumulators([one])])
    for report in (there, back):
        assert report.vocabularies == {"device": {"tv": 3, "web": 5}}
        assert report.histograms == {"age": {1.5: 3, 2.0: 1}}
        assert report.missing == {"device": 1}
        assert len(report.parts) == 2


def _edges(values, buckets):
    rounded = _rounded(pa.chunked_array([pa.array(values, pa.float64())]))
    return _quantile_edges(Counter(rounded.tolist()), buckets)


def test_buckets_hold_equal_counts():
    values = np.random.default_rng(2).lognormal(3, 2, size=50_000) * np.random.default_rng(3).choice([-1, 1], 50_000)
    edges = _edges(values, 16)
    assert len(edges) == 15
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=16)
    # A sixteenth each, but for the rounding of the edges.
    np.testing.assert_allclose(counts, 50_000 / 16, rtol=0.03)


def test_one_value_of_many_rows_is_one_bucket():
    assert _edges([0.0] * 90 + [1.0] * 5 + [2.0] * 5, 4) == (1.0,)
    assert _edges([3.0] * 10, 4) == ()
    assert _edges([], 4) == ()


@given(st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=1, max_size=60))
def test_rounding_keeps_order_and_nearly_the_value(values):
    ordered = np.sort(np.array(values))
    rounded = _rounded(pa.chunked_array([pa.array(ordered, pa.float64())]))
    assert (np.diff(rounded) >= 0).all()
    assert (np.abs(rounded - ordered) <= np.abs(ordered) / 4096 + 1e-38).all()

"""Mergeable statistics against numpy on the whole column."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.example_reports import MergeReports, Moments, Report
from pipelines.splits import Part
from pipelines.value_counts import CategoryCounts, NumberCounts

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

    def report(part: int, devices: list[str], ages: list[float], missing: int) -> Report:
        vocabularies = {"device": CategoryCounts.of(pa.chunked_array([devices]), np.ones(len(devices), np.int64))}
        numbers = {"age": NumberCounts.of(pa.chunked_array([ages]))}
        return Report({Part("train", part, 2): None}, vocabularies, numbers, Counter(device=missing))

    one, two = report(0, ["tv", "tv"], [1.5, 1.5], 1), report(1, ["tv", *["web"] * 5], [1.5, 2.0], 0)
    there = merge.add_input(merge.add_input(merge.create_accumulator(), one), two)
    back = merge.merge_accumulators([merge.add_input(merge.create_accumulator(), two), merge.merge_accumulators([one])])
    for merged in (there, back):
        assert merged.vocabularies["device"].most_frequent(1)[0] == ("web", "tv")
        assert merged.vocabularies["device"].merged().table["count"].to_pylist() in ([3, 5], [5, 3])
        assert (merged.numbers["age"].values.tolist(), merged.numbers["age"].counts.tolist()) == ([1.5, 2.0], [3, 1])
        assert merged.missing == {"device": 1}
        assert len(merged.parts) == 2

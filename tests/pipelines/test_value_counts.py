"""Counts of distinct values against Counter and numpy, in any order of merging."""

from __future__ import annotations

from collections import Counter
from functools import reduce

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.value_counts import CategoryCounts, NumberCounts

# Beyond the basic plane too: the order of text is that of code points.
TEXT = st.text(st.sampled_from("abAZ09 é\uffee\U0001f600\n\r"), max_size=2)


def categories(values: list[str | None]) -> CategoryCounts:
    return CategoryCounts.of(pa.chunked_array([pa.array(values, pa.string())]), np.ones(len(values), np.int64))


def numbers(values: list[float] | np.ndarray) -> NumberCounts:
    return NumberCounts.of(pa.chunked_array([pa.array(values, pa.float64())]))


@given(st.lists(st.lists(st.none() | TEXT, max_size=12), max_size=8), st.integers(1, 4))
def test_vocabularies_equal_the_naive_double(parts, min_count):
    counts = Counter(value for part in parts for value in part if value is not None)
    whole = {value: count for value, count in counts.items() if "\n" not in value and "\r" not in value}
    kept = sorted((v for v in whole if whole[v] >= min_count), key=lambda value: (-whole[value], value))
    left_out = {"too_rare": len(whole) - len(kept), "with_newline": len(counts) - len(whole)}
    expected = tuple(kept), {"values": len(kept), **left_out}
    there = reduce(CategoryCounts.plus, map(categories, parts), CategoryCounts.none())
    back = reduce(lambda one, other: other.plus(one), map(categories, reversed(parts)), CategoryCounts.none())
    assert there.most_frequent(min_count) == expected
    assert back.most_frequent(min_count) == expected
    # What waits to be put together is bounded.
    assert there.table.num_rows <= 2 * max(len(counts), 1)


WORDS = st.lists(st.none() | st.lists(st.sampled_from("abc"), max_size=4), max_size=20)


@given(WORDS, st.data())
def test_values_of_shared_rows_count_for_each_impression(lists, data):
    times = [data.draw(st.integers(1, 3)) for _ in lists]

    def counted(column: pa.ChunkedArray) -> dict[str, int]:
        table = CategoryCounts.of(column, np.array(times, np.int64)).merged().table
        return dict(zip(table["value"].to_pylist(), table["count"].to_pylist(), strict=True))

    expected = Counter(word for words, number in zip(lists, times, strict=True) for word in (words or []) * number)
    kind = pa.list_(pa.string())
    assert counted(pa.chunked_array([pa.array(lists[:3], kind), pa.array(lists[3:], kind)])) == expected
    firsts = [words[0] if words else None for words in lists]
    first_counts: Counter[str] = Counter()
    for word, number in zip(firsts, times, strict=True):
        if word is not None:
            first_counts[word] += number
    assert counted(pa.chunked_array([pa.array(firsts, pa.string())])) == first_counts


def test_few_numbers_are_counted_exactly():
    values = np.random.default_rng(1).integers(0, 1000, 20_000) / 7
    counted = reduce(NumberCounts.plus, map(numbers, np.split(values, 10)), NumberCounts.none())
    expected, counts = np.unique(values.astype(np.float32), return_counts=True)
    assert counted.dropped == 0
    np.testing.assert_array_equal(counted.values, expected)
    np.testing.assert_array_equal(counted.counts, counts)
    # A quarter of the values each, exactly: no edge is rounded.
    assert counted.edges(4) == tuple(
        float(np.sort(values.astype(np.float32))[place]) for place in (5000, 10_000, 15_000)
    )


@given(st.lists(st.floats(-(2.0**60), 2.0**60, width=32), max_size=60), st.data())
def test_rounding_keeps_order_and_does_not_depend_on_the_order_of_merging(values, data):
    cut = data.draw(st.integers(0, len(values)))
    one, other = numbers(values[:cut]).rounded(8), numbers(values[cut:]).rounded(8)
    whole = numbers(values).rounded(8)
    for merged in (one.plus(other).rounded(8), other.plus(one).rounded(8)):
        assert (merged.dropped, len(merged.values) <= 8) == (whole.dropped, True)
        np.testing.assert_array_equal(merged.values, whole.values)
        np.testing.assert_array_equal(merged.counts, whole.counts)
    assert whole.counts.sum() == len(values)
    assert (np.diff(whole.values) > 0).all()
    ordered = np.sort(np.array(values, np.float32))
    rounded = np.repeat(whole.values, whole.counts)
    # A float32 has 23 bits behind its first; below the least normal one there are fewer.
    error = np.abs(ordered) * 2.0 ** (whole.dropped - 23) + 2.0 ** (whole.dropped - 149)
    assert (np.abs(rounded) <= np.abs(ordered)).all()
    assert (np.abs(rounded - ordered) <= error).all()


def test_buckets_hold_equal_counts():
    values = np.random.default_rng(2).lognormal(3, 2, size=200_000) * np.random.default_rng(3).choice([-1, 1], 200_000)
    counted = reduce(NumberCounts.plus, map(numbers, np.split(values, 8)), NumberCounts.none())
    assert len(counted.values) <= 1 << 16
    edges = counted.edges(16)
    assert len(edges) == 15
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=16)
    # A sixteenth each, but for the rounding of the edges.
    np.testing.assert_allclose(counts, 200_000 / 16, rtol=0.01)


@pytest.mark.parametrize(
    ("values", "edges"), [([0.0] * 90 + [1.0] * 5 + [2.0] * 5, (1.0,)), ([3.0] * 10, ()), ([], ()), ([-0.0, 0.0], ())]
)
def test_one_value_of_many_rows_is_one_bucket(values, edges):
    assert numbers(values).edges(4) == edges

"""Spans of moments against loops over all of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.timelines import Timeline, positions_of

KEYS = st.sampled_from(["a", "b", "c", "dd"])
TIMES = st.integers(0, 6)


@given(st.lists(st.tuples(KEYS, TIMES)), st.lists(st.tuples(KEYS | st.just("nobody"), TIMES)), st.booleans())
@settings(max_examples=200, deadline=None)
def test_spans_hold_the_moments_before_a_time(moments, questions, inclusive):
    keys = pa.chunked_array([[key for key, _ in moments[:3]], [key for key, _ in moments[3:]]], pa.string())
    times = np.array([time for _, time in moments], np.int64)
    ties = np.arange(len(moments))[::-1]
    timeline = Timeline.of(keys, times, ties)
    asked = pa.array([key for key, _ in questions], pa.string())
    start, stop = timeline.spans(asked, np.array([time for _, time in questions], np.int64), inclusive)
    assert len(start) == len(stop) == len(questions)
    for (key, time), first, end in zip(questions, start, stop, strict=True):
        before = [place for place, (k, t) in enumerate(moments) if k == key and (t < time or (inclusive and t == time))]
        assert timeline.order[first:end].tolist() == sorted(before, key=lambda place: (moments[place][1], -place))


@given(st.lists(st.tuples(KEYS, TIMES)))
def test_the_last_of_each_key_and_time(moments):
    keys = pa.chunked_array([[key for key, _ in moments]], pa.string())
    times = np.array([time for _, time in moments], np.int64)
    timeline = Timeline.of(keys, times, np.arange(len(moments)))
    kept = timeline.order[timeline.last_of_each()]
    assert sorted(kept.tolist()) == sorted({moment: place for place, moment in enumerate(moments)}.values())


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4))))
def test_positions_of_spans(spans):
    start = np.array([first for first, _ in spans], np.int64)
    sizes = np.array([size for _, size in spans], np.int64)
    expected = [place for first, size in spans for place in range(first, first + size)]
    assert positions_of(start, start + sizes).tolist() == expected

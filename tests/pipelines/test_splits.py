"""The plan of splits and parts, against counting by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import reduce

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from pipelines.splits import Part, Plan, TimeHistogram, draws, plan_parts
from tests.configs import small_config

TIMES = st.lists(st.integers(0, 1000), min_size=1, max_size=60)


def histogram(times: list[int], impressions: int = 1) -> TimeHistogram:
    array = np.array(times, np.int64)
    return TimeHistogram.of(np.zeros_like(array), array, np.full(len(array), impressions))


def part_of(plan: Plan, times: Sequence[int]) -> np.ndarray:
    """Of a plan whose splits are by time."""
    return plan.part_of(np.zeros(len(times), np.int64), np.array(times), np.zeros(len(times), np.int64))


def with_split(**split) -> Config:
    return parse_config({**small_config(), "split": split})


@given(TIMES, st.data())
def test_merging_in_any_order_is_one_histogram(times, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(times)), max_size=5)))
    pieces = [times[low:high] for low, high in zip([0, *cuts], [*cuts, len(times)], strict=True)]
    pieces = data.draw(st.permutations(pieces))
    merged = reduce(lambda one, other: TimeHistogram.merge([one, other]), map(histogram, pieces), TimeHistogram.empty())
    whole = histogram(times)
    for name in ("times", "requests", "impressions"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
    assert whole.requests.sum() == len(times)


@given(TIMES, st.data())
def test_a_coarse_grid_does_not_depend_on_the_order(times, data):
    cut = data.draw(st.integers(0, len(times)))
    parts = [histogram(times[:cut]).compacted(8), histogram(times[cut:]).compacted(8)]
    coarse, whole = TimeHistogram.merge(parts).compacted(8), histogram(times).compacted(8)
    assert len(coarse.times) <= 8
    assert coarse.shift == whole.shift
    np.testing.assert_array_equal(coarse.times, whole.times)
    np.testing.assert_array_equal(coarse.requests, whole.requests)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ({"validation": 0.1, "test": 0.1}, [8, 1, 1]),
        ({"validation": 0.0, "test": 0.3}, [7, 0, 3]),
        ({"validation": 0.3, "test": 0.0}, [7, 3, 0]),
        ({"validation": 0.0, "test": 0.0}, [10, 0, 0]),
    ],
)
def test_shares_of_requests_in_order_of_time(split, expected):
    plan = plan_parts(with_split(**split), None, histogram(list(range(100, 0, -10))))
    places = part_of(plan, range(10, 101, 10))
    splits = [plan.parts[place].split for place in places]
    assert [splits.count(name) for name in ("train", "validation", "test")] == expected
    assert splits == sorted(splits, key=["train", "validation", "test"].index)


def test_requests_of_one_time_stay_together():
    plan = plan_parts(with_split(validation=0.2, test=0.2), None, histogram([1, 2, 3, 3, 3, 3, 3, 3, 3, 9]))
    splits = [plan.parts[place].split for place in part_of(plan, [1, 2, 3, 9])]
    # 6 and 8 requests are wanted before the bounds; 2 or 9 can be had.
    assert splits == ["train", "train", "train", "test"]


def test_a_log_of_one_time_is_all_for_training():
    plan = plan_parts(with_split(), None, histogram([5] * 10))
    assert [part.split for part in plan.parts] == ["train"]


@given(TIMES, st.integers(1, 12))
def test_parts_are_about_equal_and_in_order(times, shards):
    config = with_split(validation=0.0, test=0.0)
    plan = plan_parts(config, shards, histogram(times, impressions=3))
    places = part_of(plan, sorted(times))
    assert places.min() == 0
    assert set(places) == set(range(len(plan.parts)))
    assert (np.diff(places) >= 0).all()
    assert len(plan.parts) <= shards
    assert [part.index for part in plan.parts] == list(range(len(plan.parts)))
    assert {part.count for part in plan.parts} == {len(plan.parts)}
    most_of_a_time = max(times.count(time) for time in times)
    assert np.bincount(places).max() <= len(times) / shards + most_of_a_time


def test_parts_by_size(monkeypatch):
    monkeypatch.setattr("pipelines.splits.PART_EXAMPLES", 100)
    plan = plan_parts(with_split(validation=0.1, test=0.1), None, histogram(list(range(100)), impressions=10))
    assert [part.split for part in plan.parts] == ["train"] * 8 + ["validation", "test"]
    assert plan.parts[3].path == "train/part-00003-of-00008.tfrecord.gz"


def test_a_day_of_one_time_is_cut_by_the_hash_of_its_requests():
    requests = pa.table({"_request": [f"r{number}" for number in range(40_000)]})
    days = np.repeat(np.array([3, 4, 5], np.int64) * 86_400_000_000, [10_000, 29_000, 1_000])
    drawn, zeros = draws(requests), np.zeros(40_000, np.int64)
    whole = TimeHistogram.of(zeros, days, np.full(40_000, 2))
    plan = plan_parts(with_split(validation=0.0, test=0.0), 8, whole)
    places = plan.part_of(zeros, days, drawn)
    # A part is an eighth, but for chance and the 256 draws that a time is cut by.
    np.testing.assert_allclose(np.bincount(places), np.full(8, 5_000), rtol=0.06)
    for earlier, later in itertools.pairwise(range(8)):
        assert days[places == earlier].max() <= days[places == later].min()


def test_few_requests_of_one_time_are_not_cut():
    one = TimeHistogram.of(np.zeros(1, np.int64), np.array([7]), np.array([100_000]))
    assert len(plan_parts(with_split(validation=0.0, test=0.0), 8, one).parts) == 1


def test_nothing_to_plan():
    plan = plan_parts(with_split(), None, TimeHistogram.empty())
    assert plan.parts == ()
    assert Part("test", 0, 1).path == "test/part-00000-of-00001.tfrecord.gz"

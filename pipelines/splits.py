"""Where the splits and their parts begin in time: an exact plan from the histogram of request times.

The histogram is mergeable in any order. It is exact as long as there are at most `MAX_TIMES` distinct times; beyond
that, times are rounded down to a coarser grid, the same whatever the order of merging, because the grid depends on the
total alone: if a part of the data is too much for a grid, so is the whole.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Iterable

import apache_beam as beam
import numpy as np

from mmoe_ranker.config import Config

SPLITS: tuple[str, ...] = ("train", "validation", "test")
MAX_TIMES = 1 << 22
PART_EXAMPLES = 1 << 16
_NEVER = np.iinfo(np.int64).max


@dataclasses.dataclass(frozen=True)
class TimeHistogram:
    """Requests and impressions by request time, ascending; times are multiples of 2 ** `shift` microseconds."""

    shift: int
    times: np.ndarray
    requests: np.ndarray
    impressions: np.ndarray

    @classmethod
    def empty(cls) -> TimeHistogram:
        """No requests."""
        return cls(0, *(np.zeros(0, np.int64),) * 3)

    @classmethod
    def of(cls, times: np.ndarray, impressions: np.ndarray) -> TimeHistogram:
        """Of requests by their times [R] and numbers of impressions [R]."""
        return cls(0, times, np.ones_like(times), impressions).compacted()

    @classmethod
    def merge(cls, histograms: Iterable[TimeHistogram]) -> TimeHistogram:
        """The sum, on the coarsest grid among them."""
        many = list(histograms)
        if not many:
            return cls.empty()
        joined = [np.concatenate([getattr(one, name) for one in many]) for name in ("times", "requests", "impressions")]
        return cls(max(one.shift for one in many), *joined).compacted()

    def compacted(self, max_times: int = MAX_TIMES) -> TimeHistogram:
        """One entry a time, on the finest grid from `shift` on that needs at most `max_times` of them."""
        shift = self.shift
        while True:
            times, place = np.unique(self.times >> shift << shift, return_inverse=True)
            if len(times) <= max_times:
                break
            shift += 1
        requests, impressions = np.zeros_like(times), np.zeros_like(times)
        np.add.at(requests, place, self.requests)
        np.add.at(impressions, place, self.impressions)
        return TimeHistogram(shift, times, requests, impressions)


class MergeHistograms(beam.CombineFn):
    """TimeHistograms to their sum."""

    def create_accumulator(self) -> list[TimeHistogram]:
        """Nothing yet."""
        return []

    def add_input(self, accumulator: list[TimeHistogram], element: TimeHistogram) -> list[TimeHistogram]:
        """Merges now and then: each merge sorts."""
        accumulator.append(element)
        return [TimeHistogram.merge(accumulator)] if len(accumulator) >= 16 else accumulator

    def merge_accumulators(self, accumulators: Iterable[list[TimeHistogram]]) -> list[TimeHistogram]:
        """All into one."""
        return [TimeHistogram.merge(one for many in accumulators for one in many)]

    def extract_output(self, accumulator: list[TimeHistogram]) -> TimeHistogram:
        """The sum."""
        return TimeHistogram.merge(accumulator)


@dataclasses.dataclass(frozen=True)
class Part:
    """One file of examples: part `index` of the `count` of its split."""

    split: str
    index: int
    count: int

    @property
    def path(self) -> str:
        """Where it lies in the output folder."""
        return f"{self.split}/part-{self.index:05d}-of-{self.count:05d}.tfrecord.gz"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Parts in order of time; a request of time t belongs to the last part that starts at or before t."""

    starts: np.ndarray
    parts: tuple[Part, ...]

    def part_of(self, times: np.ndarray) -> np.ndarray:
        """The part's place in `parts` for each request time."""
        return np.searchsorted(self.starts, times, side="right") - 1


def plan_parts(config: Config, num_shards: int | None, histogram: TimeHistogram) -> Plan:
    """Cuts the log into splits and the splits into parts of about equal numbers of examples.

    Args:
      config: `split` says where the splits begin.
      num_shards: parts in all, at least one a split that is not empty; None: one for `PART_EXAMPLES` examples.
      histogram: of all requests.
    """
    bounds = _split_bounds(config, histogram)
    total = int(histogram.impressions.sum())
    starts: list[int] = []
    parts: list[Part] = []
    for split, low, high in zip(SPLITS, [-_NEVER, *bounds], [*bounds, _NEVER], strict=True):
        inside = (histogram.times >= low) & (histogram.times < high)
        examples = int(histogram.impressions[inside].sum())
        if not examples:
            continue
        wanted = examples / PART_EXAMPLES if num_shards is None else examples / total * num_shards
        cuts = _cuts(histogram.times[inside], histogram.impressions[inside], max(1, round(wanted)))
        starts += cuts
        parts += [Part(split, index, len(cuts)) for index in range(len(cuts))]
    return Plan(np.array(starts, np.int64), tuple(parts))


def _split_bounds(config: Config, histogram: TimeHistogram) -> tuple[int, int]:
    """The times at which validation and test begin."""
    split = config.split
    if split.validation_start is not None and split.test_start is not None:
        return _micros(split.validation_start), _micros(split.test_start)
    # Requests of one time stay together: a bound stands where the number of requests before it is nearest to its share.
    before = np.concatenate([[0], np.cumsum(histogram.requests)])
    times = np.concatenate([histogram.times, [_NEVER]])
    bounds = []
    for share in (1 - split.test - split.validation, 1 - split.test):
        # The shares are decimal fractions: 0.8 of 10 is 8, whatever its binary digits say.
        goal = math.ceil(round(int(before[-1]) * share, 6))
        bounds.append(int(times[np.argmin(np.abs(before - goal))]))
    return bounds[0], bounds[1]


def _micros(time: datetime.datetime) -> int:
    return (time - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(microseconds=1)


def _cuts(times: np.ndarray, impressions: np.ndarray, count: int) -> list[int]:
    """The times at which `count` parts of about equal size begin; fewer where requests of one time are that many."""
    before = np.cumsum(impressions) - impressions
    goals = np.arange(count) * impressions.sum() / count
    places = np.searchsorted(before, goals, side="left")
    return [int(times[place]) for place in np.unique(places) if place < len(times)]

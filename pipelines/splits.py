"""Where the splits and their parts begin in time: an exact plan from the histogram of request times.

Splits follow each other in time, or are drawn by a hash of a context feature (`split.by`), so that all of a user's
requests are in one. Parts inside a split are in order of time either way; among requests of one time that are too many
for a part, in order of a hash.

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
import pyarrow as pa
import pyarrow.compute as pc

from mmoe_ranker.config import Config
from pipelines.batches import ImpressionBatch, hashes

SPLITS: tuple[str, ...] = ("train", "validation", "test")
MAX_TIMES = 1 << 22
PART_EXAMPLES = 1 << 16
_NEVER = np.iinfo(np.int64).max
# A place in the order of the log is one integer: the hashed split, above the time, above the draw of the request.
_SPLIT_BIT = 60
_DRAW_BITS = 8
_FEWEST_REQUESTS = 16
"""Requests of one time that a part must hold on average, so that chance leaves none empty."""


def hashed_split(config: Config, contexts: pa.Table) -> np.ndarray:
    """The place in `SPLITS` of each context row [R] by hash of its feature `split.by`; 0 where splits are by time.

    A number from 0 to 1, of the hash of the value as a string, lies in the share of train, validation or test, in this
    order: the same for any run, machine and log. A record without the feature goes by its request id.
    """
    split = config.split
    if split.by is None:
        return np.zeros(contexts.num_rows, np.int64)
    values = pc.coalesce(contexts[split.by].cast(pa.string()), contexts["_request"])
    chance = (hashes(values) >> np.uint64(11)) * 2.0**-53
    return np.searchsorted([1 - split.test - split.validation, 1 - split.test], chance, side="right")


def draws(contexts: pa.Table) -> np.ndarray:
    """A number from 0 to 255 of each context row's request [R], by which requests of one time are told apart."""
    # Other bits than those by which buckets and splits are chosen.
    return ((hashes(contexts["_request"]) >> np.uint64(32)) % np.uint64(1 << _DRAW_BITS)).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class TimeHistogram:
    """Requests and impressions by hashed split and request time, ascending.

    Times are multiples of 2 ** `shift` microseconds; `splits` is 0 throughout where splits are by time.
    """

    shift: int
    splits: np.ndarray
    times: np.ndarray
    requests: np.ndarray
    impressions: np.ndarray

    @classmethod
    def empty(cls) -> TimeHistogram:
        """No requests."""
        return cls(0, *(np.zeros(0, np.int64),) * 4)

    @classmethod
    def of(cls, splits: np.ndarray, times: np.ndarray, impressions: np.ndarray) -> TimeHistogram:
        """Of requests by their hashed splits [R], times [R] and numbers of impressions [R]."""
        return cls(0, splits, times, np.ones_like(times), impressions).compacted()

    @classmethod
    def of_batch(cls, config: Config, batch: ImpressionBatch) -> TimeHistogram:
        """Of the requests of a joined batch; one whose records have different users may count in several splits."""
        contexts, row = batch.contexts, batch.impressions["_row"].to_numpy()
        requests = contexts["_request"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
        splits = hashed_split(config, contexts)
        _, first, place = np.unique(requests * len(SPLITS) + splits, return_index=True, return_inverse=True)
        impressions = np.bincount(place[row], minlength=len(first)).astype(np.int64)
        return cls.of(splits[first], contexts["_time"].to_numpy()[first], impressions)

    @classmethod
    def merge(cls, histograms: Iterable[TimeHistogram]) -> TimeHistogram:
        """The sum, on the coarsest grid among them."""
        many = list(histograms)
        if not many:
            return cls.empty()
        columns = ("splits", "times", "requests", "impressions")
        joined = [np.concatenate([getattr(one, name) for one in many]) for name in columns]
        return cls(max(one.shift for one in many), *joined).compacted()

    def compacted(self, max_times: int = MAX_TIMES) -> TimeHistogram:
        """One entry a split and time, on the finest grid from `shift` on that needs at most `max_times` of them."""
        shift = self.shift
        while True:
            # Times of this century leave room for the split above them.
            keys, place = np.unique((self.splits << _SPLIT_BIT) + (self.times >> shift << shift), return_inverse=True)
            if len(keys) <= max_times:
                break
            shift += 1
        requests, impressions = np.zeros_like(keys), np.zeros_like(keys)
        np.add.at(requests, place, self.requests)
        np.add.at(impressions, place, self.impressions)
        splits = keys >> _SPLIT_BIT
        return TimeHistogram(shift, splits, keys - (splits << _SPLIT_BIT), requests, impressions)


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
    """Parts in order of hashed split, time, and draw of the request; `starts` are where they begin in that order."""

    starts: np.ndarray
    parts: tuple[Part, ...]

    def part_of(self, splits: np.ndarray, times: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """The part's place in `parts` for each request, by its hashed split, time and draw."""
        return np.searchsorted(self.starts, _order(splits, times, drawn), side="right") - 1


def _order(splits: np.ndarray | int, times: np.ndarray, drawn: np.ndarray | int) -> np.ndarray:
    # Microseconds of this century, times 2 ** 8, are less than 2 ** 60.
    return (splits << _SPLIT_BIT) + (times << _DRAW_BITS) + drawn


def plan_parts(config: Config, num_shards: int | None, histogram: TimeHistogram) -> Plan:
    """Cuts the log into splits and the splits into parts of about equal numbers of examples.

    Args:
      config: `split` says where the splits begin.
      num_shards: parts in all, at least one a split that is not empty; None: one for `PART_EXAMPLES` examples.
      histogram: of all requests.
    """
    place = histogram.splits
    if config.split.by is None:
        place = np.searchsorted(_split_bounds(config, histogram), histogram.times, side="right")
    total = int(histogram.impressions.sum())
    starts: list[np.ndarray] = [np.zeros(0, np.int64)]
    parts: list[Part] = []
    for number, split in enumerate(SPLITS):
        inside = place == number
        examples = int(histogram.impressions[inside].sum())
        if not examples:
            continue
        wanted = examples / PART_EXAMPLES if num_shards is None else examples / total * num_shards
        times, drawn = _cuts(histogram, inside, max(1, round(wanted)))
        starts.append(_order(0 if config.split.by is None else number, times, drawn))
        parts += [Part(split, index, len(times)) for index in range(len(times))]
    return Plan(np.concatenate(starts), tuple(parts))


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


def _cuts(histogram: TimeHistogram, inside: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The times, and draws, at which `count` parts of about equal size begin.

    A part begins with the first time that its share of the examples lies before. Where more requests are of one time
    than fill a part, as in logs that know the day alone, it begins inside that time, by the draws of the requests.
    """
    times, requests, impressions = (
        column[inside] for column in (histogram.times, histogram.requests, histogram.impressions)
    )
    size = impressions.sum() / count
    before = np.cumsum(impressions) - impressions
    goals = np.arange(count) * size
    holding = np.searchsorted(before, goals, side="right") - 1
    crowded = (impressions > size) & (requests * size >= _FEWEST_REQUESTS * impressions)
    within = ((goals - before[holding]) / impressions[holding] * (1 << _DRAW_BITS)).astype(np.int64)
    following = np.searchsorted(before, goals, side="left")
    there = crowded[holding] | (following < len(times))
    place = np.where(crowded[holding], holding, following)[there]
    drawn = np.where(crowded[holding], within, 0)[there]
    starts = np.unique(_order(0, times[place], drawn))
    return starts >> _DRAW_BITS, starts & ((1 << _DRAW_BITS) - 1)

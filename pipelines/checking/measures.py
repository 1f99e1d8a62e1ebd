"""What `check` measures of the joined logs: integers, part by part, that merge to the same in any order.

Each tally has the columns of `count_columns`: impressions by split, then by objective and half of the requests (a hash
of the request's id says which) the labelled impressions and the sum of their labels. So one pass gives coverage,
drift, rates by value, and rates on one half that can be tried on the other.

Labels of regression objectives enter as sign(y) log(1 + |y|) in units of 2^-16: integers add up in any order, and the
logarithm keeps one large label from being the whole sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import apache_beam as beam
import numpy as np

from mmoe_ranker.position_bias.overlap import PositionOverlap
from pipelines.checking.tallies import Tally
from pipelines.splits import SPLITS

HALVES = 2
LABEL_UNIT = 2.0**-16


def count_columns(split: str, half: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What each impression adds to a tally.

    Args:
      split: of all of them.
      half: [I], 0 or 1.
      labels: float [I, T], NaN where missing; in the units above.

    Returns:
      int64 [I, 3 + 4 T]; see `impressions_of` and `labels_of`.
    """
    columns = np.zeros((len(half), len(SPLITS) + 2 * HALVES * labels.shape[1]), np.int64)
    columns[:, SPLITS.index(split)] = 1
    for objective, label in enumerate(labels.T):
        there = ~np.isnan(label)
        for side in range(HALVES):
            first = len(SPLITS) + 2 * (HALVES * objective + side)
            columns[:, first] = there & (half == side)
            columns[:, first + 1] = np.where(columns[:, first] == 1, label, 0.0)
    return columns


def impressions_of(counts: np.ndarray) -> np.ndarray:
    """Impressions by split: [..., 3] of [..., C]."""
    return counts[..., : len(SPLITS)]


def labels_of(counts: np.ndarray) -> np.ndarray:
    """Labelled impressions and sums of labels by objective and half: [..., T, 2, 2] of [..., C]."""
    objectives = (counts.shape[-1] - len(SPLITS)) // (2 * HALVES)
    return counts[..., len(SPLITS) :].reshape(*counts.shape[:-1], objectives, HALVES, 2)


@dataclasses.dataclass(frozen=True)
class SplitRows:
    """Impressions and requests of a split, and its first and last request time in UTC microseconds."""

    examples: int
    requests: int
    first_time: int
    last_time: int

    @classmethod
    def merge(cls, many: Iterable[SplitRows]) -> SplitRows:
        """Of all together; no request stands in two of them."""
        rows = list(many)
        return cls(
            sum(one.examples for one in rows),
            sum(one.requests for one in rows),
            min(one.first_time for one in rows),
            max(one.last_time for one in rows),
        )


@dataclasses.dataclass(frozen=True)
class Measures:
    """Of any number of parts; V is the size of a vector, T the number of objectives.

    Attributes:
      splits: rows by split.
      tallies: by feature and aspect: `value`; of a sequence `elements` (impressions by split alone), `length`, and
        `item` (whether the candidate stands in it); of a vector `norm`.
      crosses: by the names of the features crossed; and `("position",)`, where position is no feature.
      labels: of each regression objective the labels themselves, impressions by split alone.
      times: request times, in microseconds.
      days: request days, in days since 1970; times may be on a grid, which would move some over midnight.
      totals: int64 [3, 2, T, 3]: by split, half and objective, labelled impressions, sum and sum of squares of labels.
      extremes: by vector feature, least and greatest value of each of its numbers, [2, V].
      overlap: of items over positions.
    """

    splits: dict[str, SplitRows]
    tallies: dict[tuple[str, str], Tally]
    crosses: dict[tuple[str, ...], Tally]
    labels: dict[str, Tally]
    times: Tally
    days: Tally
    totals: np.ndarray
    extremes: dict[str, np.ndarray]
    overlap: PositionOverlap

    @classmethod
    def merge(cls, measures: Iterable[Measures]) -> Measures:
        """Of all together."""
        many = list(measures)
        vectors = dict.fromkeys(name for one in many for name in one.extremes)
        extremes = {name: np.stack([one.extremes[name] for one in many if name in one.extremes]) for name in vectors}
        return cls(
            splits={
                split: SplitRows.merge(one.splits[split] for one in many if split in one.splits)
                for split in SPLITS
                if any(split in one.splits for one in many)
            },
            tallies={key: Tally.merge(one.tallies[key] for one in many) for key in many[0].tallies},
            crosses={key: Tally.merge(one.crosses[key] for one in many) for key in many[0].crosses},
            labels={key: Tally.merge(one.labels[key] for one in many) for key in many[0].labels},
            times=Tally.merge(one.times for one in many),
            days=Tally.merge(one.days for one in many),
            totals=np.sum([one.totals for one in many], axis=0),
            extremes={name: np.stack([both[:, 0].min(0), both[:, 1].max(0)]) for name, both in extremes.items()},
            overlap=PositionOverlap.merge(one.overlap for one in many),
        )


class MergeMeasures(beam.CombineFn):
    """Measures to those of all together; None where there are none."""

    def create_accumulator(self) -> list[Measures]:
        """Nothing yet."""
        return []

    def add_input(self, accumulator: list[Measures], element: Measures) -> list[Measures]:
        """Merges now and then: each merge sorts."""
        accumulator.append(element)
        return [Measures.merge(accumulator)] if len(accumulator) >= 8 else accumulator

    def merge_accumulators(self, accumulators: Iterable[list[Measures]]) -> list[Measures]:
        """All into one."""
        many = [one for several in accumulators for one in several]
        return [Measures.merge(many)] if many else []

    def extract_output(self, accumulator: list[Measures]) -> Measures | None:
        """The sum."""
        return Measures.merge(accumulator) if accumulator else None

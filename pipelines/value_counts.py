"""Counts of distinct values that add up in any order: categories for vocabularies, numbers for quantiles.

Categories are counted exactly, so memory grows with the number of distinct values (some 200 bytes each at the peak, in
the one process that adds them up): a sketch of bounded size depends on the order of merging, or errs in the counts that
`min_count` cuts by. A feature of hundreds of millions of values is hashed (`buckets`), which is not counted at all.

Numbers are counted exactly as long as there are at most `MAX_NUMBERS` distinct ones. Beyond that they are rounded
towards 0 to the most significant bits that need no more, the same whatever the order of merging: if a part of the data
is too much for a number of bits, so is the whole.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MAX_NUMBERS = 1 << 16
_CATEGORIES = pa.schema([("value", pa.string()), ("count", pa.int64())])


@dataclasses.dataclass(frozen=True)
class CategoryCounts:
    """Categories with their counts; a value may stand in several rows of `table` (value, count), which add up.

    `distinct` is the number of rows when each value last stood once.
    """

    table: pa.Table
    distinct: int

    @classmethod
    def of(cls, column: pa.ChunkedArray, times: np.ndarray) -> CategoryCounts:
        """Of a column of strings or of lists of them, row i counting `times[i]`; missing ones are left out."""
        values = column.combine_chunks()
        if pa.types.is_list(values.type):
            times = np.repeat(times, pc.list_value_length(values).fill_null(0).to_numpy())
            values = values.flatten()
        encoded = values.dictionary_encode()
        there = encoded.is_valid().to_numpy(zero_copy_only=False)
        codes = encoded.indices.drop_null().to_numpy()
        # Sums of integers below 2^53 are exact in the floats that bincount adds up.
        counts = np.bincount(codes, weights=times[there], minlength=len(encoded.dictionary)).astype(np.int64)
        return cls(pa.Table.from_arrays([encoded.dictionary, pa.array(counts)], schema=_CATEGORIES), len(counts))

    @classmethod
    def none(cls) -> CategoryCounts:
        """Of nothing."""
        return cls(_CATEGORIES.empty_table(), 0)

    def plus(self, other: CategoryCounts) -> CategoryCounts:
        """The sum; rows are put together only when they have doubled, so that each is touched a few times in all."""
        both = CategoryCounts(pa.concat_tables([self.table, other.table]), max(self.distinct, other.distinct))
        return both.merged() if both.table.num_rows > 2 * both.distinct else both

    def merged(self) -> CategoryCounts:
        """Each value in one row."""
        table = self.table.group_by("value", use_threads=False).aggregate([("count", "sum")])
        table = table.select(["value", "count_sum"]).rename_columns(["value", "count"])
        return CategoryCounts(table, table.num_rows)

    def most_frequent(self, min_count: int) -> tuple[tuple[str, ...], dict[str, int]]:
        """The values of at least `min_count`, most frequent first, then in order of their text; and how many were not.

        A vocabulary file holds a value a line, so values with a newline are left out too.
        """
        table = self.merged().table
        broken = pc.match_substring_regex(table["value"], "[\\r\\n]")
        whole = table.filter(pc.invert(broken))
        kept = whole.filter(pc.greater_equal(whole["count"], min_count))
        kept = kept.sort_by([("count", "descending"), ("value", "ascending")])
        left_out = {"too_rare": whole.num_rows - kept.num_rows, "with_newline": table.num_rows - whole.num_rows}
        return tuple(kept["value"].to_pylist()), {"values": kept.num_rows, **left_out}


@dataclasses.dataclass(frozen=True)
class NumberCounts:
    """Float32 values [V] without their `dropped` last bits, each once, rising; and their counts [V]."""

    dropped: int
    values: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> NumberCounts:
        """Of a column of numbers, missing ones left out."""
        values = column.drop_null().cast(pa.float32(), safe=False).to_numpy()
        return cls(0, values, np.ones(len(values), np.int64)).rounded()

    @classmethod
    def none(cls) -> NumberCounts:
        """Of nothing."""
        return cls(0, np.zeros(0, np.float32), np.zeros(0, np.int64))

    def plus(self, other: NumberCounts) -> NumberCounts:
        """The sum."""
        values, counts = np.concatenate([self.values, other.values]), np.concatenate([self.counts, other.counts])
        return NumberCounts(max(self.dropped, other.dropped), values, counts).rounded()

    def rounded(self, max_numbers: int = MAX_NUMBERS) -> NumberCounts:
        """Each value once, with the fewest bits dropped, from `dropped` on, that leave at most `max_numbers`."""
        dropped = self.dropped
        bits = self.values.view(np.uint32)
        while True:
            # Adding 0 makes one zero of two.
            cut = (bits >> dropped << dropped).view(np.float32) + np.float32(0.0)
            distinct, place = np.unique(cut, return_inverse=True)
            if len(distinct) <= max_numbers:
                break
            dropped += 1
        counts = np.zeros(len(distinct), np.int64)
        np.add.at(counts, place, self.counts)
        return NumberCounts(dropped, distinct, counts)

    def edges(self, buckets: int) -> tuple[float, ...]:
        """The inner edges of buckets of equal counts; fewer where one value fills several buckets."""
        values, cumulative = self.values, np.cumsum(self.counts)
        wanted = np.arange(1, buckets) * (cumulative[-1] / buckets) if len(values) else np.empty(0)
        # Nothing lies below the least value; where it fills buckets of its own, the next one is the edge.
        places = np.unique(np.maximum(np.searchsorted(cumulative, wanted, side="right"), 1))
        return tuple(values[places[places < len(values)]].tolist())

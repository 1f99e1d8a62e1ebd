"""Counts by value, in bounded memory, the same in whatever order they are merged.

A tally holds one row a key and one column a thing that is counted, all integers. When there are more keys than its
limit it gives up resolution by powers of two, and how much depends on the whole alone, as if what a part holds is too
much, so is the whole:

  categories  the key is a hash of the value; of too many, those stay whose hash begins with `level` zero bits. That
              is a fair sample of the values, each with its exact counts; `distinct` and shares are estimates then.
  numbers     the key keeps the order of the numbers; of too many, its last `level` bits are set to 0, so that
              neighbours are counted together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa

MAX_CATEGORIES = 1 << 16
MAX_NUMBERS = 1 << 13
DAY = 86_400_000_000  # Microseconds.
_SIGN = np.uint32(1 << 31)


@dataclasses.dataclass(frozen=True)
class Tally:
    """Counts by key.

    Attributes:
      kind: what a key is.
      level: 0 as long as nothing was given up.
      keys: uint64 [K], ascending.
      counts: int64 [K, C].
      names: [K], the values as text, of categories; None for numbers.
      missing: int64 [C], of the rows without a value.
    """

    kind: Literal["categories", "numbers"]
    level: int
    keys: np.ndarray
    counts: np.ndarray
    names: np.ndarray | None
    missing: np.ndarray

    @classmethod
    def of_categories(cls, values: pa.Array | pa.ChunkedArray, weights: np.ndarray) -> Tally:
        """Tallies strings, integers or booleans.

        Args:
          values: [N], null where missing.
          weights: int64 [N, C], what each row adds.
        """
        encoded = _whole(values).dictionary_encode()
        names = encoded.dictionary.cast(pa.string()).to_numpy(zero_copy_only=False).astype(object)
        keys = pd.util.hash_array(names, categorize=False) if len(names) else np.zeros(0, np.uint64)
        codes = encoded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
        sums = sum_by(codes, weights, len(names) + 1)
        return _compacted("categories", 0, keys, sums[:-1], names, sums[-1])

    @classmethod
    def of_numbers(cls, values: np.ndarray, weights: np.ndarray) -> Tally:
        """Tallies numbers as float32; arguments as for categories, NaN where missing."""
        there = ~np.isnan(values)
        keys = ordered_bits(values[there])
        return _compacted("numbers", 0, keys, weights[there], None, weights[~there].sum(axis=0))

    @classmethod
    def of_times(cls, times: np.ndarray, weights: np.ndarray) -> Tally:
        """Tallies times [N], none missing: a tally of numbers whose keys are the times as they are."""
        return _compacted("numbers", 0, times.astype(np.uint64), weights, None, np.zeros(weights.shape[1], np.int64))

    @classmethod
    def merge(cls, tallies: Iterable[Tally]) -> Tally:
        """The sum, at the coarsest level among them or beyond."""
        many = list(tallies)
        if len(many) == 1:
            return many[0]
        names = None if many[0].names is None else np.concatenate([one.names for one in many])
        return _compacted(
            many[0].kind,
            max(one.level for one in many),
            np.concatenate([one.keys for one in many]),
            np.concatenate([one.counts for one in many]),
            names,
            np.sum([one.missing for one in many], axis=0),
        )

    @property
    def distinct(self) -> int:
        """How many values there are; of categories at a level above 0, an estimate (see `relative_error`)."""
        return len(self.keys) << self.level if self.kind == "categories" else len(self.keys)

    @property
    def relative_error(self) -> float:
        """Three standard deviations of `distinct` over it; 0 where it is exact.

        Each value stays with probability p = 2^-level, so that the number that stay is binomial: sqrt((1 - p) / K).
        """
        if self.kind == "numbers" or not self.level or not len(self.keys):
            return 0.0
        return 3.0 * float(np.sqrt((1.0 - 2.0**-self.level) / len(self.keys)))

    @property
    def numbers(self) -> np.ndarray:
        """The numbers [K] that the keys stand for: of each group the one nearest to minus infinity."""
        return numbers_of(self.keys)


def sum_by(codes: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Sums of the rows of `weights` [N, C] by code: [size, C]."""
    if weights.shape[0] == 0:
        return np.zeros((size, weights.shape[1]), np.int64)
    # Sums of integers below 2^53 are exact in doubles.
    columns = [np.bincount(codes, weights=column, minlength=size) for column in weights.T]
    return np.stack(columns, axis=1).astype(np.int64)


def among(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which integers [N] occur in `others` [M]; `np.isin` hashes, badly where they differ in few bits."""
    ordered = np.sort(others)
    places = np.searchsorted(ordered, values)
    return ordered[np.minimum(places, len(ordered) - 1)] == values if len(ordered) else np.zeros(len(values), bool)


def ordered_bits(values: np.ndarray) -> np.ndarray:
    """Integers, uint64 [N], that stand in the order of the float32 values [N]; one for both zeros."""
    bits = (values.astype(np.float32) + np.float32(0.0)).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN).astype(np.uint64)


def numbers_of(keys: np.ndarray) -> np.ndarray:
    """What `ordered_bits` was given, as float64 [N]."""
    bits = keys.astype(np.uint32)
    return np.where(bits & _SIGN, bits ^ _SIGN, ~bits).astype(np.uint32).view(np.float32).astype(np.float64)


def _compacted(
    kind: Literal["categories", "numbers"],
    level: int,
    keys: np.ndarray,
    counts: np.ndarray,
    names: np.ndarray | None,
    missing: np.ndarray,
) -> Tally:
    limit = MAX_CATEGORIES if kind == "categories" else MAX_NUMBERS
    while True:
        if kind == "categories":
            # A shift by 64 is not defined.
            stay = keys >> np.uint64(64 - level) == 0 if level else np.ones(len(keys), bool)
            keys, counts = keys[stay], counts[stay]
            names = names[stay] if names is not None else None
        else:
            keys = keys >> np.uint64(level) << np.uint64(level)
        distinct, first, place = np.unique(keys, return_index=True, return_inverse=True)
        if len(distinct) <= limit:
            break
        level += 1
    kept = names[first] if names is not None else None
    return Tally(kind, level, distinct, sum_by(place, counts, len(distinct)), kept, missing.astype(np.int64))


def _whole(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole

"""What was known of many keys before many times at once: one sort, then binary searches, no loop over keys.

A moment is a key at a time. Moments are ordered by key, then time, so that those of one key before one time stand side
by side: a span of positions.

Shapes: n moments, q questions.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Moments in order of key and time.

    Attributes:
      order: int64 [n], where each moment stood before they were ordered.
      keys: the distinct keys, strings.
      times: int64, the distinct times, ascending.
      places: int64 [n], ascending: `key's number * (times + 1) + rank of the time`.
    """

    order: np.ndarray
    keys: pa.Array
    times: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, keys: pa.ChunkedArray, times: np.ndarray, ties: np.ndarray) -> Timeline:
        """Orders moments.

        Args:
          keys: strings [n].
          times: int64 [n].
          ties: [n], the order of moments of one key and time.
        """
        encoded = keys.combine_chunks().dictionary_encode()
        distinct, rank = np.unique(times, return_inverse=True)
        places = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64) * (len(distinct) + 1) + rank
        order = np.lexsort((ties, places))
        return cls(order, encoded.dictionary, distinct, places[order])

    def spans(self, keys: pa.Array, times: np.ndarray, inclusive: bool) -> tuple[np.ndarray, np.ndarray]:
        """Where the moments of each question's key before its time stand.

        Args:
          keys: strings [q].
          times: int64 [q].
          inclusive: whether a moment of that very time counts.

        Returns:
          The first position of each span and the one behind its last, int64 [q] each; equal where there is none.
        """
        number = pc.index_in(keys, value_set=self.keys)
        known = number.is_valid().to_numpy(zero_copy_only=False)
        first = number.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64) * (len(self.times) + 1)
        before = np.searchsorted(self.times, times, side="right" if inclusive else "left")
        start = np.searchsorted(self.places, first)
        stop = np.searchsorted(self.places, first + before)
        return start, np.where(known, stop, start)

    def last_of_each(self) -> np.ndarray:
        """Of the moments of one key and time the last: booleans [n]."""
        last = np.ones(len(self.places), bool)
        last[:-1] = self.places[1:] != self.places[:-1]
        return last


def positions_of(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """The positions of all spans, span after span: start, start + 1, ..., stop - 1 of each."""
    sizes = stop - start
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(start - (ends - sizes), sizes)

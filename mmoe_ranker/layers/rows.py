"""From values of a category to rows of its embedding table; row 0 is always "missing".

These hold no weights, so the input pipeline applies them beside the processor that trains, and the export applies the
very same inside the graph. Each takes a tensor of any shape and returns int32 rows of that shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


class VocabularyRows(tf.Module):
    """Strings by a vocabulary: "" is row 0, then the out-of-vocabulary rows, then the vocabulary in its order.

    Args:
      vocabulary: the known values.
      oov_buckets: rows that all other values are hashed into.
    """

    def __init__(self, vocabulary: Sequence[str], oov_buckets: int) -> None:
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self.oov_buckets = oov_buckets
        self.num_rows = 1 + oov_buckets + len(vocabulary)
        first = 1 + oov_buckets
        keys = tf.constant(["", *vocabulary])
        rows = tf.concat([[0], tf.range(first, first + len(vocabulary))], axis=0)
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, rows), default_value=-1)

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the rows of `values`."""
        rows = self.table.lookup(values)
        other = 1 + tf.strings.to_hash_bucket_fast(values, self.oov_buckets)
        return tf.where(rows >= 0, rows, tf.cast(other, tf.int32))

    def values(self) -> list[tuple[int, str | None]]:
        """The rows that stand for one value, with it; None is "missing"."""
        return [(0, None), *((1 + self.oov_buckets + place, value) for place, value in enumerate(self.vocabulary))]


class HashRows(tf.Module):
    """Strings by hashing: "" is row 0, all others share `buckets` rows."""

    def __init__(self, buckets: int) -> None:
        super().__init__()
        self.buckets = buckets
        self.num_rows = 1 + buckets

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the rows of `values`."""
        rows = 1 + tf.cast(tf.strings.to_hash_bucket_fast(values, self.buckets), tf.int32)
        return tf.where(values == "", 0, rows)

    def values(self) -> list[tuple[int, str | None]]:
        """The rows that stand for one value: "missing" alone, as the others are shared."""
        return [(0, None)]


class IntegerRows(tf.Module):
    """Integers from 0 to `size`: -1 is row 0 ("missing"), value v is row v + 1."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.num_rows = size + 2

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the rows of `values`; the pipeline and the export have refused values out of range."""
        return tf.cast(values, tf.int32) + 1

    def values(self) -> list[tuple[int, int | None]]:
        """The rows with their values; None is "missing"."""
        return [(0, None), *((value + 1, value) for value in range(self.size + 1))]

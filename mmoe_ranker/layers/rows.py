"""From values of a category to rows of its embedding table; row 0 is always "missing".

These hold no weights, so the input pipeline applies them beside the processor that trains, and the export applies the
very same inside the graph. Each takes a tensor of any shape and returns int32 rows of that shape (double hashing: two
rows a value).
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
    """Strings by hashing: "" is row 0, all others share `buckets` rows.

    Double hashing gives a value two rows of the one table, by independent hash functions; the sum of their embeddings
    stands for it. Two values then look alike only where both rows agree: among n values a value has such a double with
    probability of about 2 n / buckets^2 (the rows may be swapped) instead of n / buckets.

    Reference: Serra and Karatzoglou 2017, https://doi.org/10.1145/3109859.3109876; Svenstrup et al. 2017,
    https://doi.org/10.48550/arXiv.1709.03933.

    Example:
      >>> HashRows(1000, hashes=2)(tf.constant(["u1", ""])).shape
      TensorShape([2, 2])

    Args:
      buckets: rows that the values share.
      hashes: 1, or 2 for double hashing, whose rows have a last dimension of 2.
    """

    def __init__(self, buckets: int, hashes: int = 1) -> None:
        super().__init__()
        self.buckets = buckets
        self.hashes = hashes
        self.num_rows = 1 + buckets

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the rows of `values`, [...] or, with double hashing, [..., 2]."""
        first = tf.strings.to_hash_bucket_fast(values, self.buckets)
        if self.hashes == 1:
            return tf.where(values == "", 0, 1 + tf.cast(first, tf.int32))
        second = tf.strings.to_hash_bucket_strong(values, self.buckets, key=_SECOND_HASH_KEY)
        rows = 1 + tf.cast(tf.stack([first, second], axis=-1), tf.int32)
        return tf.where((values == "")[..., tf.newaxis], 0, rows)

    def values(self) -> list[tuple[int, str | None]]:
        """The rows that stand for one value: "missing" alone, as the others are shared."""
        return [(0, None)]


# Fixed for ever: trained tables depend on it.
_SECOND_HASH_KEY = [0x5EED, 0xD0B1E]


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

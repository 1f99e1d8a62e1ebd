"""Section `features`: what is known of an impression, and how it becomes numbers."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PositiveInt, field_validator, model_validator

from mmoe_ranker.config_fields import Fraction, Frozen, Name
from mmoe_ranker.config_tables import History


class _Feature(Frozen):
    """`table` names the entry of `tables` that holds the values, in `column` (by default the feature's name)."""

    name: Name
    side: Literal["context", "candidate", "bias"]
    table: Name | None = None
    column: Name | None = None

    @property
    def is_logged(self) -> bool:
        """Whether its values stand in the impressions log: neither in a table nor made of the feedback."""
        return self.table is None and getattr(self, "history", None) is None

    @model_validator(mode="after")
    def _column_of_a_table(self) -> _Feature:
        if self.column is not None and self.table is None:
            raise ValueError(f"takes `column` only with `table`||{self.column}")
        return self


class _Categories(Frozen):
    """How values become rows of an embedding table.

    By `vocabulary` (`auto`: counted on the training split), by hashing into `buckets`, or as integers from 0 to `size`
    (inclusive, because positions start at 1).

    `hashes: 2` gives each value two rows of the table, by two hash functions, whose sum is its embedding: two values
    that share a bucket rarely share both. `oov_dropout` is the share of known values that training takes for unknown
    ones, so that the out-of-vocabulary rows, where new ids start, are trained.
    """

    vocabulary: Literal["auto"] | tuple[str, ...] | None = None
    min_count: PositiveInt = 1
    oov_buckets: PositiveInt = 1
    oov_dropout: Fraction = 0.0
    buckets: PositiveInt | None = None
    hashes: Literal[1, 2] = 1
    size: PositiveInt | None = None
    dim: PositiveInt | None = None

    @property
    def is_integer(self) -> bool:
        """Whether values are integers from 0 to `size` rather than strings."""
        return self.size is not None

    @field_validator("vocabulary")
    @classmethod
    def _distinct_values(cls, value: object) -> object:
        if isinstance(value, tuple) and (not value or len(set(value)) != len(value) or "" in value):
            raise ValueError(f"must hold at least one value, each once, none empty||{list(value)}")
        return value

    def _chosen(self) -> list[str]:
        return [key for key in ("vocabulary", "buckets", "size") if getattr(self, key) is not None]

    def _check_keys_of_rows(self) -> None:
        for_vocabulary = [key for key in ("min_count", "oov_buckets", "oov_dropout") if self._is_set(key)]
        if self.vocabulary is None and for_vocabulary:
            raise ValueError(
                f"takes `min_count`, `oov_buckets` and `oov_dropout` only with `vocabulary`||{for_vocabulary}"
            )
        if self.buckets is None and self._is_set("hashes"):
            raise ValueError(f"takes `hashes` only with `buckets`||{self.hashes}")

    def _is_set(self, key: str) -> bool:
        return getattr(self, key) != type(self).model_fields[key].default


class CategoricalFeature(_Feature, _Categories):
    """One category: an embedding of `dim` in the main tower; a column of the shallow tower where `bias` names it."""

    kind: Literal["categorical"]

    @model_validator(mode="after")
    def _one_way_to_rows(self) -> CategoricalFeature:
        chosen = self._chosen()
        if len(chosen) != 1:
            raise ValueError(f"needs exactly one of `vocabulary`, `buckets`, `size`||{chosen}")
        self._check_keys_of_rows()
        return self


class NumericFeature(_Feature):
    """One number. `transform` comes first, then (x - mean) / std with the statistics of the training split.

    `quantiles` adds, beside the number, an embedding of `dim` of the bucket it falls into, among that many buckets
    of equal counts: for what rises and falls, or jumps.
    """

    kind: Literal["numeric"]
    transform: Literal["none", "log1p"] = "none"
    normalize: bool = True
    quantiles: Annotated[int, Field(ge=2)] | None = None
    dim: PositiveInt | None = None

    @model_validator(mode="after")
    def _dim_of_quantiles(self) -> NumericFeature:
        if self.dim is not None and self.quantiles is None:
            raise ValueError(f"takes `dim` only with `quantiles`||{self.dim}")
        return self


class SequenceFeature(_Feature, _Categories):
    """A list of categories, oldest first, of which the `max_length` most recent are pooled.

    `pooling` is their mean, or by `attention` from the candidate, for which both must share the item key's table.

    `embedding` names the categorical feature whose table and vocabulary it shares; without it the sequence has a
    table of its own, described by the same keys as a categorical feature's.

    With `history` it lists the items of the user's own earlier events, and is not read from the impressions log.
    """

    kind: Literal["sequence"]
    embedding: Name | None = None
    history: History | None = None
    max_length: PositiveInt = 50
    pooling: Literal["mean", "attention"] = "mean"

    @model_validator(mode="after")
    def _one_table(self) -> SequenceFeature:
        chosen = self._chosen() + (["embedding"] if self.embedding else [])
        if len(chosen) != 1:
            raise ValueError(f"needs exactly one of `embedding`, `vocabulary`, `buckets`, `size`||{chosen}")
        own = [key for key in ("dim", "min_count", "oov_buckets", "oov_dropout", "hashes") if self._is_set(key)]
        if self.embedding and own:
            raise ValueError(
                f"takes none of `dim`, `min_count`, `oov_buckets`, `oov_dropout`, `hashes` where "
                f"`embedding` names a table||{own}"
            )
        if not self.embedding:
            self._check_keys_of_rows()
        if self.history is not None and self.table is not None:
            raise ValueError(f"takes `history` or `table`, not both||{self.table}")
        return self


class VectorFeature(_Feature):
    """A dense content vector of `size` numbers, as it is, or by a linear `projection` of its own to that width."""

    kind: Literal["vector"]
    size: PositiveInt
    projection: PositiveInt | None = None


Feature: TypeAlias = Annotated[
    CategoricalFeature | NumericFeature | SequenceFeature | VectorFeature, Field(discriminator="kind")
]

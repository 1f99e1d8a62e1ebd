"""From raw features to the main tower's input, in two steps with the border between them where training wants it.

`FeatureRows` has no weights: strings and integers become rows of tables. The input pipeline applies it while another
batch trains. `FeatureEncoder` has the tables: rows and numbers become the context's and the candidate's part of the
input (sec. 4.1). The export applies one after the other.

Shapes: B impressions (or N candidates), L places of a sequence, D_s width of the input of side s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.config_features import CategoricalFeature, NumericFeature, SequenceFeature, VectorFeature
from mmoe_ranker.errors import InputError
from mmoe_ranker.layers import HashRows, IntegerRows, NumericInput, QuantileEmbedding, VocabularyRows, masked_mean
from mmoe_ranker.statistics import Statistics

# The width of an embedding whose feature names none.
DEFAULT_DIM = 16


class FeatureRows(tf.Module):
    """Turns the categorical values among raw features into rows; passes numbers through.

    Args:
      config: its features say how values become rows.
      statistics: holds the vocabularies that were counted on the training split.

    Raises:
      InputError: a feature with `vocabulary: auto` has no vocabulary in the statistics.
    """

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__()
        self.rows: dict[str, VocabularyRows | HashRows | IntegerRows] = {}
        self._max_lengths = {f.name: f.max_length for f in config.features if f.kind == "sequence"}
        for feature in config.features:
            if isinstance(feature, CategoricalFeature) or (
                isinstance(feature, SequenceFeature) and not feature.embedding
            ):
                self.rows[feature.name] = _rows_of(feature, statistics)
        for feature in config.features:
            if isinstance(feature, SequenceFeature) and feature.embedding:
                self.rows[feature.name] = self.rows[feature.embedding]

    def __call__(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the features with rows for categories: [B], or [B, L] for a sequence, most recent places kept."""
        converted = {
            name: self.rows[name](values) if name in self.rows else values for name, values in features.items()
        }
        for name, length in self._max_lengths.items():
            if name in converted:
                converted[name] = most_recent(converted[name], length)
        return converted


def most_recent(rows: tf.Tensor, length: int) -> tf.Tensor:
    """Makes all places but the last `length` that hold a value missing, wherever the padding stands.

    Args:
      rows: [B, L] rows of a table, 0 where there is none; oldest first.
      length: how many to keep.

    Returns:
      [B, L].
    """
    places_from_the_end = tf.cumsum(tf.cast(rows > 0, tf.int32), axis=1, reverse=True)
    return tf.where(places_from_the_end <= length, rows, 0)


def _rows_of(
    feature: CategoricalFeature | SequenceFeature, statistics: Statistics
) -> VocabularyRows | HashRows | IntegerRows:
    if feature.size is not None:
        return IntegerRows(feature.size)
    if feature.buckets is not None:
        return HashRows(feature.buckets)
    if feature.vocabulary == "auto":
        if feature.name not in statistics.vocabularies:
            raise InputError(
                f"The statistics of the examples must hold a vocabulary of `{feature.name}`: build examples with the "
                f"config that trains. Received: vocabularies of {sorted(statistics.vocabularies)}."
            )
        return VocabularyRows(statistics.vocabularies[feature.name], feature.oov_buckets)
    return VocabularyRows(feature.vocabulary or (), feature.oov_buckets)


class FeatureEncoder(tf.keras.layers.Layer):
    """Embeddings, normalised numerics, pooled sequences and content vectors of one side, concatenated (sec. 4.1).

    Args:
      config: names the features; those of side `bias` have no part in it.
      statistics: moments of the numeric features.
      rows: gives the tables their sizes.
      **kwargs: for the base layer.

    Input shape: a dict as `FeatureRows` returns it.
    Output shape: [B, D], the context's features in config order, then the candidate's.
    """

    def __init__(self, config: Config, statistics: Statistics, rows: FeatureRows, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features = config.served_features
        self.tables: dict[str, tf.keras.layers.Embedding] = {}
        self.numerics: dict[str, NumericInput] = {}
        self.quantiles: dict[str, QuantileEmbedding] = {}
        for feature in self.features:
            if isinstance(feature, NumericFeature):
                self.numerics[feature.name] = _numeric_input(feature, statistics)
                if feature.quantiles is not None:
                    edges = statistics.numeric[feature.name].quantiles
                    name = f"{feature.name}_quantiles"
                    self.quantiles[feature.name] = QuantileEmbedding(edges, feature.dim or DEFAULT_DIM, name=name)
            elif not isinstance(feature, VectorFeature) and not getattr(feature, "embedding", None):
                self.tables[feature.name] = tf.keras.layers.Embedding(
                    rows.rows[feature.name].num_rows, feature.dim or DEFAULT_DIM, name=f"{feature.name}_embedding"
                )

    @property
    def embedding_tables(self) -> list[tf.keras.layers.Embedding]:
        """All tables, of categories and of buckets."""
        return [*self.tables.values(), *(layer.table for layer in self.quantiles.values())]

    def encode(self, features: Mapping[str, tf.Tensor], side: str) -> tf.Tensor | None:
        """The part of the input that comes from one side, [B, D_s], or None where the side has no feature."""
        parts = [self._encode_one(feature, features[feature.name]) for feature in self.features if feature.side == side]
        return tf.concat(parts, axis=-1) if parts else None

    def call(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The whole input [B, D]; a context that stands once ([1, D_context]) is tiled after its embedding."""
        context, candidate = self.encode(features, "context"), self.encode(features, "candidate")
        if context is None or candidate is None:
            return candidate if context is None else context
        if context.shape[0] == 1:
            context = tf.repeat(context, tf.shape(candidate)[0], axis=0)
        return tf.concat([context, candidate], axis=-1)

    def _encode_one(self, feature: Any, values: tf.Tensor) -> tf.Tensor:
        if feature.kind == "numeric":
            number = self.numerics[feature.name](values)
            if feature.name not in self.quantiles:
                return number
            return tf.concat([number, self.quantiles[feature.name](values)], axis=-1)
        if feature.kind == "vector":
            return values
        table = self.tables[getattr(feature, "embedding", None) or feature.name]
        return masked_mean(table(values), values > 0) if feature.kind == "sequence" else table(values)


def _numeric_input(feature: NumericFeature, statistics: Statistics) -> NumericInput:
    moments = statistics.numeric.get(feature.name)
    if moments is None:
        raise InputError(
            f"The statistics of the examples must hold the moments of `{feature.name}`: build the examples with the "
            f"config that trains. Received: moments of {sorted(statistics.numeric)}."
        )
    normal = feature.normalize and moments.count > 0
    return NumericInput(
        transform=feature.transform,
        mean=moments.mean if normal else 0.0,
        std=(moments.std or 1.0) if normal else 1.0,
        missing_indicator=moments.missing > 0,
        name=f"{feature.name}_input",
    )

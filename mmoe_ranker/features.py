"""From raw features to the main tower's input, in two steps with the border between them where training wants it.

`FeatureRows` has no weights: strings and integers become rows of tables. The input pipeline applies it while another
batch trains. `FeatureEncoder` has the tables: rows and numbers become the context's and the candidate's part of the
input (sec. 4.1). The export applies one after the other.

Shapes: B impressions (or N candidates), L places of a sequence, D_s width of the input of side s. Rows of double
hashing have a last dimension of 2 more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.config_features import CategoricalFeature, NumericFeature, SequenceFeature, VectorFeature
from mmoe_ranker.errors import InputError
from mmoe_ranker.layers import (
    AttentionPooling,
    HashRows,
    IntegerRows,
    NumericInput,
    OovDropout,
    QuantileEmbedding,
    VocabularyRows,
    masked_mean,
)
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
        converted = dict(features)
        # Features that are hashed alike are hashed at once.
        alike: dict[Any, list[str]] = {}
        for name, values in features.items():
            rows = self.rows.get(name)
            if isinstance(rows, HashRows) and values.shape.rank == 1:
                alike.setdefault((rows.buckets, rows.hashes, values.shape[0]), []).append(name)
            elif rows is not None:
                converted[name] = rows(values)
        for names in alike.values():
            rows = self.rows[names[0]](tf.stack([features[name] for name in names]))
            converted |= dict(zip(names, tf.unstack(rows), strict=True))
        for name, length in self._max_lengths.items():
            if name in converted:
                converted[name] = most_recent(converted[name], length)
        return converted


def most_recent(rows: tf.Tensor, length: int) -> tf.Tensor:
    """Makes all places but the last `length` that hold a value missing, wherever the padding stands.

    Args:
      rows: [B, L] rows of a table, or [B, L, 2], 0 where there is none; oldest first.
      length: how many to keep.

    Returns:
      As `rows`.
    """
    places_from_the_end = tf.cumsum(tf.cast(_holds(rows), tf.int32), axis=1, reverse=True)
    kept = places_from_the_end <= length
    return tf.where(kept if rows.shape.rank == 2 else kept[..., tf.newaxis], rows, 0)


def _holds(rows: tf.Tensor) -> tf.Tensor:
    """[B, L], where a sequence's place holds something; double hashing gives both rows or none."""
    return (rows if rows.shape.rank == 2 else rows[..., 0]) > 0


def _rows_of(
    feature: CategoricalFeature | SequenceFeature, statistics: Statistics
) -> VocabularyRows | HashRows | IntegerRows:
    if feature.size is not None:
        return IntegerRows(feature.size)
    if feature.buckets is not None:
        return HashRows(feature.buckets, feature.hashes)
    if feature.vocabulary == "auto":
        if feature.name not in statistics.vocabularies:
            raise InputError(
                f"The statistics of the examples must hold a vocabulary of `{feature.name}`: build examples with the "
                f"config that trains. Received: vocabularies of {sorted(statistics.vocabularies)}."
            )
        return VocabularyRows(statistics.vocabularies[feature.name], feature.oov_buckets)
    return VocabularyRows(feature.vocabulary or (), feature.oov_buckets)


class FeatureEncoder(tf.keras.layers.Layer):
    """Embeddings, normalised numerics, pooled sequences and content vectors, concatenated (sec. 4.1).

    What the context gives by itself is computed once a request. A sequence that the candidate attends to belongs to the
    candidate's part: its embeddings stand once, what is pooled of them differs from candidate to candidate.

    Args:
      config: names the features; those of side `bias` have no part in it.
      statistics: moments of the numeric features.
      rows: gives the tables their sizes.
      **kwargs: for the base layer.

    Input shape: a dict as `FeatureRows` returns it.
    Output shape: [B, D], the context's features in config order, then the candidate's, then the attended sequences.
    """

    def __init__(self, config: Config, statistics: Statistics, rows: FeatureRows, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features = config.served_features
        self._item_key = config.item_key
        self.tables: dict[str, tf.keras.layers.Embedding] = {}
        self.oov_dropouts: dict[str, OovDropout] = {}
        self.numerics: dict[str, NumericInput] = {}
        self.quantiles: dict[str, QuantileEmbedding] = {}
        self.projections: dict[str, tf.keras.layers.Dense] = {}
        self.attentions: dict[str, AttentionPooling] = {}
        self._numbers = _neighbouring_numbers(self.features)
        for name, names in self._numbers.items():
            together = [f for f in self.features if isinstance(f, NumericFeature) and f.name in names]
            self.numerics[name] = numeric_input(together, statistics)
        for place, feature in enumerate(self.features):
            name = feature.name
            if isinstance(feature, NumericFeature):
                if feature.quantiles is not None:
                    edges = statistics.numeric[name].quantiles
                    layer = QuantileEmbedding(edges, feature.dim or DEFAULT_DIM, name=f"{name}_quantiles")
                    self.quantiles[name] = layer
                continue
            if isinstance(feature, VectorFeature):
                if feature.projection is not None:
                    self.projections[name] = tf.keras.layers.Dense(feature.projection, name=f"{name}_projection")
                continue
            if isinstance(feature, SequenceFeature) and feature.pooling == "attention":
                self.attentions[name] = AttentionPooling(name=f"{name}_attention")
            if _table_of(feature) == name:
                self.tables[name] = tf.keras.layers.Embedding(
                    rows.rows[name].num_rows, feature.dim or DEFAULT_DIM, name=f"{name}_embedding"
                )
                if feature.oov_dropout:
                    seed = config.training.seed + _FIRST_OOV_SEED + place
                    self.oov_dropouts[name] = OovDropout(
                        feature.oov_dropout, feature.oov_buckets, seed, name=f"{name}_oov_dropout"
                    )
        self._double_hashed = {name for name in self.tables if getattr(rows.rows[name], "hashes", 1) == 2}

    @property
    def embedding_tables(self) -> list[tf.keras.layers.Embedding]:
        """All tables, of categories and of buckets."""
        return [*self.tables.values(), *(layer.table for layer in self.quantiles.values())]

    def call(self, features: Mapping[str, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """The whole input [B, D]; a context that stands once ([1, D_context]) is tiled after its embedding."""
        context, candidate = self._encode(features, "context", training), self._encode(features, "candidate", training)
        for name, attend in self.attentions.items():
            embeddings = self._embed(self._item_key, features[name], training)
            candidate[name] = attend(candidate[self._item_key], embeddings, _holds(features[name]))
        if not context or not candidate:
            return tf.concat([*context.values(), *candidate.values()], axis=-1)
        once, joined = tf.concat(list(context.values()), axis=-1), tf.concat(list(candidate.values()), axis=-1)
        if once.shape[0] == 1:
            once = tf.repeat(once, tf.shape(joined)[0], axis=0)
        return tf.concat([once, joined], axis=-1)

    def _encode(self, features: Mapping[str, tf.Tensor], side: str, training: bool | None) -> dict[str, tf.Tensor]:
        """The parts of the input that one side gives by itself, [B, ...] each."""
        parts = {}
        for feature in self.features:
            name = feature.name
            if feature.side != side or name in self.attentions:
                continue
            if feature.kind != "numeric":
                parts[name] = self._encode_one(feature, features[name], training)
            elif name in self._numbers:
                numbers = tf.stack([features[each] for each in self._numbers[name]], axis=-1)
                parts[name] = self.numerics[name](numbers)
            if name in self.quantiles:
                parts[f"{name}_quantiles"] = self.quantiles[name](features[name])
        return parts

    def _encode_one(self, feature: Any, values: tf.Tensor, training: bool | None) -> tf.Tensor:
        name = feature.name
        if feature.kind == "vector":
            return self.projections[name](values) if name in self.projections else values
        embeddings = self._embed(_table_of(feature), values, training)
        return masked_mean(embeddings, _holds(values)) if feature.kind == "sequence" else embeddings

    def _embed(self, table: str, rows: tf.Tensor, training: bool | None) -> tf.Tensor:
        if table in self.oov_dropouts:
            rows = self.oov_dropouts[table](rows, training=training)
        embeddings = self.tables[table](rows)
        return tf.reduce_sum(embeddings, axis=-2) if table in self._double_hashed else embeddings


def _table_of(feature: Any) -> str:
    """The feature whose table a categorical feature or a sequence uses."""
    return getattr(feature, "embedding", None) or feature.name


# Apart from the seeds of the model's other draws.
_FIRST_OOV_SEED = 1000


def _neighbouring_numbers(features: Sequence[Any]) -> dict[str, list[str]]:
    """Numeric features that stand side by side in the input, by the first of them."""
    runs: dict[str, list[str]] = {}
    for side in ("context", "candidate"):
        run: list[str] | None = None
        for feature in features:
            if feature.side == side and feature.kind == "numeric":
                run = runs.setdefault(feature.name, []) if run is None else run
                run.append(feature.name)
            if feature.side == side and (feature.kind != "numeric" or feature.quantiles is not None):
                run = None
    return runs


def numeric_input(features: Sequence[NumericFeature], statistics: Statistics) -> NumericInput:
    """The layer of numeric features that stand side by side, [B, F].

    Raises:
      InputError: the statistics lack a feature's moments.
    """
    for feature in features:
        if feature.name not in statistics.numeric:
            raise InputError(
                f"The statistics of the examples must hold the moments of `{feature.name}`: build the examples with "
                f"the config that trains. Received: moments of {sorted(statistics.numeric)}."
            )
    moments = [statistics.numeric[feature.name] for feature in features]
    normal = [feature.normalize and each.count > 0 for feature, each in zip(features, moments, strict=True)]
    return NumericInput(
        transforms=[feature.transform for feature in features],
        means=[each.mean if normalised else 0.0 for each, normalised in zip(moments, normal, strict=True)],
        stds=[(each.std or 1.0) if normalised else 1.0 for each, normalised in zip(moments, normal, strict=True)],
        missing_indicators=[each.missing > 0 for each in moments],
        name=f"{features[0].name}_input",
    )

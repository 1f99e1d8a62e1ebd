"""How the ranker models selection bias: one class a kind of `model.bias`, with the hooks by which it takes part.

`bias_kinds` chooses, and kind `anchored` is in a module of its own. `SelectionBias` is kind `none`, and each other kind
overrides the hook it needs. In all of them a bias feature that is not given counts as missing, as at serving.

Shapes: B impressions, D inputs of the main tower, H units of the shared hidden layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.config_model import AdditiveTower, Adversarial, InputFeature
from mmoe_ranker.features import DEFAULT_DIM, FeatureRows
from mmoe_ranker.layers import MISSING, dense_stack, drop_features, reverse_gradient
from mmoe_ranker.layers import ShallowTower as ShallowTowerLayer


class SelectionBias(tf.keras.layers.Layer):
    """No modelling of selection bias.

    Args:
      tower: the shallow tower, for the kinds that have one.
      objectives: those that `logits` speaks of, in the order of the tower's outputs.
      **kwargs: for the base layer.
    """

    def __init__(self, tower: ShallowTowerLayer | None = None, objectives: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tower = tower
        self.objectives = objectives

    def extend_input(
        self, encoded: tf.Tensor, features: Mapping[str, tf.Tensor], training: bool | None = None
    ) -> tf.Tensor:
        """The main tower's input [B, D], with what this kind adds to it."""
        return encoded

    def logits(self, features: Mapping[str, tf.Tensor], training: bool | None = None) -> dict[str, tf.Tensor]:
        """By objective, the logit to add to that of the main tower, [B], or [1] where the whole request shares it."""
        return {}

    def read_shared(self, shared: tf.Tensor) -> dict[str, tf.Tensor]:
        """Outputs of this kind's own that start from the shared hidden layer [B, H], for its loss."""
        return {}

    def read_towers(
        self, towers: tf.Tensor, relevance: tf.Tensor, training: bool | None = None
    ) -> dict[str, tf.Tensor]:
        """Outputs that start from the towers, [B, T, U] or [B, U], and their logits [B, T].

        A `relevance_k_logit` among them takes the place of the tower's own.
        """
        return {}

    def loss(
        self,
        features: Mapping[str, tf.Tensor],
        labels: Mapping[str, tf.Tensor],
        outputs: Mapping[str, tf.Tensor],
        weights: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """What this kind adds to the loss of the objectives, a scalar.

        Args:
          features: of the batch, bias features among them.
          labels: by objective, [B], NaN where missing.
          outputs: of the ranker's call.
          weights: [B] of impressions, or None for 1.
          training: whether the batch is learned from.
        """
        return tf.constant(0.0)


class ShallowTowerBias(SelectionBias):
    """A shallow tower, added to the logits of the objectives that position biases (sec. 4.4, fig. 3).

    Args:
      config: features and objectives.
      bias: the config's section.
      rows: of the bias features.
      **kwargs: for the base layer.
    """

    def __init__(self, config: Config, bias: AdditiveTower, rows: FeatureRows, **kwargs: Any) -> None:
        tower = ShallowTowerLayer(
            {name: rows.rows[name].num_rows for name in bias.features},
            bias.cross,
            len(bias.objectives),
            dropped=[feature.name for feature in config.side("bias") if feature.name in bias.features],
            dropout=bias.dropout,
            seed=config.training.seed + 1,
            name="shallow_tower",
        )
        super().__init__(tower, bias.objectives, **kwargs)

    def logits(self, features: Mapping[str, tf.Tensor], training: bool | None = None) -> dict[str, tf.Tensor]:
        """The tower's outputs [B] by objective."""
        assert self.tower is not None
        return self.by_objective(self.tower(self.tower_rows(features), training=training))

    def tower_rows(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The rows of the tower's features, [B]; with none given [1], which broadcasts over the impressions."""
        assert self.tower is not None
        names = self.tower.num_rows
        given = {name: features[name] for name in names if name in features}
        return rows_or_missing(names, given, tf.shape(next(iter(given.values()))) if given else [1])

    def by_objective(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """The columns of [B, K], by the objectives' names."""
        return {name: logits[:, index] for index, name in enumerate(self.objectives)}


class InputFeatureBias(SelectionBias):
    """The bias features embedded into the main tower's input, and missing at serving (sec. 5.3, table 2).

    Args:
      config: features and objectives.
      bias: the config's section.
      rows: of the bias features.
      **kwargs: for the base layer.
    """

    def __init__(self, config: Config, bias: InputFeature, rows: FeatureRows, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dropout = bias.dropout
        self.tables = {
            name: tf.keras.layers.Embedding(
                rows.rows[name].num_rows,
                getattr(config.feature(name), "dim", None) or DEFAULT_DIM,
                name=f"{name}_embedding",
            )
            for name in bias.features
        }
        self.generator = tf.random.Generator.from_seed(config.training.seed + 1)

    def extend_input(
        self, encoded: tf.Tensor, features: Mapping[str, tf.Tensor], training: bool | None = None
    ) -> tf.Tensor:
        """The input [B, D] with an embedding of each bias feature behind it."""
        rows = rows_or_missing(self.tables, features, tf.shape(encoded)[:1])
        if training:
            rows = drop_features(rows, list(rows), self.dropout, self.generator)
        return tf.concat([encoded, *(self.tables[name](rows[name]) for name in self.tables)], axis=-1)


class AdversarialBias(SelectionBias):
    """An adversary that tells the bias features from the shared hidden layer, against which that layer is trained.

    The objectives' loss is joined by the adversary's cross entropy; its gradient reaches the adversary as it is, and
    the layers below it reversed (sec. 5.3, table 2). Impressions whose bias feature is missing have no part in it.

    Args:
      bias: the config's section.
      rows: of the bias features.
      **kwargs: for the base layer.
    """

    def __init__(self, bias: Adversarial, rows: FeatureRows, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight = bias.weight
        self.hidden = dense_stack(bias.units, name="adversary")
        self.heads = {
            name: tf.keras.layers.Dense(rows.rows[name].num_rows, name=f"adversary_of_{name}") for name in bias.features
        }

    def read_shared(self, shared: tf.Tensor) -> dict[str, tf.Tensor]:
        """The adversary's logits of each bias feature, [B, rows of the feature]."""
        hidden = self.hidden(reverse_gradient(shared, self.weight))
        return {f"adversary_{name}_logits": head(hidden) for name, head in self.heads.items()}

    def loss(
        self,
        features: Mapping[str, tf.Tensor],
        labels: Mapping[str, tf.Tensor],
        outputs: Mapping[str, tf.Tensor],
        weights: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """The mean cross entropy over the impressions whose bias features are known, a scalar, over all features."""
        losses = []
        for name in self.heads:
            logits = outputs[f"adversary_{name}_logits"]
            rows = rows_or_missing([name], features, tf.shape(logits)[:1])[name]
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(rows, logits)
            known = tf.cast(rows != MISSING, each.dtype)
            losses.append(tf.math.divide_no_nan(tf.reduce_sum(each * known), tf.reduce_sum(known)))
        return tf.add_n(losses)


def rows_or_missing(
    names: Sequence[str] | Mapping[str, Any], given: Mapping[str, tf.Tensor], shape: Any
) -> dict[str, tf.Tensor]:
    """The rows of some features, with the row of "missing" for those that are not given.

    Args:
      names: of the features.
      given: by feature, its rows [B].
      shape: of what is not given, such as [B].
    """
    return {name: given[name] if name in given else tf.fill(shape, MISSING) for name in names}

"""The shallow tower: selection bias as a wide, linear part whose output is added to the main tower's logit.

Shapes: B impressions, K biased objectives, R_f rows of feature f (row 0 is "missing").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

MISSING = 0


def drop_features(
    rows: Mapping[str, tf.Tensor], dropped: Sequence[str], rate: float, generator: tf.random.Generator
) -> dict[str, tf.Tensor]:
    """Feature dropout (sec. 4.4): makes features "missing" for a share of the impressions.

    Args:
      rows: [B] of each feature.
      dropped: the features it hits; all of them together, since serving misses all of them together.
      rate: share of the impressions.
      generator: whose state checkpoints keep.

    Returns:
      The rows, with those of `dropped` replaced.
    """
    keep = generator.uniform(tf.shape(rows[dropped[0]])) >= rate
    return dict(rows) | {name: tf.where(keep, rows[name], MISSING) for name in dropped}


class ShallowTower(tf.keras.layers.Layer):
    """One weight a value of each feature and of each cross, summed; zero before training.

    bias_k = sum_f w_fk[x_f] + sum_c w_ck[x_c1, x_c2, ...]

    In training each of `dropped` becomes "missing" for a share of the impressions, so that the row of "missing", which
    is the one that serving uses, learns the average bias.

    Reference: Zhao et al. 2019, sec. 4.4 and fig. 3; the wide part is Cheng et al. 2016,
    https://doi.org/10.1145/2988450.2988454.

    Example:
      >>> tower = ShallowTower({"position": 21, "device": 4}, [("position", "device")], num_objectives=1)
      >>> tower({"position": tf.constant([1, 0]), "device": tf.constant([2, 2])}).shape
      TensorShape([2, 1])

    Args:
      num_rows: rows of each feature, row 0 being "missing".
      crosses: tuples of features whose joint value gets a weight as well.
      num_objectives: K.
      dropped: the features that feature dropout hits.
      dropout: share of training impressions for which they become "missing".
      seed: seed of the feature dropout, whose state is saved in checkpoints.
      **kwargs: for the base layer.

    Input shape: a dict of [B] integers, one a feature.
    Output shape: [B, K], logits.
    """

    def __init__(
        self,
        num_rows: Mapping[str, int],
        crosses: Sequence[Sequence[str]],
        num_objectives: int,
        dropped: Sequence[str] = (),
        dropout: float = 0.0,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_rows = dict(num_rows)
        self.crosses = [tuple(cross) for cross in crosses]
        self.num_objectives = num_objectives
        self.dropped = tuple(dropped)
        self.dropout = dropout
        self.seed = seed
        self.generator = tf.random.Generator.from_seed(seed)
        self.tables = {}
        for names in [*((name,) for name in self.num_rows), *self.crosses]:
            rows = 1
            for name in names:
                rows *= self.num_rows[name]
            self.tables["_x_".join(names)] = tf.keras.layers.Embedding(
                rows, num_objectives, embeddings_initializer="zeros", name="_x_".join(names)
            )

    def call(self, features: Mapping[str, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        """Returns the bias logit of each biased objective."""
        features = {name: features[name] for name in self.num_rows}
        if training and self.dropout and self.dropped:
            features = drop_features(features, self.dropped, self.dropout, self.generator)
        logits = [self.tables[name](rows) for name, rows in features.items()]
        for cross in self.crosses:
            # In one type: columns of one's own arrays may differ in theirs.
            joint = tf.zeros_like(features[cross[0]], tf.int64)
            for name in cross:
                joint = joint * self.num_rows[name] + tf.cast(features[name], tf.int64)
            logits.append(self.tables["_x_".join(cross)](joint))
        return tf.add_n(logits)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "num_rows": self.num_rows,
            "crosses": self.crosses,
            "num_objectives": self.num_objectives,
            "dropped": self.dropped,
            "dropout": self.dropout,
            "seed": self.seed,
        }

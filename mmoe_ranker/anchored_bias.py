"""Bias kind `anchored`: a shallow tower, and a second reading of the log, weighed by what random requests bear out.

Shapes: B impressions, K biased objectives, T objectives, U units of a tower.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.config_model import Anchored
from mmoe_ranker.errors import InputError
from mmoe_ranker.features import FeatureRows
from mmoe_ranker.layers import MISSING, OnlineLogistic, ParallelDense, VocabularyRows
from mmoe_ranker.selection_bias import ShallowTowerBias, rows_or_missing


class AnchoredBias(ShallowTowerBias):
    """Two readings of the log, weighed where the order was random.

    For each biased objective k the towers are read twice:

      unbiased_k   beside the shallow tower's curve, which learns with it from all impressions, as kind `shallow_tower`
      logged_k     without a curve, as kind `none`: where the logging ranker is well aligned, its positions are a label
                   of relevance with less noise than clicks have, and this reading profits from it

    What is served is a mix, and four numbers an objective are tied to requests in random order, where position says
    nothing of relevance:

      logit_k = t0 + t1 (unbiased_k + logged_k) / 2 + t2 (logged_k - unbiased_k) + t3 curve_k(position)

    by logistic regression that follows the training (`OnlineLogistic`); no gradient goes from it into the readings or
    the curve. It is stacking (Wolpert, "Stacked generalization", Neural Networks 1992); the readings are nearly the
    same, so mean and difference, which are not, get the weights. t3 < 1 says that the curve had absorbed relevance,
    t3 > 1 that it has not learned all of the bias yet.

    Without a flag nothing identifies the numbers, which stay at 0, 1, 0, 1: half of each reading, by convention.

    Where position is missing, as at serving, t0 gives way to a level that is fitted on all impressions with their
    position missing, so that served probabilities are calibrated on the log.

    Args:
      config: features and objectives.
      bias: the config's section.
      rows: of the bias features.
      initial_logits: by objective, where the mix starts.
      **kwargs: for the base layer.
    """

    def __init__(
        self, config: Config, bias: Anchored, rows: FeatureRows, initial_logits: Mapping[str, float], **kwargs: Any
    ) -> None:
        super().__init__(config, bias, rows, **kwargs)
        weights = {objective.name: objective.loss_weight for objective in config.objectives}
        self.loss_weights = tf.constant([weights[name] for name in bias.objectives])
        self.places = [config.objective_names.index(name) for name in bias.objectives]
        self.logged = ParallelDense(
            len(bias.objectives),
            1,
            bias_initial=[initial_logits[name] for name in bias.objectives],
            name="logged_logit",
        )
        # The prior of t2 has each reading alone, t2 of 1/2 and -1/2, one standard deviation away.
        self.mix = OnlineLogistic(len(bias.objectives), (0.0, 1.0, 0.0, 1.0), (1.0, 10.0, 4.0, 10.0), name="mix")
        # One number is soon known, and the readings that it has to fit move on.
        self.level = OnlineLogistic(len(bias.objectives), (0.0,), (1.0,), recency=7.0, name="level")
        self.random_order = bias.random_order
        self.flagged = None if bias.random_order is None else _row_of_true(bias.random_order, rows)

    def read_towers(
        self, towers: tf.Tensor, relevance: tf.Tensor, training: bool | None = None
    ) -> dict[str, tf.Tensor]:
        """Both readings [B, K]; and the mix as relevance, but in training, which is of the readings themselves."""
        unbiased = tf.gather(relevance, self.places, axis=1)  # [B, K]
        if towers.shape.rank == 3:
            towers = tf.gather(towers, self.places, axis=1)
        logged = tf.squeeze(self.logged(towers), axis=-1)
        readings = {"unbiased": unbiased, "logged": logged}
        if not training:
            readings["relevance"] = self._mixed(unbiased, logged)
        return {
            f"{reading}_{name}_logit": logit
            for reading, logits in readings.items()
            for name, logit in self.by_objective(logits).items()
        }

    def logits(self, features: Mapping[str, tf.Tensor], training: bool | None = None) -> dict[str, tf.Tensor]:
        """The curve [B] by objective, as the tower has it in training; else as the mix has it, with its constant."""
        if training:
            return super().logits(features, training)
        assert self.tower is not None
        rows = self.tower_rows(features)
        numbers = self.mix.coefficients
        known = (rows[self.tower.dropped[0]] != MISSING)[:, tf.newaxis]
        constant = tf.where(known, numbers[:, 0], self.level.coefficients[:, 0])
        return self.by_objective(constant + numbers[:, 3] * self.tower(rows))

    def loss(
        self,
        features: Mapping[str, tf.Tensor],
        labels: Mapping[str, tf.Tensor],
        outputs: Mapping[str, tf.Tensor],
        weights: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Cross entropy of the second reading, a scalar over all objectives; in training the mix learns from the batch.

        Each objective has its `loss_weight`, also where those of the first reading are learned.
        """
        unbiased, logged = (
            tf.stack([outputs[f"{reading}_{name}_logit"] for name in self.objectives], axis=1)
            for reading in ("unbiased", "logged")
        )
        label = tf.stack([labels[name] for name in self.objectives], axis=1)  # [B, K]
        labelled = tf.math.is_finite(label)
        target, weight = tf.where(labelled, label, 0.0), tf.cast(labelled, logged.dtype)
        if weights is not None:
            weight *= tf.cast(weights, weight.dtype)[:, tf.newaxis]
        if training:
            self._learn(features, tf.stop_gradient(unbiased), tf.stop_gradient(logged), target, weight)
        each = tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=logged)
        return tf.reduce_sum(self.loss_weights * weight * each) / tf.cast(tf.shape(label)[0], weight.dtype)

    def _learn(
        self,
        features: Mapping[str, tf.Tensor],
        unbiased: tf.Tensor,
        logged: tf.Tensor,
        target: tf.Tensor,
        weight: tf.Tensor,
    ) -> None:
        assert self.tower is not None
        size = tf.shape(target)[:1]
        rows = rows_or_missing(self.tower.num_rows, features, size)
        if self.random_order is not None:
            flag = rows_or_missing([self.random_order], features, size)[self.random_order]
            identified = (flag == self.flagged) & (rows[self.tower.dropped[0]] != MISSING)
            curve = tf.stop_gradient(self.tower(rows))
            design = tf.stack([tf.ones_like(curve), (unbiased + logged) / 2.0, logged - unbiased, curve], axis=-1)
            self.mix.learn(design, target, weight * tf.cast(identified, weight.dtype)[:, tf.newaxis])
        missing = rows | {name: tf.fill(size, MISSING) for name in self.tower.dropped}
        served = self._mixed(unbiased, logged) + self.mix.coefficients[:, 3] * tf.stop_gradient(self.tower(missing))
        self.level.learn(tf.ones_like(target)[:, :, tf.newaxis], target, weight, offset=served)

    def _mixed(self, unbiased: tf.Tensor, logged: tf.Tensor) -> tf.Tensor:
        numbers = self.mix.coefficients  # [K, 4]
        return numbers[:, 1] * (unbiased + logged) / 2.0 + numbers[:, 2] * (logged - unbiased)


def _row_of_true(name: str, rows: FeatureRows) -> int:
    table = rows.rows[name]
    if not isinstance(table, VocabularyRows) or "true" not in table.vocabulary:
        values = list(table.vocabulary) if isinstance(table, VocabularyRows) else type(table).__name__
        raise InputError(
            f"The vocabulary of `{name}` must hold `true`, for requests in random order, because "
            f"`model.bias.random_order` names it. Received: {values}."
        )
    return int(table(tf.constant(["true"]))[0])

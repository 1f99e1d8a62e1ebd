"""The ranker: wiring only. Features, shared hidden layers, what objectives share, a tower an objective, the bias.

Shapes: B impressions, T objectives in config order, E experts, H units of the last shared hidden layer.

Outputs of a call, for each objective k:
  `k`                   [B]  probability, or value in the label's own unit
  `k_logit`             [B]  what the loss sees: relevance plus bias, not corrected for sampled negatives
  `relevance_k_logit`   [B]  from the main tower; of bias kind `anchored`, from both its readings
  `bias_k_logit`        [B]  from the shallow tower, for biased objectives ([1] where the whole request shares it)
  `shared`              [B, H]  the shared hidden layer
  `gates`               [B, T, E], where experts are mixed
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf
import tensorflow_recommenders as tfrs

from mmoe_ranker.bias_kinds import selection_bias
from mmoe_ranker.config import Config
from mmoe_ranker.features import FeatureEncoder, FeatureRows
from mmoe_ranker.layers import ParallelDense, dense_stack
from mmoe_ranker.losses import normalised_weights
from mmoe_ranker.objective_heads import ObjectiveHead
from mmoe_ranker.objectives import loss_weighting, objective_heads
from mmoe_ranker.precision import ScaledLossModel, computed_in
from mmoe_ranker.replicas import share_of_batch, total_over_replicas
from mmoe_ranker.sharing import expert_health, sharing_layer
from mmoe_ranker.statistics import Statistics

# What a step of tfrs reports of one replica; metrics count what all of them see.
_LOSSES = ("loss", "regularization_loss", "total_loss")


class Ranker(ScaledLossModel):
    """Multitask ranker with selection-bias modelling, after Zhao et al. 2019, fig. 1.

    Trains with plain Keras: `compile`, `fit` on a dataset of `(features, labels)` or `(features, labels, weights)`,
    where `features` is what `FeatureRows` returns and `labels` holds [B] floats per objective, NaN where missing.

    Example:
      >>> from mmoe_ranker.dataset import missing_features
      >>> ranker = Ranker(config, statistics)  # of your examples: `Statistics.load(folder)`
      >>> outputs = ranker(ranker.feature_rows(missing_features(config, count=2)))
      >>> outputs["click"].shape, outputs["gates"].shape
      (TensorShape([2]), TensorShape([2, 4, 4]))

    Args:
      config: features, objectives and model.
      statistics: vocabularies, moments and label rates of the training split.
    """

    def __init__(self, config: Config, statistics: Statistics) -> None:
        super().__init__(name=config.name)
        # What a step reports is the same on every replica.
        self.distribute_reduction_method = "first"
        model, num_objectives = config.model, len(config.objectives)
        self.feature_rows = FeatureRows(config, statistics)
        self.encoder = FeatureEncoder(config, statistics, self.feature_rows, name="encoder")
        self.crosses: list[tf.keras.layers.Layer] = []
        with computed_in(config.training.precision):
            if model.crosses is not None:
                self.crosses = [
                    tfrs.layers.dcn.Cross(projection_dim=model.crosses.projection, name=f"cross_{depth}")
                    for depth in range(model.crosses.layers)
                ]
            self.hidden = dense_stack(model.hidden, model.dropout, name="hidden")
            self.sharing = sharing_layer(model, num_objectives, config.training.seed)
            self.tower = [
                ParallelDense(num_objectives, units, "relu", name=f"tower_{depth}")
                for depth, units in enumerate(model.tower)
            ]
        self.expert_health = expert_health(model, config.objective_names)
        self.heads: dict[str, ObjectiveHead] = objective_heads(config, statistics)
        self.loss_weighting = loss_weighting(config, self.heads)
        initial_logits = {name: head.initial_logit for name, head in self.heads.items()}
        self.tower_logit = ParallelDense(
            num_objectives, 1, bias_initial=list(initial_logits.values()), name="tower_logit"
        )
        self.bias = selection_bias(config, self.feature_rows, initial_logits)
        self._run_dense_part = self.dense_part

    def call(self, features: Mapping[str, tf.Tensor], training: bool | None = None) -> dict[str, tf.Tensor]:
        """Predicts every objective; a bias feature that is not among `features` counts as missing, as at serving."""
        encoded = self.bias.extend_input(self.encoder(features, training=training), features, training)  # [B, D]
        outputs = self._run_dense_part(encoded, training=training)
        relevance = outputs.pop("relevance")  # [B, T]
        outputs |= self.bias.read_shared(outputs["shared"])
        outputs |= self.bias.read_towers(outputs.pop("towers"), relevance, training)
        bias = self.bias.logits(features, training)
        for index, (name, head) in enumerate(self.heads.items()):
            logit = outputs.setdefault(f"relevance_{name}_logit", relevance[:, index])
            if name in bias:
                outputs[f"bias_{name}_logit"] = bias[name]
                logit = logit + bias[name]
            outputs[f"{name}_logit"] = logit
            outputs[name] = head.prediction(logit)
        return outputs

    def dense_part(self, encoded: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        """All between the input and the logits of the main tower: `shared`, `towers`, `relevance` [B, T], `gates`."""
        # Keras casts the first input of a layer by itself, and a cross has two.
        crossed = encoded = tf.cast(encoded, self.hidden.compute_dtype)
        for layer in self.crosses:
            crossed = layer(encoded, crossed)
        shared = self.hidden(crossed, training=training)  # [B, H]
        towers, gates = self.sharing(shared, training=training)  # [B, T, U] or [B, U], [B, T, E] or None
        for layer in self.tower:
            towers = layer(towers)
        relevance = tf.squeeze(self.tower_logit(towers), axis=-1)
        outputs = {"shared": shared, "towers": towers, "relevance": relevance} | (
            {} if gates is None else {"gates": gates}
        )
        return {name: tf.cast(values, tf.float32) for name, values in outputs.items()}

    def compile_dense_part(self) -> None:
        """Has XLA compile the dense part, once a batch size; rows, strings and updates of tables stay as they are.

        The ranker must have been called, since XLA compiles no making of variables.
        """
        self._run_dense_part = tf.function(self.dense_part, jit_compile=True)

    def compute_loss(self, inputs: tuple, training: bool = False) -> tf.Tensor:
        """Weighted sum over objectives of the loss per impression of the batch (sec. 4.2).

        Args:
          inputs: `(features, labels)` or `(features, labels, weights)`; labels [B], NaN where missing; weights [B],
            which count relative to their mean in the batch.
          training: whether dropout is active.
        """
        features, labels, weights = inputs if len(inputs) == 3 else (*inputs, None)
        outputs = self(features, training=training)
        if self.expert_health is not None:
            self.expert_health.update_state(outputs["gates"])
        weights = None if weights is None else normalised_weights(weights)
        parts = [head.loss(labels, outputs, weights, training) for head in self.heads.values()]
        loss = self.loss_weighting(tf.stack([part.loss for part in parts]), tf.stack([part.labelled for part in parts]))
        loss += self.bias.loss(features, labels, outputs, weights, training)
        # The gradients of replicas are summed, so that their losses have to sum to the batch's.
        return loss * share_of_batch(tf.shape(outputs[next(iter(self.heads))])[0])

    def train_step(self, inputs: tuple) -> dict[str, tf.Tensor]:
        """One step of training; returns the metrics by name."""
        return _reported(super().train_step(inputs))

    def test_step(self, inputs: tuple) -> dict[str, tf.Tensor]:
        """The metrics of a batch that is not trained on, by name."""
        return _reported(super().test_step(inputs))

    def embedding_variables(self) -> list[tf.Variable]:
        """The tables of the main tower, of which a step touches few rows."""
        return [variable for table in self.encoder.embedding_tables for variable in table.trainable_variables]


def _reported(metrics: Mapping[str, tf.Tensor | dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    return {name: total_over_replicas(value) if name in _LOSSES else value for name, value in _flat(metrics).items()}


def _flat(metrics: Mapping[str, tf.Tensor | dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
    """A metric of several figures gives each under its own name."""
    flat: dict[str, tf.Tensor] = {}
    for name, value in metrics.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat

"""Optimisers: embedding tables by one that touches only the rows of a batch, all else by a dense one.

Adam moves every row of every table at every step, so that a step costs what the vocabulary costs; Adagrad on the rows
of the batch keeps the step independent of it.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from mmoe_ranker.config_training import Optimizer, Training
from mmoe_ranker.model import Ranker


class RowAdagrad(tf.keras.optimizers.legacy.Adagrad):
    """Adagrad that reads, moves and writes the rows of a batch together.

    a_r = a_r + g_r^2, w_r = w_r - learning_rate g_r / (sqrt(a_r) + epsilon), for the rows r of the batch, each once.
    TensorFlow's own kernel goes row by row, in several times the time for rows as narrow as those of tables.
    """

    def _resource_apply_sparse(
        self, grad: tf.Tensor, var: tf.Variable, indices: tf.Tensor, apply_state: dict[Any, Any] | None = None
    ) -> tf.Operation:
        accumulator = self.get_slot(var, "accumulator")
        place = (var.device, var.dtype.base_dtype)
        state = (apply_state or {}).get(place) or self._fallback_apply_state(*place)
        squares = tf.gather(accumulator, indices) + tf.square(grad)
        rows = tf.gather(var, indices) - state["lr_t"] * grad / (tf.sqrt(squares) + state["epsilon"])
        return tf.group(
            accumulator.scatter_update(tf.IndexedSlices(squares, indices)),
            var.scatter_update(tf.IndexedSlices(rows, indices)),
        )


# The older Keras optimisers apply a step in one fused kernel, and are what tfrs' composite optimiser composes.
_OPTIMIZERS = {
    "adagrad": RowAdagrad,
    "adam": tf.keras.optimizers.legacy.Adam,
    "sgd": tf.keras.optimizers.legacy.SGD,
}


class _Composite(tfrs.experimental.optimizers.CompositeOptimizer):
    """tfrs' composite, which answers with an operation, as Keras' loss scaling expects of an optimiser."""

    def apply_gradients(self, *args: Any, **kwargs: Any) -> tf.Operation | None:
        super().apply_gradients(*args, **kwargs)
        return tf.no_op()


def compile_ranker(ranker: Ranker, training: Training) -> None:
    """Compiles with the optimiser that the config describes, its slots made, and with XLA where the config says so.

    Keras' older optimisers make slots at their first step otherwise, and a checkpoint that is read and written before
    that step would lose them.
    """
    optimizer = composite_optimizer(ranker, training)
    for part, variables in zip(optimizer.optimizers, optimized_variables(ranker), strict=True):
        part._create_all_weights(variables)
    if training.precision == "mixed_float16":
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
    if training.xla:
        ranker.compile_dense_part()
    ranker.compile(optimizer=optimizer)


def composite_optimizer(ranker: Ranker, training: Training) -> tf.keras.optimizers.legacy.Optimizer:
    """The optimiser that the config describes, for `ranker.compile`.

    `training.embedding_optimizer` moves the embedding tables of the main tower, `training.bias_optimizer` the shallow
    tower, `training.optimizer` the rest.
    """
    shared = training.distribution.kind == "parameter_server"
    chosen = [training.embedding_optimizer, training.optimizer]
    if ranker.bias.tower is not None:
        chosen.append(training.bias_optimizer or training.optimizer)
    return _Composite(
        [
            (_build(optimizer, shared), functools.partial(_variables_of_part, ranker, part))
            for part, optimizer in enumerate(chosen)
        ]
    )


def optimized_variables(ranker: Ranker) -> list[list[tf.Variable]]:
    """What each part of the composite optimiser moves: embedding tables, the rest, and the shallow tower if any."""
    tables, tower = ranker.embedding_variables(), ranker.bias.tower
    apart = [] if tower is None else [tower.trainable_variables]
    known = {variable.ref() for part in (tables, *apart) for variable in part}
    return [tables, [variable for variable in ranker.trainable_variables if variable.ref() not in known], *apart]


def _variables_of_part(ranker: Ranker, part: int) -> list[tf.Variable]:
    return optimized_variables(ranker)[part]


def _build(optimizer: Optimizer, shared: bool) -> tf.keras.optimizers.legacy.Optimizer:
    if optimizer.name == "adagrad" and shared:
        # Workers that do not wait for each other may move the same row, which has to be read and written in one go.
        return tf.keras.optimizers.legacy.Adagrad(learning_rate=optimizer.learning_rate)
    return _OPTIMIZERS[optimizer.name](learning_rate=optimizer.learning_rate)

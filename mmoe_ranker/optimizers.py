"""Optimisers: embedding tables by one that touches only the rows of a batch, all else by a dense one.

Adam moves every row of every table at every step, so that a step costs what the vocabulary costs; Adagrad on the rows
of the batch keeps the step independent of it.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_recommenders as tfrs

from mmoe_ranker.config_training import Optimizer, Training
from mmoe_ranker.model import Ranker

# The older Keras optimisers apply a step in one fused kernel, and are what tfrs' composite optimiser composes.
_OPTIMIZERS = {
    "adagrad": tf.keras.optimizers.legacy.Adagrad,
    "adam": tf.keras.optimizers.legacy.Adam,
    "sgd": tf.keras.optimizers.legacy.SGD,
}


def compile_ranker(ranker: Ranker, training: Training) -> None:
    """Compiles with the optimiser that the config describes, and makes its slots at once.

    Keras' older optimisers make slots at their first step otherwise, and a checkpoint that is read and written before
    that step would lose them.
    """
    ranker.compile(optimizer=composite_optimizer(ranker, training))
    for optimizer, variables in zip(ranker.optimizer.optimizers, optimized_variables(ranker), strict=True):
        optimizer._create_all_weights(variables)


def composite_optimizer(ranker: Ranker, training: Training) -> tf.keras.optimizers.legacy.Optimizer:
    """The optimiser that the config describes, for `ranker.compile`.

    `training.embedding_optimizer` moves the embedding tables of the main tower, `training.optimizer` the rest.
    """

    return tfrs.experimental.optimizers.CompositeOptimizer(
        [
            (_build(training.embedding_optimizer), lambda: optimized_variables(ranker)[0]),
            (_build(training.optimizer), lambda: optimized_variables(ranker)[1]),
        ]
    )


def optimized_variables(ranker: Ranker) -> tuple[list[tf.Variable], list[tf.Variable]]:
    """What each part of the composite optimiser moves: the embedding tables, and the rest."""
    tables = ranker.embedding_variables()
    known = {variable.ref() for variable in tables}
    return tables, [variable for variable in ranker.trainable_variables if variable.ref() not in known]


def _build(optimizer: Optimizer) -> tf.keras.optimizers.legacy.Optimizer:
    return _OPTIMIZERS[optimizer.name](learning_rate=optimizer.learning_rate)

"""Incremental training: yesterday's finished training goes on with today's examples, while vocabularies grow.

A value that is new today was out of vocabulary yesterday, so that its impressions trained a row that it shared with
others by its hash. Its own row starts as a copy of that one: before the first step the new ranker answers exactly as
the old one did, for old values and for new. The optimiser's slots are carried in the same way, row by row, so that
Adagrad goes on with the step size that the row had come to. Numeric moments, bucket edges and label statistics stay
yesterday's, because the weights were learned behind them (`Statistics.grown_by`).

Terms: R rows of a table; an origin is the row of yesterday's table that a row of today's starts from.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.layers import HashRows, IntegerRows, VocabularyRows
from mmoe_ranker.model import Ranker
from mmoe_ranker.optimizers import compile_ranker, optimized_variables
from mmoe_ranker.selection_bias import AdversarialBias, InputFeatureBias
from mmoe_ranker.training_progress import Progress
from mmoe_ranker.workdir import CHECKPOINTS, Workdir

# For each place along an axis of a variable, yesterday's place; and the axis.
_Origins: TypeAlias = tuple[NDArray[np.int64], int]

# What the weights depend on; training, split, evaluation and the combined score may change from day to day.
_CARRIED_SECTIONS = ("item_key", "features", "objectives", "model", "sampling")


def open_start(path: Path, config: Config) -> Workdir:
    """The finished training to start from.

    Raises:
      InputError: it has not finished, or its features, objectives or model are not those of `config`.
    """
    start = Workdir.open(path)
    old = start.config
    for section in _CARRIED_SECTIONS:
        if getattr(old, section) != getattr(config, section):
            raise InputError(
                f"The config must have the very `{section}` of the training that it starts from; only the values of "
                f"`vocabulary: auto` may grow. Received: {str(path)!r}, with other `{section}`."
            )
    return start


def carry_over(start: Workdir, workdir: Workdir, steps_per_epoch: int) -> None:
    """Writes the first checkpoint of a workdir, unless it has one: the weights and slots of another training.

    Args:
      start: the finished training.
      workdir: begun with `start`, so that its vocabularies are those of `start` and more.
      steps_per_epoch: of the new training.
    """
    if tf.train.latest_checkpoint(str(workdir.path / CHECKPOINTS)) is not None:
        return
    # Whatever they compute in: weights and slots are float32.
    plain = {"precision": "float32", "xla": False}
    old, new = start.build_ranker(), workdir.build_ranker()
    compile_ranker(old, start.config.training.model_copy(update=plain))
    start.restore(ranker=old, optimizer=old.optimizer)
    compile_ranker(new, workdir.config.training.model_copy(update=plain))
    copy_ranker(old, new)
    Progress(new, workdir.path / CHECKPOINTS, steps_per_epoch).save()


def copy_ranker(old: Ranker, new: Ranker) -> None:
    """Copies weights, states of random generators and optimiser slots from one ranker to one with more rows.

    Where the config names another optimiser than the old one did, its slots start afresh.

    Args:
      old: with its slots made.
      new: of the same features, objectives and model, and vocabularies that begin with those of `old`.
    """
    origins = {variable.ref(): found for variable, found in _variables_by_value(old, new)}
    counterpart = {}
    for before, after in _variable_pairs(old, new):
        _copy(before, after, origins.get(after.ref()))
        counterpart[after.ref()] = before
    groups = zip(old.optimizer.optimizers, new.optimizer.optimizers, optimized_variables(new), strict=True)
    for old_optimizer, new_optimizer, variables in groups:
        if type(old_optimizer) is not type(new_optimizer):
            continue
        new_optimizer.iterations.assign(old_optimizer.iterations)
        for slot, variable in itertools.product(new_optimizer.get_slot_names(), variables):
            before = old_optimizer.get_slot(counterpart[variable.ref()], slot)
            _copy(before, new_optimizer.get_slot(variable, slot), origins.get(variable.ref()))


def row_origins(
    old: VocabularyRows | HashRows | IntegerRows, new: VocabularyRows | HashRows | IntegerRows
) -> NDArray[np.int64]:
    """For each row of a feature today, the row of yesterday that its value had.

    Args:
      old: how values became rows.
      new: how they do; a vocabulary begins with the values of the old one.

    Returns:
      [R], for a new value the out-of-vocabulary row that it was hashed into.
    """
    if not isinstance(old, VocabularyRows) or not isinstance(new, VocabularyRows):
        return np.arange(new.num_rows)
    # Row 0 and the out-of-vocabulary rows keep their place.
    shared = np.arange(new.num_rows - len(new.vocabulary))
    if not new.vocabulary:
        return shared
    return np.concatenate([shared, old(tf.constant(new.vocabulary)).numpy()])


def joint_origins(origins: Sequence[NDArray[np.int64]], old_num_rows: Sequence[int]) -> NDArray[np.int64]:
    """Origins of the joint rows of a cross, r_1 R_2 R_3 + r_2 R_3 + r_3.

    Args:
      origins: of each feature of the cross, [R_i] each.
      old_num_rows: how many rows each had yesterday.
    """
    joint = np.zeros(1, dtype=np.int64)
    for rows, old_rows in zip(origins, old_num_rows, strict=True):
        joint = np.add.outer(joint * old_rows, rows).reshape(-1)
    return joint


def _variables_by_value(old: Ranker, new: Ranker) -> Iterator[tuple[tf.Variable, _Origins]]:
    """The variables of today's ranker along one axis of which stand the values of a feature, with their origins."""
    rows = {name: row_origins(old.feature_rows.rows[name], rows) for name, rows in new.feature_rows.rows.items()}
    tables = dict(new.encoder.tables)
    if isinstance(new.bias, InputFeatureBias):
        tables |= new.bias.tables
    for name, layer in tables.items():
        yield layer.embeddings, (rows[name], 0)
    if isinstance(new.bias, AdversarialBias):
        for name, head in new.bias.heads.items():
            yield head.kernel, (rows[name], 1)
            yield head.bias, (rows[name], 0)
    if new.bias.tower is not None and old.bias.tower is not None:
        num_rows = old.bias.tower.num_rows
        for names in [*((name,) for name in num_rows), *new.bias.tower.crosses]:
            joint = joint_origins([rows[name] for name in names], [num_rows[name] for name in names])
            yield new.bias.tower.tables["_x_".join(names)].embeddings, (joint, 0)


def _variable_pairs(old: tf.Module, new: tf.Module) -> Iterator[tuple[tf.Variable, tf.Variable]]:
    """All that a checkpoint of two models of one structure holds, place by place: weights, metrics, generators."""
    waiting, seen = [(old, new)], set()
    while waiting:
        before, after = waiting.pop()
        if id(after) in seen:
            continue
        seen.add(id(after))
        if isinstance(after, tf.Variable):
            yield before, after
        old_children = tf.train.TrackableView.children(before)
        for name, child in tf.train.TrackableView.children(after).items():
            if name in old_children:
                waiting.append((old_children[name], child))


def _copy(before: tf.Variable, after: tf.Variable, origins: _Origins | None) -> None:
    after.assign(before if origins is None else tf.gather(before, origins[0], axis=origins[1]))

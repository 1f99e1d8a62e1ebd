"""The signatures of the exported model: what TF Serving calls, checks included, because TF Serving checks no shapes.

Shapes: N candidates, T objectives in config order, L places of a sequence.

  serving_default    one tensor a feature, each [N, ...]
  rank               context features [1, ...], candidate features [N, ...], score_weights [T] with a default
  serving_examples   `examples`, [N] serialized tf.train.Examples
  contract           nothing in; `contract`, a scalar of JSON: item key, bias features, objectives, combined score

The first three return each objective [N] and `combined_score` [N]; `rank` also `ranking` [N], indices best first. No
signature has a bias feature among its inputs: position is unknown before the ranking is made. `contract` tells a client
over the network what types and shapes cannot: which feature is the item's key, and what the score is made of.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from mmoe_ranker.combined_score import CombinedScore, combined_score, ranking_key
from mmoe_ranker.config import Config
from mmoe_ranker.dataset import parse_examples
from mmoe_ranker.examples import Field, feature_field
from mmoe_ranker.features import FeatureRows
from mmoe_ranker.model import Ranker

SCORE_WEIGHTS = "score_weights"
RANKING = "ranking"
COMBINED_SCORE = "combined_score"
EXAMPLES = "examples"
CONTRACT = "contract"

_DTYPES = {"bytes": tf.string, "int64": tf.int64, "float": tf.float32}


def feature_specs(config: Config, context_rows: int | None) -> dict[str, tf.TensorSpec]:
    """Each served feature's type and shape.

    Args:
      config: names the features.
      context_rows: 1 where the context stands once a request, None where it stands once a candidate.
    """
    specs = {}
    for feature in config.served_features:
        field = feature_field(config, feature)
        rows = context_rows if feature.side == "context" else None
        inner: list[int | None] = [] if field.length == 1 else [field.length]
        specs[feature.name] = tf.TensorSpec([rows, *inner], _DTYPES[field.wire], name=feature.name)
    return specs


def contract_of(config: Config) -> dict[str, Any]:
    """What a client may want to know and the types and shapes of the signatures do not say."""
    return {
        "name": config.name,
        "item_key": config.item_key,
        "bias_features": [feature.name for feature in config.side("bias")],
        "objectives": [objective.model_dump(mode="json") for objective in config.objectives],
        "combined_score": config.combined_score.model_dump(mode="json"),
    }


class ServingModule(tf.Module):
    """The trained ranker, the lookup of categories, and the combined score, as signatures.

    Args:
      ranker: trained.
      config: the config that trained it.
    """

    def __init__(self, ranker: Ranker, config: Config) -> None:
        super().__init__()
        # The module owns the weights and the lookup tables, but not the Keras model itself: saving that as well would
        # add its training graphs to the export.
        self.weights = ranker.variables
        self.feature_rows = ranker.feature_rows
        self._predict = lambda features: ranker(features, training=False)
        self._config = config
        self._score = CombinedScore.from_terms(
            config.objective_names, config.combined_score.form, config.combined_score.terms
        )
        self._fields = [feature_field(config, feature) for feature in config.served_features]

    def signatures(self) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
        """The signatures by name, as `tf.saved_model.save` takes them."""
        default_weights = tf.constant(self._score.weights, tf.float32)
        default_specs, rank_specs = feature_specs(self._config, None), feature_specs(self._config, 1)
        rank_reference = next(
            (feature.name for feature in self._config.served_features if feature.side == "candidate"),
            next(iter(rank_specs)),
        )
        default_reference = next(iter(default_specs))

        def serving_default(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            checked = _with_shapes(features, default_specs, default_reference)
            return self._outputs(checked, default_weights)[0]

        # A tensor as default value of an argument becomes SignatureDef.defaults: the server fills it in.
        def rank(features: Mapping[str, tf.Tensor], score_weights: tf.Tensor = default_weights) -> dict[str, tf.Tensor]:
            weights = tf.ensure_shape(
                score_weights, default_weights.shape, name="score_weights_must_have_one_an_objective"
            )
            allowed = tf.math.is_finite(weights) & ((weights >= 0.0) | ~tf.constant(self._score.complements))
            rule = "`score_weights` must be finite, and at least 0 for a term with a complement. Received:"
            check = tf.debugging.Assert(tf.reduce_all(allowed), [rule, weights])
            checked = _with_shapes(features, rank_specs, rank_reference)
            with tf.control_dependencies([check]):
                weights = tf.identity(weights)
            outputs, key = self._outputs(checked, weights)
            return outputs | {RANKING: tf.argsort(key, direction="DESCENDING", stable=True)}

        def serving_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            serialized = tf.ensure_shape(examples, [None], name="examples_must_be_a_vector")
            return self._outputs(parse_examples(serialized, self._fields), default_weights)[0]

        contract_text = json.dumps(contract_of(self._config))

        def contract() -> dict[str, tf.Tensor]:
            return {CONTRACT: tf.constant(contract_text)}

        weights_spec = tf.TensorSpec(default_weights.shape, tf.float32, name=SCORE_WEIGHTS)
        examples_spec = tf.TensorSpec([None], tf.string, name=EXAMPLES)
        return {
            "serving_default": tf.function(serving_default, input_signature=[default_specs]),
            "rank": tf.function(rank, input_signature=[rank_specs, weights_spec]),
            "serving_examples": tf.function(serving_examples, input_signature=[examples_spec]),
            CONTRACT: tf.function(contract, input_signature=[]),
        }

    def _outputs(self, raw: Mapping[str, tf.Tensor], weights: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        checks = _range_checks(raw, self._config, self._fields, self.feature_rows)
        # What is out of range must not meet the tables; numbers may be computed with meanwhile.
        with tf.control_dependencies(checks):
            raw = {name: tf.identity(values) if values.dtype == tf.int64 else values for name, values in raw.items()}
        predicted = self._predict(self.feature_rows(raw))
        with tf.control_dependencies(checks):
            predictions = [tf.identity(predicted[name]) for name in self._score.objectives]
        arguments = (predictions, weights, self._score.offsets, self._score.complements, self._score.form, tf.math)
        outputs = dict(zip(self._score.objectives, predictions, strict=True))
        return outputs | {COMBINED_SCORE: combined_score(*arguments)}, ranking_key(*arguments)


def _with_shapes(
    features: Mapping[str, tf.Tensor], specs: Mapping[str, tf.TensorSpec], reference: str
) -> dict[str, tf.Tensor]:
    """The features, refused at run time where their rank or size is not what the signature says."""
    checked = {
        name: tf.ensure_shape(values, specs[name].shape, name=f"shape_of_{name}") for name, values in features.items()
    }
    counted = [reference, *(name for name in checked if specs[name].shape[0] is None and name != reference)]
    rows = tf.stack(
        [tf.size(checked[name]) if specs[name].shape.rank == 1 else tf.shape(checked[name])[0] for name in counted]
    )
    rules = [f"`{name}` must have as many rows as `{reference}`. Received:" for name in counted]
    check = _refuse_unless(rows == rows[0], rules, lambda place: rows[place])
    with tf.control_dependencies([check]):
        return {name: tf.identity(values) for name, values in checked.items()}


def _range_checks(
    raw: Mapping[str, tf.Tensor], config: Config, fields: list[Field], rows: FeatureRows
) -> list[tf.Operation]:
    """Refuses what the pipeline would have refused: infinite numbers, integers that have no row of their own.

    Features of the same type and shape are checked at once, as many small ops would cost more than the model.
    """
    alike: dict[Any, list[tuple[str, str, float, float]]] = {}
    for feature, field in zip(config.served_features, fields, strict=True):
        values = raw[feature.name]
        lowest, highest = -math.inf, math.inf
        if field.wire == "bytes":
            continue
        if field.wire == "int64":
            lowest, highest = -2, rows.rows[feature.name].num_rows - 1
            rule = f"must be from 0 to {highest - 1}, or -1 for missing"
        elif feature.kind == "vector":
            # NaN says "missing" for one number; a content vector is there or not as a whole.
            rule = "must be finite"
        else:
            rule = "must be finite, or NaN for missing"
            if feature.kind == "numeric" and feature.transform == "log1p":
                lowest = -1.0
                rule += ", and above -1 for log1p"
        kind = (values.dtype, values.shape[0], None if values.shape.rank == 1 else feature.name)
        alike.setdefault(kind, []).append((feature.name, f"`{feature.name}` {rule}. Received:", lowest, highest))
    return [_range_check(dtype, raw, limits) for (dtype, _, _), limits in alike.items()]


def _range_check(
    dtype: tf.DType, raw: Mapping[str, tf.Tensor], limits: Sequence[tuple[str, str, float, float]]
) -> tf.Operation:
    """Refuses values that are not strictly between the limits of their feature; features of one shape."""
    names, rules, lowest, highest = zip(*limits, strict=True)
    values = tf.stack([raw[name] for name in names])  # [F, ...]
    each = [len(names)] + [1] * (values.shape.rank - 1)
    # Not ~(values <= lowest), which graph optimisation turns into values > lowest, and NaN into a refusal.
    good = (values > tf.reshape(tf.constant(lowest, dtype), each)) & (
        values < tf.reshape(tf.constant(highest, dtype), each)
    )
    if dtype == tf.float32 and values.shape.rank == 2:
        good |= tf.math.is_nan(values)
    by_feature = tf.reduce_all(good, axis=list(range(1, values.shape.rank)))
    return _refuse_unless(by_feature, rules, lambda place: tf.boolean_mask(values[place], ~good[place]))


def _refuse_unless(good: tf.Tensor, rules: Sequence[str], received: Callable[[tf.Tensor], tf.Tensor]) -> tf.Operation:
    """Refuses the request by the rule of the first of F features that is not good, [F], and what was received of it.

    The words are put together only then.
    """

    def refuse() -> tf.Operation:
        place = tf.argmin(tf.cast(good, tf.int32))
        return tf.debugging.Assert(False, [tf.gather(tf.constant(rules), place), received(place)])

    return tf.cond(tf.reduce_all(good), tf.no_op, refuse)

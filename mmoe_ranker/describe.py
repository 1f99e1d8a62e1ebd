"""What a model costs: parameters and multiplications of each layer, so that models compare at equal cost (table 1).

Counted in the graph that serves, so that a new layer needs no formula here: the ranker is traced for requests of two
and of three candidates, and the difference is the cost of one. Nothing is allocated: tables of any size are described.

What counts as a multiplication: those of matrix products, of weighted sums (einsums, pooling, mixing by gates), and of
element-wise products of floats. Divisions, additions, activations and look-ups of embeddings do not. A sequence counts
at its `max_length`, and a bias feature is missing, as at serving.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import UninitializedVariable  # of which tf exports nothing

from mmoe_ranker.config import Config
from mmoe_ranker.model import Ranker
from mmoe_ranker.serving_signatures import feature_specs
from mmoe_ranker.statistics import LabelStatistics, NumericStatistics, Statistics

# Scopes that TensorFlow and Keras open by themselves, which say nothing of which layer it is.
_ANONYMOUS = re.compile(r"(einsum|Tensordot|dense|table)(_\d+)?")


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """Cost of one layer.

    Attributes:
      layer: its path below the model.
      parameters: trainable numbers; None where they depend on examples that are not there.
      multiplications: for one example, its context included.
      once_a_request: those of them that the `rank` signature computes once for all candidates of a request.
    """

    layer: str
    parameters: int | None
    multiplications: int
    once_a_request: int


@dataclasses.dataclass(frozen=True)
class Description:
    """Cost of a model, layer by layer in the order of the computation."""

    layers: tuple[LayerCost, ...]

    @property
    def parameters(self) -> int | None:
        """All trainable numbers; None where a layer's are not known."""
        known = [layer.parameters for layer in self.layers if layer.parameters is not None]
        return sum(known) if len(known) == len(self.layers) else None

    @property
    def dense_parameters(self) -> int:
        """Trainable numbers of the layers that multiply: all but tables."""
        return sum(layer.parameters or 0 for layer in self.layers if layer.multiplications)

    @property
    def multiplications(self) -> int:
        """For one example, its context included."""
        return sum(layer.multiplications for layer in self.layers)

    @property
    def once_a_request(self) -> int:
        """Those of the multiplications that `rank` computes once for all candidates of a request."""
        return sum(layer.once_a_request for layer in self.layers)

    def as_json(self) -> dict[str, Any]:
        """The description as `json.dumps` takes it; null for what is not known."""
        totals = ("parameters", "dense_parameters", "multiplications", "once_a_request")
        return {
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
            "total": {name: getattr(self, name) for name in totals},
        }


def describe(config: Config, statistics: Statistics | None = None) -> Description:
    """Counts parameters and multiplications of the model that a config describes.

    Args:
      config: features, objectives and model.
      statistics: of the examples it would train on. Without them the rows of tables that are counted on examples are
        unknown, and numeric features are taken to be never missing, of which the model has a column each otherwise.
    """
    layers = _count(config, statistics or _made_up_statistics(config, 1))
    if statistics is None:
        # Whatever changes with the number of counted values is unknown as long as that number is.
        ranker = _build(config, _made_up_statistics(config, 2))
        more = _parameters(ranker, _trace(ranker, config, 2))
        layers = [
            layer if layer.parameters == more[layer.layer] else dataclasses.replace(layer, parameters=None)
            for layer in layers
        ]
    return Description(tuple(layers))


def format_description(description: Description) -> str:
    """The description as a table, with what is not known as "-" and a line on it."""
    rows: list[tuple[str, ...]] = [("layer", "parameters", "multiplications", "once a request")]
    rows += [
        (layer.layer, _number(layer.parameters), _number(layer.multiplications), _number(layer.once_a_request))
        for layer in description.layers
    ]
    total = (description.parameters, description.multiplications, description.once_a_request)
    rows.append(("total", *map(_number, total)))
    rows.append(("total of layers that multiply", _number(description.dense_parameters), *map(_number, total[1:])))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    lines += ["", "Multiplications are for one example; `rank` computes some of them once for all of its candidates."]
    if description.parameters is None:
        lines += [
            "- is counted on examples: pass --examples. Without them numbers are taken to be never missing; "
            "each that is widens the input by one."
        ]
    return "\n".join(lines)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _build(config: Config, statistics: Statistics) -> Ranker:
    """A ranker that is only traced, never run: its variables have shapes and names and take no memory."""

    def without_memory(next_creator: Callable[..., tf.Variable], **given: Any) -> tf.Variable:
        if not callable(given["initial_value"]):
            return next_creator(**given)  # the state of a random generator
        names = ("trainable", "name", "dtype", "shape", "synchronization", "aggregation")
        return UninitializedVariable(**{name: given[name] for name in names if name in given})

    with tf.variable_creator_scope(without_memory):
        ranker = Ranker(config, statistics)
        # Keras makes variables at the first call.
        _trace(ranker, config, 2)
    return ranker


def _trace(ranker: Ranker, config: Config, candidates: int) -> tf.Graph:
    """The graph of a call for one request, the context once for all its candidates, as `rank` computes it."""

    @tf.function
    def forward(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return ranker(ranker.feature_rows(features), training=False)

    return forward.get_concrete_function(_request_specs(config, candidates)).graph


def _count(config: Config, statistics: Statistics) -> list[LayerCost]:
    ranker = _build(config, statistics)
    graph = _trace(ranker, config, 2)
    parameters = _parameters(ranker, graph)
    two, three = (_multiplications(traced, ranker.name) for traced in (graph, _trace(ranker, config, 3)))
    layers = []
    for name in sorted({*two, *parameters}, key=_order(ranker, [*parameters, *two])):
        a_candidate = three[name] - two[name]
        once = two[name] - 2 * a_candidate
        layers.append(LayerCost(name, parameters[name], a_candidate + once, once))
    return layers


def _parameters(ranker: Ranker, graph: tf.Graph) -> collections.Counter[str]:
    """Trainable numbers of each layer, by the path that its operations have in the graph of a call."""
    paths = {_layer_of(operation.name, ranker.name) for operation in graph.get_operations()}
    parameters: collections.Counter[str] = collections.Counter()
    for variable in ranker.trainable_variables:
        path = _layer_of(variable.name, ranker.name)
        # Keras names the variables of a stack by the stack alone, wherever it stands.
        nested = [longer for longer in paths if longer.endswith(f"/{path}")]
        parameters[path if path in paths or len(nested) != 1 else nested[0]] += math.prod(variable.shape.as_list())
    return parameters


def _request_specs(config: Config, candidates: int) -> dict[str, tf.TensorSpec]:
    """The served features of one request as they come from outside, of a static number of rows."""
    specs = {}
    for name, spec in feature_specs(config, None).items():
        feature = config.feature(name)
        rows = 1 if feature.side == "context" else candidates
        # Of all features, only a sequence has an open end.
        inner = [getattr(feature, "max_length", None) if size is None else size for size in spec.shape.as_list()[1:]]
        specs[name] = tf.TensorSpec([rows, *inner], spec.dtype, name)
    return specs


def _multiplications(graph: tf.Graph, model: str) -> collections.Counter[str]:
    """Multiplications of each layer in the graph of a call."""
    counts: collections.Counter[str] = collections.Counter()
    for operation in graph.get_operations():
        counts[_layer_of(operation.name, model)] += _of_operation(operation)
    return +counts


def _of_operation(operation: tf.Operation) -> int:
    kind = operation.type
    if kind.endswith("PartitionedCall"):
        # A function called by the layer, with operations of its own.
        function = operation.graph._get_function(operation.get_attr("f").name)
        return sum(_of_operation(inner) for inner in function.graph.get_operations())
    if not operation.outputs or not operation.outputs[0].dtype.is_floating:
        return 0
    if kind == "Einsum":
        return _of_einsum(operation)
    size = math.prod(operation.outputs[0].shape.as_list()) if operation.outputs[0].shape.is_fully_defined() else 0
    if kind == "MatMul":
        return size * operation.inputs[0].shape[0 if operation.get_attr("transpose_a") else 1]
    if kind.startswith("BatchMatMul"):
        return size * operation.inputs[0].shape[-2 if operation.get_attr("adj_x") else -1]
    return size if kind == "Mul" else 0


def _of_einsum(operation: tf.Operation) -> int:
    """One multiplication for each combination of indices, such as b s i u of `bsi,siu->bsu`."""
    terms = operation.get_attr("equation").decode().split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, operand in zip(terms, operation.inputs, strict=True):
        sizes |= zip(term, operand.shape.as_list(), strict=True)
    return math.prod(sizes.values()) if len(terms) > 1 else 0


def _layer_of(name: str, model: str) -> str:
    """The path of the layer that an operation or a variable of this name belongs to."""
    scopes = [scope for scope in name.split("/")[:-1] if not _ANONYMOUS.fullmatch(scope)]
    # Variables of a stack are named without the model's scope.
    scopes = scopes[1:] if scopes and scopes[0] == model else scopes
    # `hidden/hidden_0` says it twice.
    scopes = [
        scope
        for place, scope in enumerate(scopes)
        if place + 1 == len(scopes) or not scopes[place + 1].startswith(f"{scope}_")
    ]
    return "/".join(scopes) or "predictions"


def _order(ranker: Ranker, names: Iterable[str]) -> Any:
    """A sort key: layers as the model lists them, what it does itself last."""
    tops = {layer.name: place for place, layer in enumerate(ranker.layers)}
    places: Mapping[str, int] = {name: place for place, name in enumerate(dict.fromkeys(names))}

    def key(name: str) -> tuple[int, int, bool]:
        top = name.split("/")[0]
        first = next((tops[part] for part in (top, re.sub(r"_\d+$", "", top)) if part in tops), len(tops))
        # What a layer does beside its sublayers comes after them.
        below = [place for other, place in places.items() if other.startswith(f"{name}/")]
        return first, max(below, default=places[name]), bool(below)

    return key


def _made_up_statistics(config: Config, values: int) -> Statistics:
    """Statistics that fit a config, with so many values a counted vocabulary and so many edges of buckets."""
    edges = tuple(float(edge) for edge in range(values))
    moments = NumericStatistics(count=1, missing=0, mean=0.0, std=1.0, min=0.0, max=1.0, quantiles=edges)
    vocabulary = tuple(str(value) for value in range(values))
    counted = [feature.name for feature in config.features if getattr(feature, "vocabulary", None) == "auto"]
    return Statistics(
        num_examples=1,
        numeric={feature.name: moments for feature in config.features if feature.kind == "numeric"},
        labels={name: LabelStatistics(count=1, mean=0.5, std=0.5) for name in config.objective_names},
        vocabularies=dict.fromkeys(counted, vocabulary),
    )

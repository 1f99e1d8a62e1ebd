"""What a model costs, against numbers computed by hand from the config's widths."""

from __future__ import annotations

import json
from typing import Any

import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import override_config, parse_config
from mmoe_ranker.describe import _multiplications, describe, format_description
from mmoe_ranker.model import Ranker
from mmoe_ranker.statistics import Statistics
from tests.configs import small_config

# user_id 8, device 4, watch_history 8; video_id 8, duration 1 (+1 where it may be missing) and 2, content 6.
_INPUT = 8 + 4 + 8 + 8 + 1 + 2 + 6
_POOLING = 5 * 8
_OBJECTIVES = 4


def _costs(config: Config, statistics: Statistics | None = None) -> dict[str, tuple[int | None, int, int]]:
    layers = describe(config, statistics).layers
    return {layer.layer: (layer.parameters, layer.multiplications, layer.once_a_request) for layer in layers}


def test_a_mixture_of_experts_by_hand(config: Config, statistics: Statistics) -> None:
    width = _INPUT + 1
    assert _costs(config, statistics) == {
        "encoder/user_id_embedding": ((1 + 100) * 8, 0, 0),
        "encoder/device_embedding": ((1 + 1 + 3) * 4, 0, 0),
        "encoder/video_id_embedding": ((1 + 4 + 20) * 8, 0, 0),
        "encoder/duration_quantiles": ((1 + 3) * 2, 0, 0),
        "encoder": (0, _POOLING, _POOLING),
        "hidden_0": (width * 16 + 16, width * 16, 0),
        "experts_0": (4 * (16 * 8 + 8), 4 * 16 * 8, 0),
        "experts/gates": (16 * _OBJECTIVES * 4, 16 * _OBJECTIVES * 4, 0),
        "experts/mixture": (0, _OBJECTIVES * 4 * 8, 0),
        "tower_0": (_OBJECTIVES * (8 * 8 + 8), _OBJECTIVES * 8 * 8, 0),
        "tower_logit": (_OBJECTIVES * (8 + 1), _OBJECTIVES * 8, 0),
        "shallow_tower/position": (22, 0, 0),
        "shallow_tower/device": (5, 0, 0),
        "shallow_tower/position_x_device": (22 * 5, 0, 0),
        # Watch time is predicted standardised: one product brings it back to its unit.
        "predictions": (0, 1, 0),
    }


def test_totals_are_those_of_the_model(config: Config, statistics: Statistics) -> None:
    description = describe(config, statistics)
    ranker = Ranker(config, statistics)
    features = {
        name: tf.zeros([2, 6] if name == "content" else [2, 5] if name == "watch_history" else [2], dtype)
        for name, dtype in _ROWS.items()
    }
    ranker(features)
    assert description.parameters == sum(tf.size(variable).numpy() for variable in ranker.trainable_variables)
    assert description.multiplications == sum(layer.multiplications for layer in description.layers)
    assert description.once_a_request == _POOLING
    document = json.loads(json.dumps(description.as_json()))
    assert document["total"]["multiplications"] == description.multiplications
    assert document["layers"][0]["layer"] == "encoder/device_embedding"


_ROWS: dict[str, Any] = {
    "user_id": tf.int32,
    "device": tf.int32,
    "watch_history": tf.int32,
    "video_id": tf.int32,
    "duration": tf.float32,
    "content": tf.float32,
}


def test_agrees_with_the_profiler_of_tensorflow(config: Config, statistics: Statistics) -> None:
    # It knows the floating-point operations of MatMul alone, two a multiplication.
    ranker = Ranker(config, statistics)
    inner = {"content": [6], "watch_history": [5]}
    rows = {name: tf.TensorSpec([1, *inner.get(name, [])], dtype) for name, dtype in _ROWS.items()}
    graph = tf.function(lambda features: ranker(features)).get_concrete_function(rows).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
    profile = tf.compat.v1.profiler.profile(graph, cmd="op", options=options.with_empty_output().build())
    counted = {child.name: child.float_ops for child in _flat(profile)}
    costs = _costs(config, statistics)
    matrix_products = sum(
        costs[layer][1] for layer in ("hidden_0", "experts_0", "experts/gates", "tower_0", "tower_logit")
    )
    assert counted["MatMul"] == 2 * matrix_products


def _flat(node: Any) -> list[Any]:
    return [node, *(deep for child in node.children for deep in _flat(child))]


def test_a_shared_bottom_and_crosses_by_hand(statistics: Statistics) -> None:
    raw = small_config()
    raw["model"] |= {"sharing": {"kind": "shared_bottom", "units": [24, 10]}, "crosses": {"layers": 2, "projection": 3}}
    costs = _costs(parse_config(raw), statistics)
    width = _INPUT + 1
    # Cross: x0 * (V U x + b) + x, of rank 3.
    assert costs["cross_0"] == costs["cross_1"] == (2 * 3 * width + width, 2 * 3 * width + width, 0)
    assert costs["shared_bottom/bottom_0"] == (16 * 24 + 24, 16 * 24, 0)
    assert costs["shared_bottom/bottom_1"] == (24 * 10 + 10, 24 * 10, 0)
    # All towers read the one bottom.
    assert costs["tower_0"] == (_OBJECTIVES * (10 * 8 + 8), _OBJECTIVES * 10 * 8, 0)
    assert not {name for name in costs if name.startswith("experts")}


def test_progressive_layered_extraction_by_hand(config: Config, statistics: Statistics) -> None:
    sharing = {"kind": "ple", "levels": 2, "shared_experts": 3, "objective_experts": 2, "units": [8]}
    costs = _costs(override_config(config, {"model.sharing": sharing}), statistics)
    parts = {name: cost for name, cost in costs.items() if "level_" in name}
    experts, choices = _OBJECTIVES * 2 + 3, 2 + 3
    # Every expert of a level; a gate an objective over its own and the shared experts, and their mixture.
    objectives = _OBJECTIVES * choices
    first = experts * 16 * 8 + objectives * 16 + objectives * 8
    # Only the first level has a shared stream to hand on: one gate over all experts, and their mixture.
    first += experts * 16 + experts * 8
    second = experts * 8 * 8 + objectives * 8 + objectives * 8
    assert sum(cost for _, cost, _ in (parts[name] for name in parts if "level_0" in name)) == first
    assert sum(cost for _, cost, _ in (parts[name] for name in parts if "level_1" in name)) == second
    parameters = experts * (16 * 8 + 8) + objectives * 16 + experts * 16 + experts * (8 * 8 + 8) + objectives * 8
    assert sum(count or 0 for count, _, _ in parts.values()) == parameters


def test_without_examples_counted_tables_are_unknown_and_the_rest_is_not(config: Config) -> None:
    description = describe(config)
    unknown = {layer.layer for layer in description.layers if layer.parameters is None}
    assert unknown == {
        "encoder/device_embedding",
        "encoder/video_id_embedding",
        "encoder/duration_quantiles",
        "shallow_tower/device",
        "shallow_tower/position_x_device",
    }
    costs = _costs(config)
    assert costs["encoder/user_id_embedding"] == (101 * 8, 0, 0)
    assert costs["hidden_0"] == (_INPUT * 16 + 16, _INPUT * 16, 0)
    assert description.parameters is None
    text = format_description(description)
    assert "pass --examples" in text
    (row,) = [line.split() for line in text.splitlines() if line.startswith("encoder/device_embedding")]
    assert row == ["encoder/device_embedding", "-", "0", "0"]


def test_nothing_is_allocated(config: Config, statistics: Statistics) -> None:
    # A table of 20 terabytes.
    huge = override_config(config, {"features.user_id.buckets": 10**10 // 2, "features.user_id.dim": 1000})
    assert _costs(huge, statistics)["encoder/user_id_embedding"][0] == (10**10 // 2 + 1) * 1000


def test_every_kind_of_product_is_counted() -> None:
    with tf.Graph().as_default() as graph:

        def operand(*shape: int, dtype: tf.DType = tf.float32) -> tf.Tensor:
            return tf.compat.v1.placeholder(dtype, shape)

        @tf.function
        def called(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
            return left @ right

        for name, make, _ in _PRODUCTS:
            with tf.name_scope(f"model/{name}/"):
                make(operand, called)
        counts = _multiplications(graph, "model")
    assert counts == {name: expected for name, _, expected in _PRODUCTS if expected}


_PRODUCTS: list[tuple[str, Any, int]] = [
    ("plain", lambda of, call: of(2, 3) @ of(3, 5), 2 * 3 * 5),
    ("transposed", lambda of, call: tf.matmul(of(3, 2), of(3, 5), transpose_a=True), 2 * 3 * 5),
    ("batched", lambda of, call: of(7, 2, 3) @ of(7, 3, 5), 7 * 2 * 3 * 5),
    ("batched_transposed", lambda of, call: tf.matmul(of(7, 3, 2), of(7, 5, 3), True, True), 7 * 2 * 3 * 5),
    ("summed", lambda of, call: tf.einsum("bl,bld->bd", of(2, 4), of(2, 4, 3)), 2 * 4 * 3),
    ("transposition", lambda of, call: tf.einsum("ab->ba", of(2, 4)), 0),
    ("element_wise", lambda of, call: of(2, 3) * of(1, 3), 2 * 3),
    ("integers", lambda of, call: of(2, 3, dtype=tf.int32) * 2, 0),
    ("other", lambda of, call: tf.nn.softmax(of(2, 3) + of(2, 3)) / of(2, 3), 0),
    ("inside_a_function", lambda of, call: call(of(2, 3), of(3, 5)), 2 * 3 * 5),
]

"""Changes of signatures: what breaks those who call the version before, and what does not; on protos made by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from serving.protos import DT_FLOAT, DT_INT64, DT_STRING, SignatureDef
from serving.tensor_codec import encode_numbers, encode_strings
from serving.verifying.compatibility import changes, check_compatibility
from serving.verifying.graph import Graph, _messages

Infos = dict[str, tuple[int, list[int]]]
INPUTS: Infos = {"user_id": (DT_STRING, [1]), "duration": (DT_FLOAT, [-1])}
OUTPUTS: Infos = {"click": (DT_FLOAT, [-1]), "combined_score": (DT_FLOAT, [-1])}
CONTRACT: dict[str, Any] = {
    "item_key": "video_id",
    "objectives": [{"name": "click", "kind": "binary", "event": "click"}, {"name": "watch", "kind": "regression"}],
    "combined_score": {"form": "weighted_sum"},
}


def signature(inputs: Infos = INPUTS, outputs: Infos = OUTPUTS, **defaults: list[float]) -> Any:
    made = SignatureDef()
    for infos, target in ((inputs, made.inputs), (outputs, made.outputs)):
        for alias, (dtype, shape) in infos.items():
            target[alias].dtype = dtype
            for size in shape:
                target[alias].tensor_shape.dim.add(size=size)
    for alias, values in defaults.items():
        made.defaults[alias].CopyFrom(encode_numbers(np.float32(values)))
    return made


def graph(contract: dict[str, Any] | None = None, **signatures: Any) -> Graph:
    """Signatures, and a contract that lies where an export has it: in a function that a function calls."""
    if contract is None:
        return Graph(signatures, {"": []}, {}, [])
    calls, inner, text = (_messages["NodeDef"](name=name, op=op) for name, op in
                          (("call", "PartitionedCall"), ("inner", "PartitionedCall"), ("text", "Const")))  # fmt: skip
    calls.attr["f"].func.name, inner.attr["f"].func.name = "outer_function", "inner_function"
    text.attr["dtype"].type = DT_STRING
    text.attr["value"].tensor = encode_strings([json.dumps(contract).encode()], []).SerializeToString()
    told = SignatureDef()
    told.outputs["contract"].name = "call:0"
    nodes = {"": [calls], "outer_function": [inner], "inner_function": [text]}
    return Graph(signatures | {"contract": told}, nodes, {}, [])


OLD = graph(rank=signature())


@pytest.mark.parametrize(
    ("new", "breaking"),
    [
        (graph(), "the signature `rank` is gone"),
        (graph(rank=signature({"user_id": (DT_STRING, [1])})), "in `rank` the input `duration` is gone"),
        (
            graph(rank=signature(INPUTS | {"age": (DT_FLOAT, [1])})),
            "in `rank` the input `age`, without a default, is new",
        ),
        (
            graph(rank=signature({"user_id": (DT_STRING, [1]), "length": (DT_FLOAT, [-1])})),
            "in `rank` the input `duration` has become `length`",
        ),
        (
            graph(rank=signature(INPUTS | {"user_id": (DT_INT64, [1])})),
            "in `rank` the input `user_id` was string and is int64",
        ),
        (
            graph(rank=signature(INPUTS | {"duration": (DT_FLOAT, [-1, 2])})),
            "in `rank` the input `duration` had the shape [-1] and has [-1, 2]",
        ),
        (graph(rank=signature(outputs={"click": (DT_FLOAT, [-1])})), "in `rank` the output `combined_score` is gone"),
        (
            graph(rank=signature(outputs=OUTPUTS | {"click": (DT_INT64, [-1])})),
            "in `rank` the output `click` was float and is int64",
        ),
        (
            graph(rank=signature(outputs=OUTPUTS | {"click": (DT_FLOAT, [-1, 1])})),
            "in `rank` the output `click` had the shape [-1] and has [-1, 1]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_breaking(new: Graph, breaking: str) -> None:
    assert changes(new, OLD) == ([breaking], [])


@pytest.mark.parametrize(
    ("new", "compatible"),
    [
        (graph(rank=signature(), more=signature()), "the signature `more` is new"),
        (
            graph(rank=signature(INPUTS | {"age": (DT_FLOAT, [1])}, age=[0.0])),
            "in `rank` the input `age`, with a default, is new",
        ),
        (
            graph(rank=signature(INPUTS | {"user_id": (DT_STRING, [-1])})),
            "in `rank` the input `user_id` had the shape [1] and has [-1]",
        ),
        (
            graph(rank=signature(outputs=OUTPUTS | {"like": (DT_FLOAT, [-1])})),
            "in `rank` the output `like` is new",
        ),
        (graph(rank=signature(duration=[1.0])), "in `rank` the input `duration` has a default now"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_compatible(new: Graph, compatible: str) -> None:
    assert changes(new, OLD) == ([], [compatible])


def test_defaults_that_change_and_go() -> None:
    before = graph(rank=signature(duration=[1.0]))
    now = graph(rank=signature(duration=[2.0]))
    assert changes(now, before) == ([], ["in `rank` the default of the input `duration` has changed"])
    assert changes(OLD, before) == (["in `rank` the input `duration` has no default any more"], [])


@pytest.mark.parametrize(
    ("change", "breaking", "compatible"),
    [
        ({"item_key": "item"}, ["the item key was `video_id` and is `item`"], []),
        (
            {"objectives": CONTRACT["objectives"][::-1]},
            ["the objectives, the order of `score_weights`, were `click`, `watch` and are `watch`, `click`"],
            [],
        ),
        (
            {"objectives": [{"name": "click", "kind": "binary", "event": "tap"}, CONTRACT["objectives"][1]]},
            [],
            ["the objective `click` is defined otherwise"],
        ),
        (
            {"objectives": [{"name": "click", "kind": "regression"}, CONTRACT["objectives"][1]]},
            ["the objective `click` was binary and is regression"],
            [],
        ),
        ({"combined_score": {"form": "weighted_product"}}, [], ["the combined score has changed"]),
        ({"name": "another"}, [], []),
    ],
)
def test_the_contract(change: dict[str, Any], breaking: list[str], compatible: list[str]) -> None:
    before, now = (graph(contract, rank=signature()) for contract in (CONTRACT, CONTRACT | change))
    assert changes(now, before) == (breaking, compatible)


def test_only_breaking_changes_fail_and_only_unless_they_are_allowed() -> None:
    broken, grown = graph(), graph(rank=signature(), more=signature())
    assert check_compatibility(OLD, OLD, "7", False).sentence == "The signatures are those of version 7."
    found = check_compatibility(broken, OLD, "7", False)
    assert (found.status, found.sentence) == ("failed", "Breaks who calls version 7: the signature `rank` is gone.")
    assert check_compatibility(broken, OLD, "7", True).status == "ok"
    found = check_compatibility(grown, OLD, "7", False)
    assert (found.status, found.sentence) == ("ok", "Compatible with version 7: the signature `more` is new.")

"""From plain values to input tensors: kinds, missing values, and a sentence for everything that does not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2

from mmoe_ranker.errors import InputError
from serving.protos import RankRequest, SignatureDef
from serving.request_columns import request_columns
from serving.request_encoding import encode_request
from serving.signature import RankSignature, ServedFeature

SIGNATURE = RankSignature(
    version=1,
    context=(ServedFeature("device", "category"), ServedFeature("history", "sequence", 3)),
    candidates=(
        ServedFeature("video_id", "category"),
        ServedFeature("duration", "number"),
        ServedFeature("content", "vector", 2),
        ServedFeature("level", "integer category"),
        ServedFeature("tags", "sequence"),
        ServedFeature("steps", "integer sequence"),
    ),
    objectives=("click", "like"),
    default_weights=np.float32([1.0, 0.5]),
)


def request(**changes):
    """Two candidates; `changes` replace values of the second one, or of the context."""
    first = {"video_id": "v1", "duration": 61.5, "content": [0.5, 1], "level": 3, "tags": ["a", "b"], "steps": [1, 2]}
    context = {"device": "phone", "history": ["v9"]}
    context.update({name: value for name, value in changes.items() if name in context})
    second = first | {"video_id": "v2"} | {name: value for name, value in changes.items() if name not in context}
    return {"context": context, "candidates": [first, second]}


def tensors_of(request, signature=SIGNATURE, item_key=None) -> dict[str, np.ndarray]:
    """What is sent, as TensorFlow reads it."""
    columns = request_columns(request, signature, item_key)
    message = RankRequest()
    encode_request(columns, signature).write(message.inputs, 0, columns.size)
    return {
        name: tf.make_ndarray(tensor_pb2.TensorProto.FromString(tensor.SerializeToString()))
        for name, tensor in message.inputs.items()
    }


def encoded(**changes) -> dict[str, np.ndarray]:
    return tensors_of(request(**changes))


def test_every_kind():
    tensors = encoded()
    assert {name: (array.dtype, array.tolist()) for name, array in tensors.items()} == {
        "device": (object, [b"phone"]),
        "history": (object, [[b"", b"", b"v9"]]),
        "video_id": (object, [b"v1", b"v2"]),
        "duration": (np.float32, [61.5, 61.5]),
        "content": (np.float32, [[0.5, 1.0], [0.5, 1.0]]),
        "level": (np.int64, [3, 3]),
        "tags": (object, [[b"a", b"b"], [b"a", b"b"]]),
        "steps": (np.int64, [[1, 2], [1, 2]]),
    }


def test_missing_values():
    tensors = encoded(
        video_id=None, duration=None, content=None, level=None, tags=None, steps=None, device=None, history=None
    )
    assert tensors["device"].tolist() == [b""]
    assert tensors["history"].tolist() == [[b"", b"", b""]]
    assert tensors["video_id"].tolist() == [b"v1", b""]
    assert tensors["duration"][0] == 61.5
    assert math.isnan(tensors["duration"][1])
    assert tensors["content"].tolist() == [[0.5, 1.0], [0.0, 0.0]]
    assert tensors["level"].tolist() == [3, -1]
    assert tensors["tags"].tolist() == [[b"a", b"b"], [b"", b""]]
    assert tensors["steps"].tolist() == [[1, 2], [-1, -1]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(7, b"7"), (-7, b"-7"), (True, b"true"), (False, b"false"), (np.int64(5), b"5"), ("größe", "größe".encode())],
)
def test_categories_become_strings(value, expected):
    assert encoded(video_id=value)["video_id"].tolist() == [b"v1", expected]
    assert encoded(history=[value])["history"].tolist() == [[b"", b"", expected]]


@pytest.mark.parametrize("value", [3, np.float32(3.0), np.int16(3), 3.0])
def test_numbers(value):
    assert encoded(duration=value)["duration"].tolist() == [61.5, 3.0]


def test_sequence_keeps_its_most_recent_places():
    assert encoded(history=["v1", "v2", "v3", "v4", "v5"])["history"].tolist() == [[b"v3", b"v4", b"v5"]]
    assert encoded(tags=["a", "b", "c"])["tags"].tolist() == [[b"", b"a", b"b"], [b"a", b"b", b"c"]]


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"])), st.integers(), st.booleans()),
            st.one_of(st.none(), st.integers(-(2**60), 2**60), st.floats(width=32, allow_infinity=False)),
            st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_columns_hold_each_candidates_values(rows):
    signature = RankSignature(
        version=1,
        context=(),
        candidates=(ServedFeature("a", "category"), ServedFeature("b", "number"), ServedFeature("c", "sequence", 4)),
        objectives=(),
    )
    candidates = [dict(zip("abc", row, strict=True)) for row in rows]
    tensors = tensors_of({"context": {}, "candidates": candidates}, signature)
    words = {None: "", True: "true", False: "false"}
    for row, (a, b, c) in enumerate(rows):
        expected = words[a] if a is None or isinstance(a, bool) else str(a)
        assert tensors["a"][row] == expected.encode()
        np.testing.assert_array_equal(tensors["b"][row], np.float32(np.nan if b is None else b))
        assert tensors["c"][row].tolist() == [b""] * (4 - len(c)) + [value.encode() for value in c[-4:]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"video_id": 1.5},
            r"`video_id` of candidate 1 must be a string of valid Unicode, an integer, .* Received: 1\.5",
        ),
        ({"video_id": ["v"]}, r"`video_id` of candidate 1 must be a string .* Received: \['v'\]"),
        ({"video_id": "\ud800"}, r"`video_id` of candidate 1 must be a string of valid Unicode"),
        ({"device": {}}, r"`device` of the context must be a string .* Received: \{\}"),
        ({"duration": "61"}, r"`duration` of candidate 1 must be a number or null\. Received: '61'"),
        ({"duration": True}, r"`duration` of candidate 1 must be a number or null\. Received: True"),
        ({"duration": math.inf}, r"`duration` of candidate 1 must be a number that float32 can hold, .* Received: inf"),
        ({"duration": 1e39}, r"`duration` of candidate 1 must be a number that float32 can hold, .* Received: 1e\+39"),
        (
            {"duration": 10**400},
            r"`duration` of candidate 1 must be a number that float32 can hold.* Received: 1000000",
        ),
        ({"level": 1.0}, r"`level` of candidate 1 must be an integer from 0 to 2\^63 - 1, or null\. Received: 1\.0"),
        ({"level": True}, r"`level` of candidate 1 must be an integer .* Received: True"),
        ({"level": -1}, r"`level` of candidate 1 must be an integer .* Received: -1"),
        ({"level": 2**63}, r"`level` of candidate 1 must be an integer .* Received: 9223372036854775808"),
        ({"content": [1.0]}, r"`content` of candidate 1 must be a list of 2 numbers, or null\. Received: 1 values"),
        ({"content": 1.0}, r"`content` of candidate 1 must be a list of 2 numbers, or null\. Received: 1\.0"),
        ({"content": [1.0, "2"]}, r"`content` of candidate 1, at place 1, must be a number or null\. Received: '2'"),
        ({"content": [1.0, None]}, r"`content` of candidate 1 must be a list of 2 numbers none of which is missing"),
        ({"tags": "a"}, r"`tags` of candidate 1 must be a list of categories, oldest first, or null\. Received: 'a'"),
        ({"tags": ["a", 2.5]}, r"`tags` of candidate 1, at place 1, must be a string .* Received: 2\.5"),
        ({"history": ["a", []]}, r"`history` of the context, at place 1, must be a string .* Received: \[\]"),
        ({"steps": [1, "2"]}, r"`steps` of candidate 1, at place 1, must be an integer .* Received: '2'"),
        (
            {"colour": "red"},
            r"Candidate 1 has the unknown feature `colour`: the served model takes exactly content, duration, level, "
            r"steps, tags, video_id there, null where a value is missing\. Received: video_id, .*, colour\.",
        ),
    ],
)
def test_values_that_do_not_fit(changes, message):
    with pytest.raises(InputError, match=message):
        encoded(**changes)


def test_missing_features():
    lacking = request()
    del lacking["candidates"][1]["duration"]
    with pytest.raises(InputError, match=r"Candidate 1 lacks the feature `duration`: .* Received: video_id, content"):
        tensors_of(lacking)
    lacking = request()
    del lacking["context"]["history"]
    with pytest.raises(InputError, match=r"The context lacks the feature `history`: .* exactly device, history"):
        tensors_of(lacking)
    lacking["context"] |= {"history": [], "position": 1}
    with pytest.raises(InputError, match="The context has the unknown feature `position`"):
        tensors_of(lacking)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "A request must be an object with the keys context and candidates. Received: list"),
        ({"context": {}}, r"with the keys context and candidates. Received: \['context'\]"),
        ({"context": {}, "candidates": [{}], "extra": 1}, "with the keys context and candidates"),
        ({"context": [], "candidates": [{}]}, "`context` must be an object of features by name. Received: list"),
        ({"context": {}, "candidates": []}, r"must be a list of at least one candidate. Received: \[\]"),
        ({"context": {}, "candidates": {}}, "must be a list of at least one candidate"),
        ({"context": {}, "candidates": ["v1"]}, "Candidate 0 must be an object of features by name. Received: str"),
    ],
)
def test_requests_of_another_form(wrong, message):
    with pytest.raises(InputError, match=message):
        tensors_of(wrong)


def test_item_key_that_is_no_feature_must_be_there_and_is_not_sent():
    with pytest.raises(InputError, match="Candidate 0 lacks the feature `item`"):
        tensors_of(request(), item_key="item")
    with_key = request()
    for number, candidate in enumerate(with_key["candidates"]):
        candidate["item"] = number
    assert "item" not in tensors_of(with_key, item_key="item")


def test_score_weights_start_from_the_models_own():
    weights = SIGNATURE.resolve_weights({"like": 2})
    assert (weights.dtype, weights.tolist()) == (np.float32, [1.0, 2.0])
    assert SIGNATURE.resolve_weights(None).tolist() == SIGNATURE.resolve_weights({}).tolist() == [1.0, 0.5]
    np.testing.assert_array_equal(SIGNATURE.default_weights, [1.0, 0.5])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"dislike": 1.0}, "`score_weights` are given by objective, one of click, like. Received: 'dislike'"),
        ({"like": "1"}, "`score_weights` of `like` must be a finite number that float32 can hold. Received: '1'"),
        ({"like": True}, "`like` must be a finite number that float32 can hold. Received: True"),
        ({"like": math.nan}, "`like` must be a finite number that float32 can hold. Received: nan"),
        ({"like": -math.inf}, "`like` must be a finite number that float32 can hold. Received: -inf"),
        ({"like": 1e39}, r"`like` must be a finite number that float32 can hold. Received: 1e\+39"),
        ({"like": 10**400}, "`like` must be a finite number that float32 can hold. Received: 1000"),
        ({"like": None}, "`like` must be a finite number that float32 can hold. Received: None"),
        ([1.0], r"`score_weights` must be an object of weights by objective. Received: \[1.0\]"),
    ],
)
def test_score_weights_that_do_not_fit(weights, message):
    with pytest.raises(InputError, match=message):
        SIGNATURE.resolve_weights(weights)


def test_score_weights_for_a_model_that_takes_none():
    without = RankSignature(version=1, context=(), candidates=(), objectives=("click",))
    with pytest.raises(InputError, match=r"need a served model whose signature has one default weight for each"):
        without.resolve_weights({"click": 1.0})


def test_signature_without_candidate_features():
    signature = SignatureDef()
    for name in ("combined_score", "ranking"):
        signature.outputs[name].name = "y:0"
    signature.inputs["device"].dtype = 7
    signature.inputs["device"].tensor_shape.dim.add(size=1)
    with pytest.raises(InputError, match=r"at least one candidate feature, \[N, \.\.\.\]\. Received: inputs device"):
        RankSignature.from_signature_def(signature, 1)


def test_single_candidate_feature():
    signature = RankSignature(version=1, context=(), candidates=(ServedFeature("a", "category"),), objectives=())
    assert tensors_of({"context": {}, "candidates": [{"a": "x"}, {"a": "y"}]}, signature)["a"].tolist() == [b"x", b"y"]


def test_signature_that_is_not_a_rankers():
    signature = SignatureDef()
    signature.outputs["y"].name = "y:0"
    with pytest.raises(InputError, match=r"must return `combined_score` and `ranking`\. Received: outputs y"):
        RankSignature.from_signature_def(signature, 1)
    for name in ("combined_score", "ranking"):
        signature.outputs[name].name = "y:0"
    signature.inputs["x"].dtype = 1
    with pytest.raises(
        InputError, match=r"Input `x` of the served signature `rank` must be .* DataType 1 of shape \[\]"
    ):
        RankSignature.from_signature_def(signature, 1)

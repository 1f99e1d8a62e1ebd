"""Answers, contracts and defaults of a server that do not fit: each is an error in a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from mmoe_ranker.errors import InputError
from serving.client import RankingError
from serving.protos import PredictRequest, SignatureDefMap, TensorProto
from serving.tensor_codec import decode, encode_numbers, encode_strings
from tests.serving.fake_ranker import OBJECTIVES, ROWS, FakeRanker, request_of


@pytest.mark.parametrize(("name", "values"), [("click", [1.0, 2.0]), ("ranking", None), ("combined_score", [1.0])])
def test_answers_that_do_not_fit(name, values):
    server = FakeRanker()
    predict = server.predict

    def spoilt(request, deadline):
        response = predict(request, deadline)
        if name in response.outputs:
            del response.outputs[name]
            if values:
                response.outputs[name].dtype = 1
                response.outputs[name].float_val.extend(values)
                response.outputs[name].tensor_shape.dim.add(size=len(values))
        return response

    server.predict = spoilt
    message = f"do not fit 5 candidates: .*`{name}` {len(values)}" if values else "without a readable output `ranking`"
    with pytest.raises(RankingError, match=message):
        server.client().rank(request_of(ROWS))


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        ([0, 0], r"a `ranking` that does not hold each number from 0 to 1 once\.$"),
        ([0, 2], r"a `ranking` that does not hold each number from 0 to 1 once\.$"),  # a row of the other chunk
        ([-1, 0], r"a `ranking` that does not hold each number from 0 to 1 once\.$"),
        ([1.0, 0.0], r"a `ranking` that does not hold each number from 0 to 1 once\.$"),
        ([0], r"do not fit 2 candidates: .*`ranking` 1"),
        ([0, 1, 2], r"do not fit 2 candidates: .*`ranking` 3"),
    ],
)
def test_ranking_that_is_no_order(ranking, message):
    server = FakeRanker()
    predict = server.predict

    def spoilt(request, deadline):
        response = predict(request, deadline)
        if "ranking" in response.outputs:
            response.outputs["ranking"].CopyFrom(encode_numbers(np.array(ranking)))
        return response

    server.predict = spoilt
    with pytest.raises(RankingError, match=message):
        server.client(max_candidates=2).rank(request_of(ROWS[:4]))


def test_sizes_that_add_up_although_each_is_wrong():
    server = FakeRanker()
    predict = server.predict

    def swapped(request, deadline):
        if "click" not in request.inputs:
            return predict(request, deadline)
        size = {2: 1, 1: 2}[len(decode(request.inputs["click"]))]
        return FakeRanker().predict(resized(request, size), deadline)

    server.predict = swapped
    with pytest.raises(RankingError, match="do not fit 2 candidates: `combined_score` 1, `ranking` 1, `click` 1"):
        server.client(max_candidates=2).rank(request_of(ROWS[:3]))


def resized(request, size):
    changed = PredictRequest.FromString(request.SerializeToString())
    for name in OBJECTIVES:
        changed.inputs[name].CopyFrom(encode_numbers(np.full(size, 0.5, np.float32)))
    return changed


def spoilt_contract(server, output):
    """Lets `output`, or nothing, be what the model's `contract` answers."""
    predict = server.predict

    def answer(request, deadline):
        response = predict(request, deadline)
        if request.model_spec.signature_name == "contract":
            del response.outputs["contract"]
            if output is not None:
                response.outputs["contract"].CopyFrom(output)
        return response

    server.predict = answer
    return server


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (None, r"must return one string, .*Received: an output that cannot be read, DataType 0 .*"),
        (encode_strings([b"{}", b"{}"], (2,)), r"must return one string, .*Received: 2 of dtype object\.$"),
        (encode_numbers(np.float32([0.5])), r"must return one string, .*Received: 1 of dtype float32\.$"),
        (encode_strings([b"\xff"], ()), r"must tell the item key.*UnicodeDecodeError: .*Received: b'.xff'\.$"),
    ],
)
def test_contract_that_cannot_be_read(output, message):
    client = spoilt_contract(FakeRanker(), output).client()
    with pytest.raises(InputError, match=rf"^The signature `contract` of the served model {message}"):
        client.rank(request_of(ROWS))


@pytest.mark.parametrize(
    ("default", "received"),
    [
        (TensorProto(dtype=1, tensor_content=b"abc"), r"`tensor_content` holds 3 bytes where .*"),
        (encode_strings([b"1"], (1,)), r"dtype object of shape \(1,\)"),
        (encode_numbers(np.float32(1.0)), r"dtype float32 of shape \(\)"),
    ],
)
def test_default_weights_that_cannot_be_read(default, received):
    server = FakeRanker()
    fetch = server.get_metadata

    def spoilt(request, deadline):
        response = fetch(request, deadline)
        signatures = SignatureDefMap.FromString(response.metadata["signature_def"].value)
        signatures.signature_def["rank"].defaults["score_weights"].CopyFrom(default)
        response.metadata["signature_def"].value = signatures.SerializeToString()
        return response

    server.get_metadata = spoilt
    with pytest.raises(
        InputError, match=rf"default of `score_weights` .*, one number an objective\. Received: {received}\.$"
    ):
        server.client().rank(request_of(ROWS))

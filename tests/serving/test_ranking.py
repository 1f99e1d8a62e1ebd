"""One ranking from chunks and versions: against what a single call gives, and against the formula by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.errors import InputError
from serving.client import RankingError
from serving.connection import RefusedError
from serving.protos import PredictRequest, SignatureDefMap, TensorProto
from serving.ranking import merged_order
from serving.tensor_codec import decode, encode_numbers, encode_strings
from tests.serving.fake_ranker import COMPLEMENTS, OBJECTIVES, OFFSETS, WEIGHTS, FakeRanker

# Few values, so that candidates tie; tiny ones, so that scores vanish in float32 and the key alone tells them apart.
PROBABILITY = st.sampled_from([1e-30, 1e-6, 2e-6, 0.001, 0.2, 0.5, 0.5000001, 0.999, 1.0])
WEIGHT = st.sampled_from([0.0, 0.3, 1.0, 3.0])


def request_of(rows):
    candidates = [{"item": f"i{number}"} | dict(zip(OBJECTIVES, row, strict=True)) for number, row in enumerate(rows)]
    return {"context": {"user": "u"}, "candidates": candidates}


@given(
    st.lists(st.tuples(PROBABILITY, PROBABILITY, PROBABILITY), min_size=1, max_size=25),
    st.integers(1, 12),
    st.dictionaries(st.sampled_from(OBJECTIVES), WEIGHT),
    st.sampled_from(["weighted_product", "weighted_sum"]),
)
@settings(deadline=None, max_examples=150)
def test_chunks_are_ranked_as_one_call(rows, max_candidates, weights, form):
    whole = FakeRanker(form).client().rank_arrays(request_of(rows), weights)
    server = FakeRanker(form)
    chunked = server.client(max_candidates=max_candidates).rank_arrays(request_of(rows), weights)
    assert chunked.order.tolist() == whole.order.tolist()
    assert chunked.as_dict() == whole.as_dict()
    assert sorted(server.asked) == sorted(
        min(max_candidates, len(rows) - start) for start in range(0, len(rows), max_candidates)
    )


@given(
    st.lists(st.tuples(*[st.floats(0.0078125, 0.9921875, width=32)] * 3), min_size=1, max_size=9),
    st.dictionaries(st.sampled_from(OBJECTIVES), WEIGHT),
    st.sampled_from(["weighted_product", "weighted_sum"]),
)
@settings(deadline=None, max_examples=60)
def test_contributions_add_up_to_the_score(rows, own, form):
    client = FakeRanker(form).client()
    weights = dict(zip(OBJECTIVES, WEIGHTS, strict=True)) | own
    for row in client.rank(request_of(rows), own, explain=True)["ranking"]:
        total = math.fsum(row["contributions"].values())
        assert total == pytest.approx(math.log(row["score"]) if form == "weighted_product" else row["score"], abs=1e-5)
        for name, offset, complement in zip(OBJECTIVES, OFFSETS, COMPLEMENTS, strict=True):
            factor = (1 - row[name] if complement else row[name]) + offset
            by_hand = weights[name] * (math.log(max(factor, 1e-6)) if form == "weighted_product" else factor)
            assert row["contributions"][name] == pytest.approx(by_hand, rel=1e-5, abs=1e-6)
        assert tuple(row[name] for name in OBJECTIVES) == rows[int(row["item"][1:])]


def test_arrays_and_dicts_say_the_same():
    rows = [(0.2, 0.5, 0.1), (0.9, 0.5, 0.1), (0.5, 0.5, 0.1)]
    client = FakeRanker().client()
    ranking = client.rank_arrays(request_of(rows), {"like": 0.0}, explain=True)
    assert ranking.order.tolist() == [1, 2, 0]
    assert ranking.ids.tolist() == ["i1", "i2", "i0"]
    assert ranking.scores.dtype == ranking.predictions["click"].dtype == np.float32
    np.testing.assert_allclose(ranking.predictions["click"], [0.9, 0.5, 0.2])
    np.testing.assert_allclose(ranking.scores, np.array([0.9, 0.5, 0.2]) * 0.9**2, rtol=1e-6)
    assert (ranking.item_key, ranking.version) == ("item", 1)
    assert ranking.weights == {"click": 1.0, "like": 0.0, "dismiss": 2.0}
    document = json.loads(json.dumps(ranking.as_dict()))
    assert document == client.rank(request_of(rows), {"like": 0.0}, explain=True)
    assert [list(row) for row in document["ranking"]] == [["item", "score", *OBJECTIVES, "contributions"]] * 3
    assert "contributions" not in client.rank(request_of(rows))["ranking"][0]


def test_candidates_of_one_id_are_ranked_each_by_itself():
    request = request_of([(0.2, 0.5, 0.1), (0.9, 0.5, 0.1), (0.2, 0.5, 0.1)])
    for candidate in request["candidates"]:
        candidate["item"] = "same"
    ranking = FakeRanker().client(max_candidates=2).rank_arrays(request)
    assert ranking.ids.tolist() == ["same"] * 3
    assert ranking.order.tolist() == [1, 0, 2]  # equal ones as they came


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5), min_size=1))
def test_merge_of_orders(chunks):
    keys = [key for chunk in chunks for key in chunk]
    scores = [key // 2 for key in keys]  # as float32 may bring two keys to one score
    orders, start = [], 0
    for chunk in chunks:
        orders.append(np.array(sorted(range(start, start + len(chunk)), key=lambda row: -keys[row])))
        start += len(chunk)
    expected = sorted(range(len(keys)), key=lambda row: (-scores[row], -keys[row], row))
    assert merged_order(orders, np.array(scores, float), np.array(keys, float)).tolist() == expected


def test_merge_keeps_the_order_of_a_chunk_against_a_key_that_is_off_by_a_bit():
    key = np.array([1.0, 1.0 + 1e-9, 0.5, 1.0 + 2e-9])
    orders = [np.array([0, 1]), np.array([3, 2])]  # the server put 0 before 1
    assert merged_order(orders, np.ones(4), key).tolist() == [3, 0, 1, 2]


ROWS = [(0.2, 0.5, 0.1), (0.9, 0.5, 0.2), (0.5, 0.5, 0.3), (0.4, 0.1, 0.1), (0.3, 0.1, 0.4)]


def test_chunks_of_two_versions_are_asked_for_again():
    expected = FakeRanker(versions=(2,)).client().rank_arrays(request_of(ROWS))
    server = FakeRanker(versions=(1, 1, 2))
    ranking = server.client(max_candidates=2).rank_arrays(request_of(ROWS))
    assert ranking.version == expected.version == 2
    assert ranking.as_dict() == expected.as_dict()
    assert sorted(server.asked) == [1, 2, 2, 2, 2]  # the two that version 1 had answered, again


def test_weights_and_their_order_are_those_of_the_version_that_answers():
    server = FakeRanker(versions=(1, 2))
    server.weights[2] = (3.0, 0.5, 0.25)
    server.order[2] = OBJECTIVES[::-1]
    alone = FakeRanker(versions=(2,))
    alone.weights, alone.order = server.weights, server.order
    client = server.client()
    client.rank(request_of(ROWS))
    ranking = client.rank_arrays(request_of(ROWS), {"like": 2.0}, explain=True)
    assert ranking.version == 2
    assert ranking.weights == {"dismiss": 0.25, "like": 2.0, "click": 3.0}
    assert ranking.as_dict() == alone.client().rank(request_of(ROWS), {"like": 2.0}, explain=True)


def test_two_versions_that_answer_in_turn_need_one_call_a_request():
    server = FakeRanker(versions=(1, 2) * 10)
    client = server.client()
    client.rank(request_of(ROWS))
    client.rank(request_of(ROWS))
    asked, server.asked = server.asked, []
    server.get_metadata = None  # both are known by now
    assert [client.rank_arrays(request_of(ROWS)).version for _ in range(6)] == [1, 2] * 3
    assert len(server.asked) == 6
    assert len(asked) == 2


def test_versions_that_never_agree_are_an_error():
    server = FakeRanker(versions=tuple(range(1, 100)))
    with pytest.raises(RankingError, match="answered with one version after the other of `ranker`, and not 5 times"):
        server.client(max_candidates=1).rank(request_of(ROWS))


def test_request_made_for_a_version_that_is_gone_is_made_for_the_next():
    server = FakeRanker(versions=(1, 2))
    client = server.client()
    assert client.signature.version == 1
    predict, refusals = server.predict, []

    def refuse_once(request, deadline):
        if request.model_spec.signature_name == "rank" and not refusals:
            refusals.append(1)
            server.versions = [2]
            raise RefusedError("input size does not match signature")
        return predict(request, deadline)

    server.predict = refuse_once
    assert client.rank_arrays(request_of(ROWS)).version == 2
    refusals.clear()
    with pytest.raises(RefusedError):  # of the version that is there: nothing to wait for
        client.rank(request_of(ROWS))
    assert len(refusals) == 1


def with_age(rows):
    request = request_of(rows)
    return request | {"candidates": [candidate | {"age": 3.0} for candidate in request["candidates"]]}


def test_feature_that_a_new_version_adds():
    server = FakeRanker(versions=(1, 2))
    server.more_features[2] = ("age",)
    client = server.client()
    assert client.rank_arrays(request_of(ROWS)).version == 1
    assert client.rank_arrays(with_age(ROWS)).version == 2  # unknown to version 1, whose signature the client has
    assert len(server.asked) == 2  # and never sent to be refused
    with pytest.raises(InputError, match="Candidate 0 lacks the feature `age`"):
        client.rank(request_of(ROWS))


def test_feature_that_a_new_version_drops():
    server = FakeRanker(versions=(1, 2))
    server.more_features[1] = ("age",)
    client = server.client()
    assert [client.rank_arrays(make(ROWS)).version for make in (with_age, request_of)] == [1, 2]


def test_weight_of_an_objective_that_a_new_version_adds():
    server = FakeRanker(versions=(1, 2))
    server.order[1] = OBJECTIVES[:2]
    server.weights[1] = WEIGHTS
    client = server.client()
    assert client.rank_arrays(request_of(ROWS)).weights == {"click": 1.0, "like": 0.5}
    assert client.rank_arrays(request_of(ROWS), {"dismiss": 3.0}).weights == {"click": 1.0, "like": 0.5, "dismiss": 3.0}


def test_explanation_that_a_new_version_adds():
    server = FakeRanker(versions=(1, 2))
    server.explained[1] = False
    client = server.client()
    client.rank(request_of(ROWS))
    assert "contributions" in client.rank(request_of(ROWS), explain=True)["ranking"][0]


def test_explanation_that_the_version_which_answers_cannot_give():
    server = FakeRanker(versions=(1, 2))
    server.explained[2] = False
    client = server.client()
    assert client.signature.combined_score is not None
    server.versions = [2]
    with pytest.raises(InputError, match=r"`explain` needs .*Received: version 2 of `ranker`, which does not\.$"):
        client.rank(request_of(ROWS), explain=True)
    assert client.rank_arrays(request_of(ROWS)).version == 2


def test_request_that_fits_no_version_costs_one_look_at_the_signature():
    server = FakeRanker()
    client = server.client()
    client.rank(request_of(ROWS))
    fetched, fetch = [], server.get_metadata
    server.get_metadata = lambda *arguments: fetched.append(1) or fetch(*arguments)
    for _ in range(3):
        with pytest.raises(InputError, match="Candidate 0 has the unknown feature `age`"):
            client.rank(with_age(ROWS))
    assert len(fetched) == 3
    assert len(server.asked) == 1


def test_server_that_does_not_answer_is_not_asked_for_its_signature():
    server = FakeRanker()
    client = server.client()
    client.rank(request_of(ROWS))
    server.predict = unavailable
    server.get_metadata = None
    with pytest.raises(InputError, match="No model server answers"):
        client.rank(request_of(ROWS))


def unavailable(request, deadline):
    raise InputError("No model server answers at the target. Received: fake:1.")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"dislike": 1.0}, "one of click, like, dismiss. Received: 'dislike'"),
        ({"dismiss": -0.5}, "`score_weights` of `dismiss` must be at least 0, since its term is a complement.*: -0.5"),
        ({"click": math.nan}, "`score_weights` of `click` must be a finite number"),
    ],
)
def test_weights_are_checked_before_anything_is_sent(weights, message):
    server = FakeRanker()
    with pytest.raises(InputError, match=message):
        server.client().rank(request_of(ROWS), weights)
    assert not server.asked


def test_negative_weights_where_they_may_be():
    client = FakeRanker().client()
    assert client.rank_arrays(request_of(ROWS), {"click": -1.0, "like": 0.0, "dismiss": 0.0}).order[0] == 0


def test_limit_on_candidates_that_is_none():
    with pytest.raises(InputError, match=r"`max_candidates` must be at least 1, or None\. Received: 0"):
        FakeRanker().client(max_candidates=0)


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


@pytest.mark.parametrize(
    ("ids", "plain"),
    [
        (np.array([7, 8, 9, 10, 11]), [7, 8, 9, 10, 11]),
        (np.array(["a", "b", "c", "d", "e"]), ["a", "b", "c", "d", "e"]),
        (np.array([1.5, 2.5, 3.5, 4.5, 5.5], np.float32), [1.5, 2.5, 3.5, 4.5, 5.5]),
        (["a", np.int32(1), True, np.bool_(True), 2], ["a", 1, True, True, 2]),
    ],
)
def test_ids_that_numpy_holds_are_plain_in_json(ids, plain):
    request = request_of(ROWS)
    for candidate, item in zip(request["candidates"], ids, strict=True):
        candidate["item"] = item
    client = FakeRanker().client()
    ranking = client.rank_arrays(request)
    received = [row["item"] for row in json.loads(json.dumps(ranking.as_dict()))["ranking"]]
    assert received == [plain[row] for row in ranking.order]


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

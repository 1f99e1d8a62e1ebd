"""One ranking from chunks: against what a single call gives, and against the formula by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.errors import InputError
from serving.ranking import merged_order
from tests.serving.fake_ranker import COMPLEMENTS, OBJECTIVES, OFFSETS, ROWS, WEIGHTS, FakeRanker, request_of

# Few values, so that candidates tie; tiny ones, so that scores vanish in float32 and the key alone tells them apart.
PROBABILITY = st.sampled_from([1e-30, 1e-6, 2e-6, 0.001, 0.2, 0.5, 0.5000001, 0.999, 1.0])
WEIGHT = st.sampled_from([0.0, 0.3, 1.0, 3.0])


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

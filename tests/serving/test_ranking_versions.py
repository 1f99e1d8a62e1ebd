"""One ranking while versions change under the client: in turn, between chunks, and with other features or terms."""

from __future__ import annotations

import pytest

from mmoe_ranker.errors import InputError
from serving.client import RankingError
from serving.connection import RefusedError
from tests.serving.fake_ranker import OBJECTIVES, ROWS, WEIGHTS, FakeRanker, request_of


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

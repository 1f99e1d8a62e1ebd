"""The client against the embedded server: results, what it fetches, and what it imports."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from mmoe_ranker.errors import InputError
from serving.client import RankingClient
from tests.serving.ranker_requests import (
    CANDIDATES,
    CONTEXT,
    REQUEST,
    assert_ranking,
    expected_ranking,
    serving,
)


@pytest.fixture(scope="module")
def with_contract(exports, tmp_path_factory):
    folder = tmp_path_factory.mktemp("with_contract")
    shutil.copytree(exports / "ranker_with_contract", folder / "1")
    with serving(folder) as connected:
        yield connected


def test_ranking(client):
    result = client.rank(REQUEST)
    assert_ranking(result, expected_ranking())
    assert list(result["ranking"][0]) == ["video_id", "score", "click", "like"]
    json.dumps(result)  # plain Python values


def test_log_is_offered_what_was_ranked(client):
    class Offers(list):
        def offer(self, *arguments):
            self.append(arguments[:-1])
            return arguments[-1] or "made up"

    with RankingClient(client._connection.target, log=Offers()) as logging:
        assert logging.rank(REQUEST)["request_id"] == "made up"
        assert logging.rank(REQUEST, score_weights={"like": 3.0}, request_id="r1")["request_id"] == "r1"
        for (context, candidates, order, version, weights), own in zip(logging._log, (0.5, 3.0), strict=True):
            assert (context, candidates, version) == (CONTEXT, CANDIDATES, 1)
            ids = [row["video_id"] for row in expected_ranking(weights=(1.0, own))]
            assert [CANDIDATES[row]["video_id"] for row in order] == ids
            assert weights == {"click": 1.0, "like": own}


def test_one_candidate(client):
    result = client.rank({"context": CONTEXT, "candidates": CANDIDATES[1:2]})
    assert [row["video_id"] for row in result["ranking"]] == ["v22"]


def columns_of(candidates: list[dict]) -> dict[str, list]:
    return {name: [candidate[name] for candidate in candidates] for name in candidates[0]}


def test_columns_and_frames(client):
    expected = client.rank(REQUEST)
    arrays = {name: np.array(values, object) for name, values in columns_of(CANDIDATES).items() if name == "video_id"}
    for candidates in (columns_of(CANDIDATES), columns_of(CANDIDATES) | arrays, pd.DataFrame(CANDIDATES)):
        result = client.rank({"context": CONTEXT, "candidates": candidates})
        assert result == expected
        json.dumps(result)


@pytest.mark.parametrize("max_candidates", [1, 2, 3, 5, 11, 12])
def test_chunks_are_ranked_as_one_call(client, max_candidates):
    candidates = [
        candidate | {"duration": 7.0 * number + 1.0} for number, candidate in enumerate(CANDIDATES * 4)
    ]  # of the first twelve each has a length of its own
    request = {"context": CONTEXT, "candidates": candidates}
    with RankingClient(client._connection.target, max_candidates=max_candidates) as chunking:
        ranking = chunking.rank_arrays(request, {"like": 0.25})
        whole = client.rank_arrays(request, {"like": 0.25})
    assert ranking.order.tolist() == whole.order.tolist()
    np.testing.assert_allclose(ranking.scores, whole.scores, rtol=1e-6)


def test_swap_between_the_chunks(exports, tmp_path):
    shutil.copytree(exports / "ranker_with_contract", tmp_path / "1")
    shutil.copytree(exports / "ranker_with_contract", tmp_path / "tmp-2")
    request = {"context": CONTEXT, "candidates": [candidate | {"duration": 50.0} for candidate in CANDIDATES * 4]}
    with serving(tmp_path, max_candidates=1) as client:
        published, versions = False, set()
        end = time.monotonic() + 30
        while versions != {1, 2} and time.monotonic() < end:
            versions.add(client.rank_arrays(request).version)
            if not published:
                (tmp_path / "tmp-2").rename(tmp_path / "2")
                published = True
        assert versions == {1, 2}


def test_explanation_needs_a_contract(client, with_contract):
    for unexplained in (client, with_contract):  # this contract has no score
        with pytest.raises(InputError, match="`explain` needs a served model whose signature `contract` tells"):
            unexplained.rank(REQUEST, explain=True)


def test_score_weights(client):
    assert_ranking(client.rank(REQUEST, score_weights={"click": 0.1}), expected_ranking(weights=(0.1, 0.5)))
    assert_ranking(
        client.rank(REQUEST, score_weights={"click": 0.0, "like": 3.0}), expected_ranking(weights=(0.0, 3.0))
    )
    with pytest.raises(InputError, match=r"one of click, like\. Received: 'clik'"):
        client.rank(REQUEST, score_weights={"clik": 1.0})


def test_signature_is_read_from_the_metadata(client):
    signature = client.signature
    assert [(feature.name, feature.kind, feature.size) for feature in signature.context] == [
        ("age", "number", None),
        ("device", "category", None),
        ("hour", "integer category", None),
        ("watch_history", "sequence", None),
    ]
    assert [(feature.name, feature.kind, feature.size) for feature in signature.candidates] == [
        ("content", "vector", 2),
        ("duration", "number", None),
        ("levels", "integer sequence", None),
        ("tags", "sequence", 3),
        ("video_id", "category", None),
    ]
    assert signature.objectives == ["click", "like"]
    assert signature.default_weights.tolist() == [1.0, 0.5]
    assert (signature.version, signature.item_key) == (1, None)


def test_metadata_are_fetched_once_a_version(exports, tmp_path):
    shutil.copytree(exports / "ranker", tmp_path / "1")
    with serving(tmp_path) as client:
        fetched = []
        connection = client._connection
        fetch = connection.get_metadata
        connection.get_metadata = lambda *args: fetched.append(1) or fetch(*args)
        for _ in range(3):
            client.rank(REQUEST)
        assert len(fetched) == 1
        shutil.copytree(exports / "ranker_with_contract", tmp_path / "tmp-2")
        (tmp_path / "tmp-2").rename(tmp_path / "2")
        while client.rank(REQUEST)["ranking"][0]["click"] != pytest.approx(0.45):
            pass
        assert_ranking(client.rank(REQUEST), expected_ranking(scale=0.5))
        assert client.signature.version == 2
        assert len(fetched) == 2


def test_contract_of_the_model(with_contract):
    assert (with_contract.signature.item_key, with_contract.signature.objectives) == ("video_id", ["like", "click"])
    reordered = [dict(reversed(candidate.items())) for candidate in CANDIDATES]
    result = with_contract.rank({"context": CONTEXT, "candidates": reordered})
    assert_ranking(result, expected_ranking(scale=0.5))
    # its contract says that score_weights begin with like
    swapped = with_contract.rank(REQUEST, score_weights={"like": 2.0, "click": 0.25})
    assert_ranking(swapped, expected_ranking(scale=0.5, weights=(2.0, 0.25)))


def test_item_key_that_is_no_feature(exports, tmp_path):
    shutil.copytree(exports / "ranker", tmp_path / "1")
    with serving(tmp_path, item_key="item") as client:
        candidates = [{"item": number, **candidate} for number, candidate in enumerate(CANDIDATES)]
        result = client.rank({"context": CONTEXT, "candidates": candidates})
        ids = [row["video_id"] for row in expected_ranking()]
        assert [CANDIDATES[row["item"]]["video_id"] for row in result["ranking"]] == ids
        with pytest.raises(InputError, match="Candidate 0 lacks the feature `item`"):
            client.rank(REQUEST)


def test_request_that_does_not_fit_is_not_sent(client):
    sent = []
    connection = client._connection
    predict, connection.predict = connection.predict, lambda *args: sent.append(args)
    try:
        with pytest.raises(InputError, match="`duration` of candidate 0 must be a number"):
            client.rank({"context": CONTEXT, "candidates": [CANDIDATES[0] | {"duration": "long"}]})
        with pytest.raises(InputError, match="list of at least one candidate"):
            client.rank({"context": CONTEXT, "candidates": []})
    finally:
        connection.predict = predict
    assert not sent


def test_import_is_light():
    program = """
import pathlib, sys, time
began = time.process_time()
import serving.client
seconds = time.process_time() - began
heavy = {"tensorflow", "tensorflow_serving", "keras", "tf_keras", "pandas", "pyarrow", "apache_beam", "pydantic"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert {name for name in sys.modules if name.startswith("mmoe_ranker.")} == {
    "mmoe_ranker.combined_score", "mmoe_ranker.errors", "mmoe_ranker.examples"
}
status = pathlib.Path("/proc/self/status")  # the peak in it is of this program, that of getrusage may be of its parent
print(seconds, status.read_text().split("VmHWM:")[1].split()[0] if status.exists() else 0)
"""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds < 0.5  # of the processor, which others may share
    assert kilobytes < 60_000

"""The client against the embedded server: results, errors, retries, and what it imports."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures

import grpc
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from mmoe_ranker.errors import InputError
from serving.client import RankingClient, RankingError
from serving.server import ModelServer

CONTEXT = {"device": "tv", "hour": 20, "age": 31.5, "watch_history": ["v9", "v11"]}
CANDIDATES = [
    {"video_id": "v1", "duration": 30.0, "content": [2.0, 1.0], "tags": ["a"], "levels": [1]},
    {"video_id": "v22", "duration": 90.0, "content": [0.0, 1.0], "tags": [], "levels": [2, 3]},
    {"video_id": 333, "duration": None, "content": None, "tags": ["x", "yy", "zzz"], "levels": None},
]
NUMBERS = ("score", "click", "like")
REQUEST = {"context": CONTEXT, "candidates": CANDIDATES}


@contextlib.contextmanager
def serving(folder: pathlib.Path, **options) -> Iterator[RankingClient]:
    with (
        ModelServer(folder, port=0, poll_seconds=0.05) as server,
        RankingClient(f"127.0.0.1:{server.port}", **options) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def client(exports, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rankers")
    shutil.copytree(exports / "ranker", folder / "1")
    with serving(folder) as connected:
        yield connected


@pytest.fixture(scope="module")
def with_contract(exports, tmp_path_factory):
    folder = tmp_path_factory.mktemp("with_contract")
    shutil.copytree(exports / "ranker_with_contract", folder / "1")
    with serving(folder) as connected:
        yield connected


def expected_ranking(scale: float = 1.0, weights=(1.0, 0.5)) -> list[dict]:
    """The formulas of `saved_models.Ranker` by hand."""
    once = len("tv") + 20 + len("v9" + "v11") + 31.5
    each = [2 + 1 + 1, 3 + 0 + 5, 3 + 6 - 2]  # letters of the id and of the tags, sum of the levels (-1 is padding)
    each[0] -= 1  # levels [1] is padded with -1 beside [2, 3]
    clicks = [scale * 0.30, scale * 0.90, scale * 0.005]
    likes = [0.3, 0.1, 0.1]
    rows = [
        {
            "video_id": candidate["video_id"],
            "score": click ** weights[0] * like ** weights[1] + 1e-4 * (own + once),
            "click": click,
            "like": like,
        }
        for candidate, click, like, own in zip(CANDIDATES, clicks, likes, each, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["score"])


def assert_ranking(result: dict, expected: list[dict]) -> None:
    assert list(result) == ["ranking"]
    assert [row["video_id"] for row in result["ranking"]] == [row["video_id"] for row in expected]
    for row, wanted in zip(result["ranking"], expected, strict=True):
        assert set(row) == set(wanted)
        assert list(map(row.get, NUMBERS)) == pytest.approx(list(map(wanted.get, NUMBERS)), rel=1e-5)


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


def test_unreachable_target():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(InputError, match=f"No model server answers at the target .* Received: {target}"):
            RankingClient(target).rank(REQUEST)


def test_unknown_model_name(server):
    with pytest.raises(InputError, match=r"no available model of this name \(Servable not found .* Received: nobody"):
        RankingClient(f"127.0.0.1:{server.port}", name="nobody").rank(REQUEST)


def test_model_without_the_signature(server):
    with pytest.raises(InputError, match=r"must have a signature `rank`\. Received: signatures __saved"):
        RankingClient(f"127.0.0.1:{server.port}", name="half_plus_two").rank(REQUEST)


class Scripted(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers metadata as a ranker does, and Predict with the given codes in turn, then with `outputs`."""

    def __init__(self, client: RankingClient, codes: list[grpc.StatusCode], outputs: predict_pb2.PredictResponse):
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(client._connection._channel)
        self.codes, self.outputs, self.calls = codes, outputs, 0

    def GetModelMetadata(self, request, context):
        return self._stub.GetModelMetadata(request)

    def Predict(self, request, context):
        self.calls += 1
        if self.calls <= len(self.codes):
            context.abort(self.codes[self.calls - 1], "as scripted.\n\t [[{{node Assert}}]]")
        return self.outputs


@contextlib.contextmanager
def scripted(
    client: RankingClient,
    codes: list[grpc.StatusCode],
    as_content: bool = False,
    target: str = "127.0.0.1:0",
    **options,
):
    outputs = predict_pb2.PredictResponse()
    outputs.model_spec.version.value = 1
    for name, values in {"click": [0.1, 0.2, 0.3], "like": [0.4, 0.5, 0.6], "combined_score": [1.0, 3.0, 2.0]}.items():
        outputs.outputs[name].CopyFrom(tf.make_tensor_proto(np.float32(values)))
    outputs.outputs["ranking"].CopyFrom(tf.make_tensor_proto(np.int32([1, 2, 0])))
    if not as_content:
        for tensor in outputs.outputs.values():
            field = tensor.float_val if tensor.dtype == 1 else tensor.int_val
            field.extend(tf.make_ndarray(tensor).tolist())
            tensor.tensor_content = b""
    servicer = Scripted(client, codes, outputs)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(target)
    server.start()
    try:
        with RankingClient(f"127.0.0.1:{port}", **options) as connected:
            yield connected, servicer
    finally:
        server.stop(None)


@pytest.mark.parametrize("as_content", [False, True])
def test_both_encodings_of_answers(client, as_content):
    with scripted(client, [], as_content) as (connected, _):
        result = connected.rank(REQUEST)
    assert [row["video_id"] for row in result["ranking"]] == ["v22", 333, "v1"]
    assert list(map(result["ranking"][0].get, NUMBERS)) == pytest.approx([3.0, 0.2, 0.5])


@pytest.mark.parametrize("failures", [1, 4])
def test_unavailable_server_is_asked_again(client, failures):
    with scripted(client, [grpc.StatusCode.UNAVAILABLE] * failures) as (connected, servicer):
        assert len(connected.rank(REQUEST)["ranking"]) == 3
    assert servicer.calls == failures + 1


def test_server_that_stays_unavailable_is_asked_five_times(client):
    with (
        scripted(client, [grpc.StatusCode.UNAVAILABLE] * 9) as (connected, servicer),
        pytest.raises(InputError, match=r"No model server answers at the target \(as scripted\)"),
    ):
        connected.rank(REQUEST)
    assert servicer.calls == 5


def test_attempts_have_one_deadline_together(client):
    with scripted(client, [grpc.StatusCode.UNAVAILABLE] * 9, timeout=0.35) as (connected, servicer):
        began = time.monotonic()
        with pytest.raises((RankingError, InputError)):
            connected.rank(REQUEST)
        assert time.monotonic() - began < 3
    assert servicer.calls < 5


def test_full_server_is_asked_again_by_choice(client):
    codes = [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
    with scripted(client, codes, retry_exhausted=True) as (connected, servicer):
        assert len(connected.rank(REQUEST)["ranking"]) == 3
    assert servicer.calls == 3


def test_large_messages_are_sent_again_too(client):
    candidates = [candidate | {"tags": ["t" * 10**6]} for candidate in CANDIDATES]
    with scripted(client, [grpc.StatusCode.UNAVAILABLE]) as (connected, servicer):
        assert len(connected.rank({"context": CONTEXT, "candidates": candidates})["ranking"]) == 3
    assert servicer.calls == 2


def test_server_that_starts_while_it_is_asked(client):
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{reserved.getsockname()[1]}"
        with RankingClient(target) as connected, futures.ThreadPoolExecutor(1) as pool:
            ranking = pool.submit(connected.rank, REQUEST)
            time.sleep(0.2)
            with scripted(client, [], target=target):
                assert len(ranking.result()["ranking"]) == 3


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InputError, r"refused the request: as scripted\.$"),
        (grpc.StatusCode.FAILED_PRECONDITION, InputError, r"refused the request: as scripted\.$"),
        (grpc.StatusCode.INTERNAL, RankingError, r"answered INTERNAL: as scripted\.$"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, RankingError, r"answered RESOURCE_EXHAUSTED: as scripted\.$"),
    ],
)
def test_errors_of_the_server_are_one_sentence_and_not_tried_again(client, code, error, message):
    with scripted(client, [code]) as (connected, servicer):
        with pytest.raises(error, match=message):
            connected.rank(REQUEST)
        assert servicer.calls == 1
        assert len(connected.rank(REQUEST)["ranking"]) == 3


def test_deadline():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RankingError, match=rf"The server at {target} did not answer within 0\.2 s"):
            RankingClient(target, timeout=0.2).rank(REQUEST)


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

"""The client where the server is away, full, slow, refuses or has no such model: retries, deadlines, sentences."""

from __future__ import annotations

import contextlib
import socket
import time
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from mmoe_ranker.errors import InputError
from serving.client import RankingClient, RankingError
from tests.serving.ranker_requests import (
    CANDIDATES,
    CONTEXT,
    NUMBERS,
    REQUEST,
)


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

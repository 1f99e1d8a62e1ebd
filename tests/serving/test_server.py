"""The server's life: the port, the address, stopping without dropping a request, and signals."""

from __future__ import annotations

import gc
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import grpc
import numpy as np
import pytest
from tensorflow.core.framework import tensor_pb2

from mmoe_ranker.errors import InputError
from serving.server import ModelServer
from tests.serving.conftest import MODEL, Stubs, open_channel, predict_request


def test_port_in_use(server, half_plus_two, capfd):
    with pytest.raises(
        InputError, match=rf"a port that no other program listens on .*Received: 127\.0\.0\.1:{server.port}$"
    ):
        ModelServer(half_plus_two, port=server.port).start()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("no such host", 0), ("127.0.0.1", 70000)])
def test_address_that_cannot_be_had(half_plus_two, host, port):
    with pytest.raises(InputError, match=rf"must be an address of this machine.*Received: {host}:{port}$"):
        ModelServer(half_plus_two, host=host, port=port).start()


def test_only_this_machine_is_answered_by_default(server):
    # Another loopback address is free for the same port only if the server did not take every address.
    with socket.socket() as other:
        other.bind(("127.0.0.2", server.port))


def test_stop_finishes_what_is_under_way_and_refuses_the_rest(half_plus_two):
    server = ModelServer(half_plus_two, name=MODEL, port=0)
    server.start()
    with open_channel(server) as channel:
        stubs = Stubs(channel)
        under_way = stubs.prediction.Predict.future(predict_request("slow", steps=np.int64(300_000)))
        time.sleep(0.2)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        time.sleep(0.2)
        with pytest.raises(grpc.RpcError) as caught:
            stubs.prediction.Predict(predict_request(x=[2.0]))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert under_way.result().outputs["steps"].int64_val == [300_000]
        stopping.join()
    server.stop()  # a second time does nothing


def test_stop_under_load_loses_no_request(half_plus_two):
    server = ModelServer(half_plus_two, name=MODEL, port=0)
    server.start()
    answered, refused, wrong = [0], [0], []
    stopped = threading.Event()

    def ask() -> None:
        with open_channel(server) as channel:
            stubs = Stubs(channel)
            while not stopped.is_set():
                try:
                    answered[0] += stubs.prediction.Predict(predict_request(x=[2.0])).outputs["y"].float_val[0] == 3.0
                except grpc.RpcError as error:
                    refused[0] += 1
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:  # which a client may safely try elsewhere
                        wrong.append(error)
                    if stopping.is_set():
                        return

    stopping = threading.Event()
    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert (refused[0], bool(answered[0])) == (0, True)
    stopping.set()
    server.stop()
    for thread in threads:
        thread.join(30)
    stopped.set()
    assert not wrong
    assert refused[0] == len(threads)  # each once, when the server was gone


def test_stop_cancels_what_outlasts_the_grace(half_plus_two):
    server = ModelServer(half_plus_two, name=MODEL, port=0)
    server.start()
    with open_channel(server) as channel:
        endless = Stubs(channel).prediction.Predict.future(predict_request("slow", steps=np.int64(10**15)))
        time.sleep(0.3)
        began = time.perf_counter()
        server.stop(grace_seconds=0.2)
        assert time.perf_counter() - began < 8
        assert endless.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    # No thread of the session is left, on which the end of the process would wait.
    end = time.monotonic() + 8
    while any(thread.name.startswith("ThreadPoolExecutor") and _busy(thread) for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.05)


def _busy(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_filename.endswith("native_session.py"):
            return True
        frame = frame.f_back
    return False


def test_request_above_the_limit(half_plus_two):
    with (
        ModelServer(half_plus_two, name=MODEL, port=0, max_request_bytes=10_000) as server,
        open_channel(server) as channel,
    ):
        stubs = Stubs(channel)
        assert len(stubs.prediction.Predict(predict_request(x=np.zeros(2000, np.float32))).outputs) == 1
        with pytest.raises(grpc.RpcError) as caught:
            stubs.prediction.Predict(predict_request(x=np.zeros(3000, np.float32)))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in caught.value.details()
        # The answer to a small request may be larger.
        tensor = tensor_pb2.TensorProto(dtype=1, float_val=[2.0], tensor_shape={"dim": [{"size": 100_000}]})
        assert len(stubs.prediction.Predict(predict_request(x=tensor)).outputs["y"].float_val) == 100_000


@pytest.mark.parametrize(
    ("signature", "alias", "tensor"),
    [
        ("", "x", {"dtype": 1, "float_val": [1.0], "tensor_shape": {"dim": [{"size": 2**31}]}}),
        ("", "x", {"dtype": 1, "tensor_shape": {"dim": [{"size": 2**16}, {"size": 2**16}]}}),
        ("spell", "text", {"dtype": 7, "string_val": [b"a"], "tensor_shape": {"dim": [{"size": 2**28}]}}),
        ("spell", "text", {"dtype": 7, "string_val": [b"a" * 10**6], "tensor_shape": {"dim": [{"size": 10**5}]}}),
    ],
)
def test_tensor_that_would_repeat_one_value_for_gigabytes(stubs, signature, alias, tensor):
    began = time.perf_counter()
    with pytest.raises(grpc.RpcError) as caught:
        stubs.prediction.Predict(predict_request(signature, **{alias: tensor_pb2.TensorProto(**tensor)}))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == f"tensor parsing error: {alias}"
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("dtype", [20, 21, 120, 121])
def test_tensor_that_would_end_the_process(stubs, dtype):
    # TensorFlow reads the metadata of a TensorList without checks, and throws what nobody catches.
    tensor = tensor_pb2.TensorProto(dtype=dtype, tensor_shape={"dim": [{"size": 1}]})
    tensor.variant_val.add(type_name="tensorflow::TensorList", metadata=b"\xff")
    tensor.resource_handle_val.add(name="r")
    with pytest.raises(grpc.RpcError) as caught:
        stubs.prediction.Predict(predict_request(x=tensor))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "tensor parsing error: x"


def test_message_that_is_no_protobuf_leaves_nothing_behind(stubs):
    method = stubs.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

    def ask() -> None:
        with pytest.raises(grpc.RpcError) as caught:
            method(b"\xff\xff")
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert caught.value.details() == "The request is no tensorflow.serving.PredictRequest."

    def calls_kept() -> int:
        gc.collect()
        return sum(type(thing).__name__ == "_RPCState" for thing in gc.get_objects())

    ask()
    before = calls_kept()
    for _ in range(50):
        ask()
    assert calls_kept() < before + 25


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_process_without_a_failed_request(half_plus_two, number):
    options = ["--models", str(half_plus_two), "--name", MODEL, "--port", "0", "--metrics-port", "0"]
    command = [sys.executable, "-m", "mmoe_ranker", "serve", *options, "--poll-seconds", "0.5"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        metrics, target = (process.stdout.readline().split()[-1].rstrip(".") for _ in range(2))
        with grpc.insecure_channel(target) as channel:
            under_way = Stubs(channel).prediction.Predict.future(predict_request("slow", steps=np.int64(300_000)))
            time.sleep(0.3)
            with urllib.request.urlopen(metrics, timeout=10) as page:
                assert b"# TYPE :tensorflow:serving:request_count counter" in page.read()
            process.send_signal(number)
            assert under_way.result(timeout=30).outputs["steps"].int64_val == [300_000]
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.communicate()

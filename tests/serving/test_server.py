"""The server's life: the port, the address, stopping without dropping a request, and signals."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest

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


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_process_without_a_failed_request(half_plus_two, number):
    program = (
        "from serving.server import ModelServer\n"
        f"server = ModelServer({str(half_plus_two)!r}, name={MODEL!r}, port=0)\n"
        "server.start()\n"
        "print(server.port, flush=True)\n"
        "server.wait()\n"
        "print('stopped', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            under_way = Stubs(channel).prediction.Predict.future(predict_request("slow", steps=np.int64(300_000)))
            time.sleep(0.3)
            process.send_signal(number)
            assert under_way.result(timeout=30).outputs["steps"].int64_val == [300_000]
        assert process.stdout.read() == "stopped\n"
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()

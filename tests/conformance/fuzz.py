"""Sends malformed requests to a server, many at once, and compares each answer with what it has to be."""

from __future__ import annotations

import collections
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from tests.conformance.malformed import PREDICT, build
from tests.conformance.oracle import OK, Unfit, expected
from tests.conformance.target import NAME, Target

_THREADS = 8
_TIMINGS = 500
_SOCKET_EVERY = 500


@dataclass
class Report:
    """What came of a run; latencies are the p50 and p99 of well-formed requests, in milliseconds."""

    codes: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    unfit: int = 0
    sockets: int = 0
    seconds: float = 0.0
    before: tuple[float, float] = (0.0, 0.0)
    after: tuple[float, float] = (0.0, 0.0)

    def __str__(self) -> str:
        codes = ", ".join(f"{code} {count:,}" for code, count in sorted(self.codes.items()))
        return (
            f"{sum(self.codes.values()):,} requests in {self.seconds:.0f} s ({codes}), {self.sockets} broken "
            f"connections, {self.unfit:,} left out as their answers depend on the machine; {len(self.wrong)} wrong; "
            f"p50 and p99 of a well-formed request before {self.before[0]:.2f} and {self.before[1]:.2f} ms, after "
            f"{self.after[0]:.2f} and {self.after[1]:.2f} ms"
        )


def fuzz(target: Target, count: int, seed: int = 0) -> Report:
    """Sends `count` malformed requests, and every now and then breaks a connection instead of asking."""
    report = Report()
    lock = threading.Lock()
    with target.channel() as channel, ThreadPoolExecutor(_THREADS) as pool:
        report.before = _latency(channel)
        began = time.perf_counter()

        def one(number: int) -> None:
            method, message = build(seed, number)
            try:
                code, answer = expected(method, message)
            except Unfit:
                with lock:
                    report.unfit += 1
                return
            if number % _SOCKET_EVERY == 0:
                _break_connection(target.address, message, seed + number)
            received, response = _call(channel, method, message)
            wrong = _difference(code, answer, received, response)
            with lock:
                report.codes[received.name] += 1
                report.sockets += number % _SOCKET_EVERY == 0
                if wrong:
                    report.wrong.append(f"seed {seed} number {number} {method}: {wrong}")

        for _ in pool.map(one, range(count)):
            pass
        report.seconds = time.perf_counter() - began
        report.after = _latency(channel)
    return report


def _call(channel: grpc.Channel, method: str, message: bytes) -> tuple[grpc.StatusCode, bytes]:
    try:
        return OK, channel.unary_unary(method)(message, timeout=30)
    except grpc.RpcError as error:
        return error.code(), b""


def _difference(code: grpc.StatusCode, answer: object, received: grpc.StatusCode, response: bytes) -> str:
    if received is not code:
        return f"{code.name} expected, {received.name} received"
    if answer is None:
        return ""
    outputs = predict_pb2.PredictResponse.FromString(response).outputs
    same = list(outputs) == ["y"] and np.array_equal(tf.make_ndarray(outputs["y"]), answer, equal_nan=True)
    return "" if same else f"y = {answer} expected"


def _latency(channel: grpc.Channel) -> tuple[float, float]:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = NAME
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.arange(300, dtype=np.float32)))
    message = request.SerializeToString()

    def timings() -> Iterator[float]:
        for _ in range(_TIMINGS):
            began = time.perf_counter()
            channel.unary_unary(PREDICT)(message, timeout=30)
            yield (time.perf_counter() - began) * 1e3

    percentiles = statistics.quantiles(timings(), n=100)
    return percentiles[49], percentiles[98]


def _break_connection(address: str, message: bytes, number: int) -> None:
    """Speaks HTTP/2 up to a point, then sends what is none, and hangs up."""
    host, _, port = address.rpartition(":")
    preface, settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\4\0\0\0\0\0"
    greeting = (preface + settings, preface[:10], b"GET / HTTP/1.1\r\n\r\n", b"")[number % 4]
    with socket.create_connection((host.strip("[]"), int(port)), timeout=10) as connection:
        connection.sendall(greeting + message[:1000])

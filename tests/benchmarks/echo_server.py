"""gRPC alone: a server that answers each call with bytes that are there already. Prints its address.

python -m tests.benchmarks.echo_server BYTES
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc

_METHOD = "/echo.Echo/Answer"


@contextmanager
def echo_call(answer_bytes: int) -> Iterator[Callable[[bytes], bytes]]:
    """A server of its own process, and a call to it that takes any bytes and gives `answer_bytes` of them."""
    command = [sys.executable, "-m", "tests.benchmarks.echo_server", str(answer_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            with grpc.insecure_channel(process.stdout.readline().strip()) as channel:
                grpc.channel_ready_future(channel).result(timeout=30)
                yield channel.unary_unary(_METHOD)
        finally:
            process.terminate()


def main(answer_bytes: int) -> None:
    answer = bytes(answer_bytes)
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: answer)
    service, _, method = _METHOD.strip("/").partition("/")
    server: Any = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(int(sys.argv[1]))

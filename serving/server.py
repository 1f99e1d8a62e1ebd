"""An embedded model server that speaks TF Serving's gRPC protocol, for laptops, tests and small installations.

It answers Predict, GetModelMetadata, GetModelStatus and health checks for one model, through the C++ session that TF
Serving uses. What it does not do it refuses by name, and TF Serving runs on the same folder (`serving/deploy`).
"""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import threading
from concurrent import futures
from types import FrameType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from mmoe_ranker.errors import InputError
from serving.model_service import ModelService
from serving.prediction_service import PredictionService
from serving.versions import ModelVersions

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Otherwise a second server on the same port would start and share its calls.
    ("grpc.so_reuseport", 0),
]
# TF Serving's names, which are not the services' full names.
_HEALTH_SERVICES = ("", "ModelService", "PredictionService")


class ModelServer:
    """Serves the highest version below a folder, and each later one as it is published.

    Example:
        with ModelServer(pathlib.Path("models"), port=0) as server:
            client = RankingClient(f"localhost:{server.port}")

    Attributes:
        port: The port that is listened on; the chosen one where 0 was asked for, once started.
    """

    def __init__(
        self,
        models: pathlib.Path | str,
        name: str = "ranker",
        port: int = 8500,
        host: str = "127.0.0.1",
        poll_seconds: float = 1.0,
    ) -> None:
        """Prepares; nothing is loaded or listened on before `start`.

        Args:
            models: Folder with one sub-folder a version, named by an integer.
            name: The name that requests call the model by.
            port: TCP port; 0 picks a free one.
            host: Address to listen on. There is neither encryption nor a login: only this machine can reach the
                default.
            poll_seconds: Pause between two looks for new versions; 0 looks once, at the start.
        """
        self.port = port
        self._host = host
        self._versions = ModelVersions(name, pathlib.Path(models), poll_seconds)
        self._health = health.HealthServicer()
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Loads and warms the highest version, then opens the port.

        Raises:
            InputError: no version can be served, or the port cannot be had.
        """
        self._check_address()  # before seconds are spent on loading, and without gRPC's own lines on stderr
        self._versions.start()
        # As many calls at once as TF Serving's default allows.
        server = grpc.server(futures.ThreadPoolExecutor(4 * (os.cpu_count() or 1)), options=_OPTIONS)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(self._versions), server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(self._versions), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        try:
            self.port = self._listen(server)
        except InputError:
            self._versions.stop()
            raise
        server.start()
        self._server = server
        for service in _HEALTH_SERVICES:
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_seconds: float = 30.0) -> None:
        """Refuses new calls, lets those under way finish for at most `grace_seconds`, and frees the model."""
        if self._server is None:
            return
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_seconds).wait()
        self._server = None
        self._versions.stop()

    def wait(self) -> None:
        """Blocks until SIGINT or SIGTERM, then stops; for the main thread of a command."""
        requested = threading.Event()

        def request(number: int, frame: FrameType | None) -> None:
            requested.set()

        previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            requested.wait()
            self.stop()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def __enter__(self) -> ModelServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _listen(self, server: grpc.Server) -> int:
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            port: int = server.add_insecure_port(f"{host}:{self.port}")
        except RuntimeError as error:
            raise self._address_error(error) from error
        if port == 0:  # what older releases of grpc return instead of raising
            raise self._address_error("refused by gRPC")
        return port

    def _check_address(self) -> None:
        if not 0 <= self.port <= 65535:  # what the system's own look-up would take modulo 65536
            raise self._address_error("ports go from 0 to 65535")
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(self._host, self.port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                # As gRPC binds: a port that was just given up is free, one that is listened on is not.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            raise self._address_error(error) from error

    def _address_error(self, reason: object) -> InputError:
        return InputError(
            "`host` and `port` must be an address of this machine and a port that no other program listens on "
            f"({reason}). Received: {self._host}:{self.port}"
        )

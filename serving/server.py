"""An embedded model server that speaks TF Serving's gRPC protocol, for laptops, tests and small installations.

It answers Predict, GetModelMetadata, GetModelStatus and health checks for one model, through the C++ session that TF
Serving uses, and shows Prometheus metrics. What it does not do it refuses by name, and TF Serving runs on the same
folder (`serving/deploy`).
"""

from __future__ import annotations

import gc
import os
import pathlib
import signal
import socket
import time
from collections.abc import Callable
from concurrent import futures
from types import FrameType

import grpc
from grpc_health.v1 import health, health_pb2
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

from mmoe_ranker.errors import InputError
from serving.draining import Draining
from serving.metrics import ServerMetrics
from serving.metrics_endpoint import MetricsEndpoint
from serving.model_service import ModelService
from serving.prediction_service import PredictionService
from serving.registration import service_handler
from serving.unserved import UnservedMethods
from serving.versions import ModelVersions

_SIGNAL_SECONDS = 0.1  # between two looks for a signal
LARGEST_MESSAGE = 2**31 - 1  # TF Serving's limit, and protobuf's
# TF Serving's names, which are not the services' full names.
_HEALTH_SERVICES = ("", "ModelService", "PredictionService")


class ModelServer:
    """Serves the highest version below a folder, and each later one as it is published.

    Example:
        with ModelServer(pathlib.Path("models"), port=0) as server:
            client = RankingClient(f"localhost:{server.port}")

    Attributes:
        port: The port that is listened on; the chosen one where 0 was asked for, once started.
        metrics_port: The same of the metrics; None where there are none.
    """

    def __init__(
        self,
        models: pathlib.Path | str,
        name: str = "ranker",
        port: int = 8500,
        host: str = "127.0.0.1",
        poll_seconds: float = 1.0,
        metrics_port: int | None = None,
        credentials: grpc.ServerCredentials | None = None,
        max_request_bytes: int = LARGEST_MESSAGE,
    ) -> None:
        """Prepares; nothing is loaded or listened on before `start`.

        Args:
            models: Folder with one sub-folder a version, named by an integer.
            name: The name that requests call the model by.
            port: TCP port; 0 picks a free one.
            host: Address to listen on. Only this machine can reach the default.
            poll_seconds: Pause between two looks for new versions; 0 looks once, at the start.
            metrics_port: TCP port for Prometheus, plain HTTP; 0 picks a free one, None measures nothing.
            credentials: TLS (`serving.tls`); None for no encryption and no login.
            max_request_bytes: A larger request is refused with RESOURCE_EXHAUSTED.
        """
        self.port = port
        self.metrics_port = metrics_port
        self._host = host
        self._credentials = credentials
        self._max_request_bytes = max_request_bytes
        self._metrics = None if metrics_port is None else ServerMetrics(name)
        self._versions = ModelVersions(name, pathlib.Path(models), poll_seconds, self._metrics)
        self._health = health.HealthServicer()
        self._draining = Draining()
        self._server: grpc.Server | None = None
        self._endpoint: MetricsEndpoint | None = None

    def start(self) -> None:
        """Loads and warms the highest version, then opens the port.

        Raises:
            InputError: no version can be served, or the port cannot be had.
        """
        # Before seconds are spent on loading, and without gRPC's own lines on stderr.
        _check_address(self._host, self.port)
        if self.metrics_port is not None:
            _check_address(self._host, self.metrics_port)
        self._versions.start()
        server = self._build()
        try:
            self.port = self._listen(server)
            self._show_metrics()
        except InputError:
            server.stop(None)
            self._versions.stop()
            raise
        server.start()
        self._server = server
        for service in _HEALTH_SERVICES:
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_seconds: float = 30.0) -> None:
        """Refuses new calls, lets those under way finish for at most `grace_seconds`, and frees the model.

        Calls that take longer than that are cancelled, so that the process can end; a version that is being loaded is
        waited for some seconds more.
        """
        if self._server is None:
            return
        self._health.enter_graceful_shutdown()
        self._versions.stop_polling()
        self._draining.drain()
        self._server.stop(grace_seconds).wait()
        self._server = None
        self._versions.stop()
        if self._endpoint is not None:  # last, so that the end of the work can still be seen
            self._endpoint.close()

    def wait(self, announce: Callable[[], None]) -> None:
        """Blocks until SIGINT or SIGTERM, then stops; for the main thread of a command.

        Args:
            announce: Tells that the server is there; a signal that comes from then on stops it in good order.
        """
        received: list[int] = []  # no Event: its lock may be held by the very thread that the signal interrupts

        def request(number: int, frame: FrameType | None) -> None:
            received.append(number)

        previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
        # What was imported stays for ever, and is hundreds of thousands of objects: the collector would walk through
        # them while requests wait.
        gc.collect()
        gc.freeze()
        try:
            announce()
            while not received:
                time.sleep(_SIGNAL_SECONDS)
            self.stop()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def __enter__(self) -> ModelServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _build(self) -> grpc.Server:
        server = grpc.server(
            futures.ThreadPoolExecutor(4 * (os.cpu_count() or 1)),  # as many calls at once as TF Serving's default
            interceptors=[self._draining],
            options=[
                ("grpc.max_receive_message_length", self._max_request_bytes),
                ("grpc.max_send_message_length", -1),
                # Otherwise a second server on the same port would start and share its calls.
                ("grpc.so_reuseport", 0),
            ],
        )
        services = {
            prediction_service_pb2.DESCRIPTOR: PredictionService(self._versions, self._metrics),
            model_service_pb2.DESCRIPTOR: ModelService(self._versions),
            health_pb2.DESCRIPTOR: self._health,
        }
        for file, servicer in services.items():
            (service,) = file.services_by_name.values()
            server.add_generic_rpc_handlers((service_handler(service, servicer),))
        server.add_generic_rpc_handlers((UnservedMethods(),))  # last: handlers are asked in turn
        return server

    def _listen(self, server: grpc.Server) -> int:
        host = f"[{self._host}]" if ":" in self._host else self._host
        address = f"{host}:{self.port}"
        try:
            port: int = (
                server.add_insecure_port(address)
                if self._credentials is None
                else server.add_secure_port(address, self._credentials)
            )
        except RuntimeError as error:
            raise _address_error(self._host, self.port, error) from error
        if port == 0:  # what older releases of grpc return instead of raising
            raise _address_error(self._host, self.port, "refused by gRPC")
        return port

    def _show_metrics(self) -> None:
        if self._metrics is None or self.metrics_port is None:
            return
        try:
            self._endpoint = MetricsEndpoint(self._metrics, self._host, self.metrics_port)
        except OSError as error:
            raise _address_error(self._host, self.metrics_port, error) from error
        self.metrics_port = self._endpoint.port


def _check_address(host: str, port: int) -> None:
    if not 0 <= port <= 65535:  # what the system's own look-up would take modulo 65536
        raise _address_error(host, port, "ports go from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As gRPC binds: a port that was just given up is free, one that is listened on is not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise _address_error(host, port, error) from error


def _address_error(host: str, port: int, reason: object) -> InputError:
    return InputError(
        "`host` and `port` must be an address of this machine and a port that no other program listens on "
        f"({reason}). Received: {host}:{port}"
    )

"""A plain HTTP endpoint at the path where TF Serving's REST port shows its Prometheus metrics."""

from __future__ import annotations

import functools
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serving.metrics import ServerMetrics

METRICS_PATH = "/monitoring/prometheus/metrics"


class MetricsEndpoint:
    """Answers GET of `METRICS_PATH` in threads of its own.

    Attributes:
        port: The port that is listened on; the chosen one where 0 was asked for.
    """

    def __init__(self, metrics: ServerMetrics, host: str, port: int) -> None:
        """Opens the port.

        Raises:
            OSError: it cannot be had.
        """
        server = _IPv6Server if ":" in host else _Server
        self._server = server((host, port), functools.partial(_Handler, metrics))
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Gives the port up."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _IPv6Server(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    timeout = 10  # seconds that a connection may say nothing

    def __init__(self, metrics: ServerMetrics, *connection: Any) -> None:
        self._metrics = metrics
        super().__init__(*connection)

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == METRICS_PATH:
            self._answer(200, "text/plain; version=0.0.4; charset=utf-8", self._metrics.exposition())
        else:
            self._refuse()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: a line for each scrape would hide what matters."""

    def _refuse(self) -> None:
        error = (
            f"Only {METRICS_PATH} is served here: there is no REST interface; use gRPC, or TensorFlow Serving. "
            f"Received: {self.command} {self.path}"
        )
        self._answer(501, "application/json", json.dumps({"error": error}).encode())

    def do_POST(self) -> None:
        self._refuse()

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

"""Ends a local run when one of its worker processes is lost, where Beam's local runner would wait for it for ever.

Beam reads a worker's answers from a stream and hands each to whoever waits for it. When the stream breaks off, because
the process was killed, nobody is told. Here everyone who waits is given an error in the worker's place, so that the run
fails, and what it had written is removed. Runners of a cluster give the work to another worker instead.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner import worker_handlers

LOST = "a worker that answers no more"
_SECONDS_TO_CONNECT = 120.0


class _WatchedConnection(worker_handlers.ControlConnection):
    """A connection to a worker, which answers in the worker's place once that is gone, or does not come."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = False
        self._lost = False
        self._waiting = threading.Timer(_SECONDS_TO_CONNECT, self.lose)
        self._waiting.daemon = True
        self._waiting.start()

    def set_input(self, input: Any) -> None:
        self._waiting.cancel()
        super().set_input(input)

    def push(self, req: Any) -> Any:
        future = super().push(req)
        if self._lost:
            self._answer_all()
        return future

    def close(self) -> None:
        self._closing = True
        self._waiting.cancel()
        super().close()

    def lose(self) -> None:
        """The worker will answer nothing more; no news where the runner has closed the connection itself."""
        if not self._closing:
            self._lost = True
            self._answer_all()

    def _read(self) -> None:
        # How the stream breaks off says nothing beyond that it did.
        with contextlib.suppress(grpc.RpcError):
            super()._read()
        self.lose()

    def _answer_all(self) -> None:
        while self._futures_by_id:
            with contextlib.suppress(KeyError):  # Another thread took it.
                key, future = self._futures_by_id.popitem()
                future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=key, error=LOST))


class _WatchedProcess(worker_handlers.SubprocessSdkWorkerHandler):
    """A worker process that may also end before it ever connects."""

    def start_worker(self) -> None:
        self.worker = local_job_service.SubprocessSdkWorker(
            self._worker_command_line, self.control_address, self.provision_info, self.worker_id
        )
        self.worker_thread = threading.Thread(name="run_worker", target=self._run)
        self.worker_thread.start()

    def _run(self) -> None:
        with contextlib.suppress(RuntimeError):  # The exit status of a process that was killed.
            self.worker.run()
        connection: Any = self.control_conn
        connection.lose()


@contextlib.contextmanager
def noticing_lost_workers() -> Iterator[None]:
    """Makes Beam's local runner, and its embedded job server, fail within seconds of the loss of a worker process."""
    handlers = worker_handlers.WorkerHandler._registered_environments
    beams: Any = worker_handlers
    hook = threading.excepthook
    # The threads that read a lost worker's other streams break off too, each with a traceback for the terminal.
    threading.excepthook = lambda failed: None if issubclass(failed.exc_type, grpc.RpcError) else hook(failed)
    connection, process = beams.ControlConnection, handlers[python_urns.SUBPROCESS_SDK]
    beams.ControlConnection = _WatchedConnection
    handlers[python_urns.SUBPROCESS_SDK] = (_WatchedProcess, bytes)
    try:
        yield
    finally:
        threading.excepthook = hook
        beams.ControlConnection = connection
        handlers[python_urns.SUBPROCESS_SDK] = process

"""A channel to a model server: TLS, deadlines, calls that are made again, and what is said of those that fail.

Ranking changes nothing at the server, so a call that did not reach it may be made again. gRPC does so by itself: up to
5 attempts, of which the second comes after about 0.1 s and each later one after twice as long as the one before, up to
1 s, drawn at random around that so that clients do not come back all at once. The deadline is that of all attempts
together. UNAVAILABLE (no server there, or one that stops) is tried again; RESOURCE_EXHAUSTED (a full queue, but also a
message that the server finds too large) where the caller chooses so; nothing else, because the server has answered.
"""

from __future__ import annotations

import json
import time
from typing import Any

import grpc

from mmoe_ranker.errors import InputError
from serving.protos import GetModelMetadataRequest, GetModelMetadataResponse, PredictRequest, PredictResponse

_SERVICE = "tensorflow.serving.PredictionService"
_MOST_ATTEMPTS = 5  # gRPC's own limit
_OPTIONS = [
    # gRPC's default of 4 MB is less than the answer to a few hundred thousand candidates.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A message that is larger than this is not tried again; gRPC's default is 256 kB.
    ("grpc.per_rpc_retry_buffer_size", 2**31 - 1),
    # Otherwise all attempts may fall into the second for which gRPC waits before it connects anew.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class RankingError(RuntimeError):
    """The server failed or did not answer in time: nothing that another request would put right."""


class RefusedError(InputError):
    """The server has looked at the request and refused it."""


class AbsentModelError(InputError):
    """The server has no such model, or no longer this version of it."""


class Deadline:
    """The end of the time that all calls for one request have together."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds from now, at least 0."""
        return max(self._end - time.monotonic(), 0.0)


class Connection:
    """Calls Predict and GetModelMetadata on one server; one object serves any number of threads."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None, retry_exhausted: bool) -> None:
        """Prepares; nothing is sent before the first call.

        Args:
            target: The server's `host:port`.
            credentials: TLS (`serving.tls`); None for no encryption.
            retry_exhausted: Whether RESOURCE_EXHAUSTED is tried again too.
        """
        self.target = target
        options = [*_OPTIONS, ("grpc.service_config", _service_config(retry_exhausted))]
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options=options)
        else:
            self._channel = grpc.secure_channel(target, credentials, options=options)
        self._predict = self._method("Predict", PredictRequest, PredictResponse)
        self._get_metadata = self._method("GetModelMetadata", GetModelMetadataRequest, GetModelMetadataResponse)

    def predict(self, request: Any, deadline: Deadline) -> Any:
        """Answers a PredictRequest or RankRequest.

        Raises:
            RefusedError: the server finds fault with the request.
            AbsentModelError: it has no such model.
            InputError: no server answers at the target.
            RankingError: it failed, or did not answer in time.
        """
        return self._call(self._predict, request, deadline)

    def get_metadata(self, request: Any, deadline: Deadline) -> Any:
        """Answers a GetModelMetadataRequest; raises as `predict` does."""
        return self._call(self._get_metadata, request, deadline)

    def close(self) -> None:
        """Ends the connection, and calls that are under way."""
        self._channel.close()

    def _method(self, name: str, request: Any, response: Any) -> Any:
        return self._channel.unary_unary(
            f"/{_SERVICE}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )

    def _call(self, method: Any, request: Any, deadline: Deadline) -> Any:
        try:
            return method(request, timeout=deadline.remaining())
        except grpc.RpcError as error:
            raise self._said(error.code(), error.details() or "no details", request, deadline) from None

    def _said(self, code: grpc.StatusCode, text: str, request: Any, deadline: Deadline) -> Exception:
        details = text.splitlines()[0].rstrip(".")  # the lines below the first name nodes of the graph
        if code is grpc.StatusCode.UNAVAILABLE:
            return InputError(f"No model server answers at the target ({details}). Received: {self.target}.")
        if code is grpc.StatusCode.NOT_FOUND:
            return AbsentModelError(
                f"The server at {self.target} has no available model of this name ({details}). "
                f"Received: {request.model_spec.name}."
            )
        if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION):
            return RefusedError(f"The server at {self.target} refused the request: {details}.")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return RankingError(f"The server at {self.target} did not answer within {deadline.seconds} s.")
        return RankingError(f"The server at {self.target} answered {code.name}: {details}.")


def _service_config(retry_exhausted: bool) -> str:
    retry = {
        "maxAttempts": _MOST_ATTEMPTS,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"] + ["RESOURCE_EXHAUSTED"] * retry_exhausted,
    }
    return json.dumps({"methodConfig": [{"name": [{"service": _SERVICE}], "retryPolicy": retry}]})

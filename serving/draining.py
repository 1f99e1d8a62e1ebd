"""The first part of a graceful stop: calls under way go on, new ones are refused with UNAVAILABLE.

gRPC's own stop ends the calls that have arrived but not begun with CANCELLED, which no client takes for a reason to ask
another server; so it comes when there are none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

_HEALTH = "/grpc.health.v1.Health/"  # answers to the end: it is what tells load balancers to look elsewhere
_QUIET_SECONDS = 0.2
_DRAIN_SECONDS = 1.0


class Draining(grpc.ServerInterceptor):
    """Lets calls through until `drain` is called."""

    def __init__(self) -> None:
        self._draining = False
        self._last_call = 0.0

    def drain(self) -> None:
        """Refuses calls from now on; returns when none came for a moment, or after a second at most."""
        self._draining = True
        end = time.monotonic() + _DRAIN_SECONDS
        while (now := time.monotonic()) < min(end, self._last_call + _QUIET_SECONDS):
            time.sleep(min(end, self._last_call + _QUIET_SECONDS) - now)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Gives the call's own handler, or one that refuses."""
        if handler_call_details.method.startswith(_HEALTH):
            return continuation(handler_call_details)
        self._last_call = time.monotonic()
        return _REFUSAL if self._draining else continuation(handler_call_details)


def _refuse(requests: Iterator[bytes], context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAVAILABLE, "The server is shutting down.")


_REFUSAL = grpc.stream_stream_rpc_method_handler(_refuse)

"""The methods that are left to TensorFlow Serving: each is refused with a sentence that says what to do instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc

from serving.status import StatusError

_INSTEAD = {
    "Classify": "use Predict, which answers every signature and all objectives in one call, or TensorFlow Serving",
    "Regress": "use Predict, which answers every signature and all objectives in one call, or TensorFlow Serving",
    "MultiInference": "use Predict, which answers all objectives in one call, or TensorFlow Serving",
    "HandleReloadConfigRequest": "publish a version folder, which is picked up by itself, or use TensorFlow Serving",
}


def refusal(method: str) -> StatusError:
    """UNIMPLEMENTED, with a sentence."""
    instead = _INSTEAD.get(method, "the services are PredictionService, ModelService and grpc.health.v1.Health")
    return StatusError(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not served here: {instead}.")


class UnservedMethods(grpc.GenericRpcHandler):
    """Takes every call that no service of the server has, such as reflection, the profiler and SessionRun."""

    def service(self, handler_call_details: Any) -> Any:
        """Gives a handler that refuses, for calls and streams alike."""
        error = refusal(handler_call_details.method.lstrip("/"))

        def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> None:
            context.abort(error.code, error.details)

        return grpc.stream_stream_rpc_method_handler(answer)

"""`tensorflow.serving.PredictionService`: Predict and GetModelMetadata.

Codes, messages and the order of checks are TF Serving's: tensorflow_serving/model_servers/prediction_service_impl.cc,
server_core.cc (which servable) and servables/tensorflow/get_model_metadata_impl.cc.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

import grpc
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

from serving.metrics import ServerMetrics
from serving.protos import DT_STRING
from serving.session import DEFAULT_SIGNATURE
from serving.status import StatusError
from serving.unserved import refusal
from serving.versions import ModelVersions, Servable

_SIGNATURE_DEF = "signature_def"
# A shape may ask for more than was sent: the last value is then repeated, so that a message of 20 bytes can take all of
# the machine's memory, and TF Serving's process with it. Far above what real requests repeat, this server refuses.
_REPEATED_BYTES_LIMIT = 64 * 2**20
_STRING_BYTES = 24  # what a tensor holds of a string beside its characters
_LARGEST_NUMBER_BYTES = 16
# DT_RESOURCE, DT_VARIANT and their references. TensorFlow reads a TensorList in a variant unchecked, asks for the
# memory that it speaks of, and ends the process where it cannot have it. No exported signature takes either.
_UNREADABLE_DTYPES = (20, 21, 120, 121)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers inference requests for the versions of one model."""

    def __init__(self, versions: ModelVersions, metrics: ServerMetrics | None = None) -> None:
        self._versions = versions
        self._metrics = metrics

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Runs a signature of the requested version."""
        began = time.perf_counter()
        with answering(context, request.model_spec.name, self._metrics), self._servable(request) as servable:
            spec = request.model_spec
            signature_name = spec.signature_name or DEFAULT_SIGNATURE
            outputs = servable.model.run(
                signature_name,
                {alias: _serialized(tensor) for alias, tensor in request.inputs.items()},
                request.output_filter,
                _timeout_ms(context),
            )
            response = predict_pb2.PredictResponse()
            _fill_spec(response, spec.name, servable)
            response.model_spec.signature_name = signature_name
            for alias, tensor in outputs.items():
                response.outputs[alias].MergeFromString(tensor.SerializeToString())
            if self._metrics is not None:
                self._metrics.observe_request(time.perf_counter() - began)
                # When the answer is on its way: counting scores takes a tenth of a short request's time.
                context.add_callback(functools.partial(self._metrics.observe_scores, outputs, servable.scores))
            return response

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Returns every signature of the requested version."""
        with answering(context):
            if not request.HasField("model_spec"):
                raise _invalid("Missing ModelSpec")
            if not request.metadata_field:
                raise _invalid("GetModelMetadataRequest must specify at least one metadata_field")
            for field in request.metadata_field:
                if field != _SIGNATURE_DEF:
                    raise _invalid(f"Metadata field {field} is not supported")
            with self._servable(request) as servable:
                signatures = get_model_metadata_pb2.SignatureDefMap()
                for name, signature in servable.model.signatures.items():
                    signatures.signature_def[name].MergeFromString(signature.SerializeToString())
                response = get_model_metadata_pb2.GetModelMetadataResponse()
                _fill_spec(response, request.model_spec.name, servable)
                response.metadata[_SIGNATURE_DEF].Pack(signatures)
                return response

    def Classify(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Is left to TF Serving."""
        with answering(context, request.model_spec.name, self._metrics):
            raise refusal("Classify")

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Is left to TF Serving."""
        with answering(context, request.model_spec.name, self._metrics):
            raise refusal("Regress")

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Is left to TF Serving."""
        with answering(context):
            raise refusal("MultiInference")

    def _servable(self, request: Any) -> contextlib.AbstractContextManager[Servable]:
        """The version that `request.model_spec` asks for, lent for the request."""
        if not request.HasField("model_spec"):
            raise _invalid("Missing ModelSpec")
        spec = request.model_spec
        if not spec.name:
            raise _invalid("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            # Labels are given in TF Serving's model config, which this server has none of: every label is unknown.
            raise _invalid(f"Unrecognized servable version label: {spec.version_label}")
        return self._versions.lease(spec.name, spec.version.value if choice == "version" else None)


@contextlib.contextmanager
def answering(
    context: grpc.ServicerContext, model_name: str = "", metrics: ServerMetrics | None = None
) -> Iterator[None]:
    """Ends the call with the code and message of a StatusError raised inside, and counts it where there are metrics."""
    code = grpc.StatusCode.UNKNOWN  # what gRPC answers to any other exception
    try:
        yield
        code = grpc.StatusCode.OK
    except StatusError as error:
        code = error.code
        context.abort(error.code, error.details)
    finally:
        if metrics is not None:
            metrics.count_request(model_name, code)


def _serialized(tensor: Any) -> bytes:
    """The tensor for the session's parser; empty, which no parser takes, where reading it could end the process."""
    if tensor.dtype in _UNREADABLE_DTYPES:
        return b""
    serialized: bytes = tensor.SerializeToString()
    elements = 1
    for dim in tensor.tensor_shape.dim:
        elements *= dim.size
    # No value is longer than the message: true of all but a few tensors, and quickly seen.
    if elements * (_STRING_BYTES + len(serialized)) <= _REPEATED_BYTES_LIMIT:
        return serialized
    if tensor.dtype == DT_STRING:
        strings = tensor.string_val
        sent = max(len(strings), len(tensor.tensor_content))
        repeated = (elements - sent) * (_STRING_BYTES + (len(strings[-1]) if strings else 0))
    else:
        repeated = (elements - len(serialized)) * _LARGEST_NUMBER_BYTES  # a number takes at least a byte of a message
    return serialized if repeated <= _REPEATED_BYTES_LIMIT else b""


def _timeout_ms(context: grpc.ServicerContext) -> int | None:
    """What is left of the client's deadline; a run without a deadline has no limit."""
    remaining = context.time_remaining()
    # A channel without deadline is reported as None or as a time too far away for an int64 of milliseconds. 0 would
    # mean "no limit" in RunOptions.
    return None if remaining is None or remaining > 1e9 else max(1, round(remaining * 1e3))


def _fill_spec(response: Any, name: str, servable: Servable) -> None:
    response.model_spec.name = name
    response.model_spec.version.value = servable.version


def _invalid(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)

"""`tensorflow.serving.PredictionService`: Predict and GetModelMetadata.

Codes, messages and the order of checks are TF Serving's: tensorflow_serving/model_servers/prediction_service_impl.cc,
server_core.cc (which servable) and servables/tensorflow/get_model_metadata_impl.cc.
"""

from __future__ import annotations

import contextlib
from typing import Any

import grpc
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

from serving.session import DEFAULT_SIGNATURE
from serving.status import StatusError
from serving.versions import ModelVersions, Servable

_SIGNATURE_DEF = "signature_def"


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers inference requests for the versions of one model."""

    def __init__(self, versions: ModelVersions) -> None:
        self._versions = versions

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Runs a signature of the requested version."""
        with answering(context), self._servable(request) as servable:
            spec = request.model_spec
            signature_name = spec.signature_name or DEFAULT_SIGNATURE
            outputs = servable.model.run(
                signature_name,
                {alias: tensor.SerializeToString() for alias, tensor in request.inputs.items()},
                request.output_filter,
                _timeout_ms(context),
            )
            response = predict_pb2.PredictResponse()
            _fill_spec(response, spec.name, servable)
            response.model_spec.signature_name = signature_name
            for alias, tensor in outputs.items():
                response.outputs[alias].MergeFromString(tensor.SerializeToString())
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
        _refuse(context, "Classify")

    def Regress(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Is left to TF Serving."""
        _refuse(context, "Regress")

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Is left to TF Serving."""
        _refuse(context, "MultiInference")

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
def answering(context: grpc.ServicerContext) -> Any:
    """Ends the call with the code and message of a StatusError raised inside."""
    try:
        yield
    except StatusError as error:
        context.abort(error.code, error.details)


def _refuse(context: grpc.ServicerContext, method: str) -> None:
    context.abort(
        grpc.StatusCode.UNIMPLEMENTED,
        f"{method} is not served here: use Predict, which answers every signature and all objectives in one call, "
        "or TensorFlow Serving.",
    )


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

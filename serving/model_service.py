"""`tensorflow.serving.ModelService`: GetModelStatus.

Reference: tensorflow_serving/model_servers/get_model_status_impl.cc.
"""

from __future__ import annotations

from typing import Any

import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from serving.prediction_service import answering
from serving.status import StatusError
from serving.unserved import refusal
from serving.versions import ModelVersions, VersionStatus


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Reports the states of one model's versions."""

    def __init__(self, versions: ModelVersions) -> None:
        self._versions = versions

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Returns the state of one version, or of all, highest first; a version label is ignored, as upstream does."""
        with answering(context):
            if not request.HasField("model_spec"):
                raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
            response = get_model_status_pb2.GetModelStatusResponse()
            for status in self._requested(request.model_spec):
                entry = response.model_version_status.add(version=status.version, state=int(status.state))
                entry.status.SetInParent()
                if status.error is not None:
                    entry.status.error_code = status.error.number
                    entry.status.error_message = status.error.message
            return response

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Is left to TF Serving."""
        with answering(context):
            raise refusal("HandleReloadConfigRequest")

    def _requested(self, spec: Any) -> list[VersionStatus]:
        statuses = self._versions.statuses() if spec.name == self._versions.name else []
        if not spec.HasField("version"):
            if not statuses:
                raise StatusError(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {spec.name}")
            return statuses
        version = spec.version.value
        chosen = [status for status in statuses if status.version == version]
        if not chosen:
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"Could not find version {version} of model {spec.name}")
        return chosen

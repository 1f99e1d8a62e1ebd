"""GetModelMetadata, GetModelStatus and health checks through unmodified stubs."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from tests.serving.conftest import MODEL

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def metadata_request(*fields: str, name: str | None = MODEL) -> get_model_metadata_pb2.GetModelMetadataRequest:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if name is not None:
        request.model_spec.name = name
    return request


def status_request(name: str | None = MODEL, version: int | None = None) -> get_model_status_pb2.GetModelStatusRequest:
    request = get_model_status_pb2.GetModelStatusRequest()
    if name is not None:
        request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    return request


def failure(method, request) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        method(request)
    return caught.value.code(), caught.value.details()


def test_metadata_are_the_signatures_of_the_saved_model(stubs, target):
    response = stubs.prediction.GetModelMetadata(metadata_request("signature_def"))
    assert (response.model_spec.name, response.model_spec.version.value) == (MODEL, 123)
    assert response.model_spec.signature_name == ""
    assert list(response.metadata) == ["signature_def"]
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    if target.models is not None:
        saved = saved_model_pb2.SavedModel.FromString((target.models / "123" / "saved_model.pb").read_bytes())
        assert dict(signatures.signature_def) == dict(saved.meta_graphs[0].signature_def)
    assert "__saved_model_init_op" in signatures.signature_def
    assert signatures.signature_def["scaled"].defaults["scale"].float_val == [3.0]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (metadata_request(name=None), (INVALID, "Missing ModelSpec")),
        (
            metadata_request(name="other"),
            (INVALID, "GetModelMetadataRequest must specify at least one metadata_field"),
        ),
        (
            metadata_request("signature_def", "cost", name="other"),
            (INVALID, "Metadata field cost is not supported"),
        ),
        (metadata_request("signature_def", name=""), (INVALID, "ModelSpec has no name specified.")),
        (
            metadata_request("signature_def", name="other"),
            (NOT_FOUND, "Servable not found for request: Latest(other)"),
        ),
    ],
)
def test_metadata_errors_in_order(stubs, request_, expected):
    assert failure(stubs.prediction.GetModelMetadata, request_) == expected


def test_status_of_all_versions_and_of_one(stubs):
    (one,) = stubs.model.GetModelStatus(status_request(version=123)).model_version_status
    assert (one.version, one.state) == (123, get_model_status_pb2.ModelVersionStatus.AVAILABLE)
    assert one.HasField("status")
    assert (one.status.error_code, one.status.error_message) == (0, "")
    every = stubs.model.GetModelStatus(status_request()).model_version_status
    assert [status for status in every if status.version == 123] == [one]
    # Versions that came and went before the suite was run remain in the list.
    gone = get_model_status_pb2.ModelVersionStatus.END
    assert {status.state for status in every if status.version != 123} <= {gone}


def test_status_ignores_a_label(stubs):
    request = status_request()
    request.model_spec.version_label = "stable"
    assert stubs.model.GetModelStatus(request) == stubs.model.GetModelStatus(status_request())


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (status_request(name=None), (INVALID, "Missing ModelSpec")),
        (status_request("other"), (NOT_FOUND, "Could not find any versions of model other")),
        (status_request("other", 1), (NOT_FOUND, "Could not find version 1 of model other")),
        (status_request(version=9), (NOT_FOUND, f"Could not find version 9 of model {MODEL}")),
    ],
)
def test_status_errors(stubs, request_, expected):
    assert failure(stubs.model.GetModelStatus, request_) == expected


@pytest.mark.parametrize("service", ["", "PredictionService", "ModelService"])
def test_health(stubs, service):
    assert stubs.health.Check(health_pb2.HealthCheckRequest(service=service)).status == 1


def test_health_of_an_unknown_service(stubs):
    assert failure(stubs.health.Check, health_pb2.HealthCheckRequest(service="tensorflow.serving.ModelService"))[0] is (
        NOT_FOUND
    )

"""What is left to TF Serving is refused loudly: UNIMPLEMENTED with a sentence, or by the command line."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import grpc
import pytest
from click.testing import CliRunner
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    model_management_pb2,
    regression_pb2,
    session_service_pb2,
)

from mmoe_ranker.cli import cli
from serving.server import ModelServer
from tests.serving.conftest import MODEL

UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("method", "request_", "instead"),
    [
        ("Classify", classification_pb2.ClassificationRequest(), "use Predict"),
        ("Regress", regression_pb2.RegressionRequest(), "use Predict"),
        ("MultiInference", inference_pb2.MultiInferenceRequest(), "use Predict"),
        ("HandleReloadConfigRequest", model_management_pb2.ReloadConfigRequest(), "publish a version folder"),
    ],
)
def test_method_of_a_served_service(stubs, method, request_, instead):
    service = stubs.model if method == "HandleReloadConfigRequest" else stubs.prediction
    with pytest.raises(grpc.RpcError) as caught:
        getattr(service, method)(request_)
    assert caught.value.code() is UNIMPLEMENTED
    assert caught.value.details().startswith(f"{method} is not served here: {instead}")


@pytest.mark.parametrize(
    "method",
    [
        "tensorflow.serving.SessionService/SessionRun",
        "tensorflow.serving.PredictionService/PredictStreamed",
        "tensorflow.ProfilerService/Profile",
    ],
)
def test_other_calls(stubs, method):
    with pytest.raises(grpc.RpcError) as caught:
        stubs.channel.unary_unary(f"/{method}")(session_service_pb2.SessionRunRequest().SerializeToString(), timeout=10)
    assert caught.value.code() is UNIMPLEMENTED
    assert caught.value.details() == (
        f"{method} is not served here: the services are PredictionService, ModelService and grpc.health.v1.Health."
    )


def test_reflection_which_is_a_stream(stubs):
    method = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    with pytest.raises(grpc.RpcError) as caught:
        next(stubs.channel.stream_stream(f"/{method}")(iter([b""]), timeout=10))
    assert caught.value.code() is UNIMPLEMENTED
    assert caught.value.details().startswith(f"{method} is not served here")


@pytest.mark.parametrize(("path", "data"), [(f"/v1/models/{MODEL}", None), (f"/v1/models/{MODEL}:predict", b"{}")])
def test_rest(half_plus_two, path, data):
    with (
        ModelServer(half_plus_two, name=MODEL, port=0, metrics_port=0) as server,
        pytest.raises(urllib.error.HTTPError) as caught,
    ):
        urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}{path}", data, timeout=10)
    assert caught.value.code == 501
    assert json.load(caught.value)["error"].endswith(f"Received: {'POST' if data else 'GET'} {path}")


@pytest.mark.parametrize(
    "flag",
    [
        "--rest_api_port=8501",
        "--model_config_file=f",
        "--enable_batching",
        "--ssl_config_file=f",
        "--grpc_socket_path=s",
    ],
)
def test_flags_of_tf_serving(tmp_path, flag):
    result = CliRunner().invoke(cli, ["serve", "--models", str(tmp_path), flag])
    assert result.exit_code == 2
    assert "No such option" in result.output
    assert flag.partition("=")[0] in result.output

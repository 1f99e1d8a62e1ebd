"""Exports small SavedModels once, and runs a server on them that unmodified TF Serving stubs talk to."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

from serving.client import RankingClient
from serving.server import ModelServer
from tests.serving.ranker_requests import serving
from tests.serving.saved_models import HalfPlusTwo, Ranker
from tests.serving.scorers import publish

MODEL = "half_plus_two"


@dataclasses.dataclass
class Stubs:
    """The stubs of tensorflow-serving-api and grpcio-health-checking on one channel."""

    channel: grpc.Channel

    def __post_init__(self) -> None:
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Versions to copy from: `two` is y = x/2 + 2, `three` is y = x/2 + 3, and rankers."""
    folder = tmp_path_factory.mktemp("exports")
    HalfPlusTwo(2.0).export(folder / "two")
    HalfPlusTwo(3.0).export(folder / "three")
    Ranker().export(folder / "ranker")
    Ranker(scale=0.5, contract=True).export(folder / "ranker_with_contract")
    return folder


@pytest.fixture(scope="session")
def half_plus_two(exports: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("half_plus_two")
    shutil.copytree(exports / "two", folder / "123")
    return folder


@pytest.fixture(scope="module")
def good_version(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A version of `scorers.Scorer` that passes every check of `verify`."""
    return publish(tmp_path_factory.mktemp("scorer") / "1")


@pytest.fixture
def version(good_version: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy to spoil."""
    return pathlib.Path(shutil.copytree(good_version, tmp_path / "2"))


@pytest.fixture(scope="session")
def server(half_plus_two: pathlib.Path) -> Iterator[ModelServer]:
    with ModelServer(half_plus_two, name=MODEL, port=0) as running:
        yield running


@pytest.fixture(scope="session")
def stubs(server: ModelServer) -> Iterator[Stubs]:
    with open_channel(server) as channel:
        yield Stubs(channel)


@pytest.fixture(scope="module")
def client(exports: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankingClient]:
    """A client of a server of `saved_models.Ranker`."""
    folder = tmp_path_factory.mktemp("rankers")
    shutil.copytree(exports / "ranker", folder / "1")
    with serving(folder) as connected:
        yield connected


def open_channel(server: ModelServer) -> grpc.Channel:
    return grpc.insecure_channel(
        f"127.0.0.1:{server.port}",
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )


def predict_request(signature: str = "", name: str = MODEL, **inputs: Any) -> predict_pb2.PredictRequest:
    """A PredictRequest; inputs are TensorProtos, or values for TensorFlow's own encoder (float32 for floats)."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(value if hasattr(value, "tensor_shape") else tf.make_tensor_proto(value))
    return request

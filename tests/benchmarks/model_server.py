"""A published model, the server as a process of its own, and the messages of one request to it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from mmoe_ranker.config import Config
from mmoe_ranker.examples import feature_field
from mmoe_ranker.export import export, served_features
from mmoe_ranker.training import train
from serving.protos import PredictRequest
from serving.tensor_codec import encode_numbers, encode_strings
from serving.verifying.verification import gate
from tests.benchmarks.synthetic import draw_columns, ranking_config, write_examples

SIGNATURES = ("rank", "serving_default", "serving_examples")

# Section `model` of the config. The paper says 8 experts and gives no widths: a ranker of a few million weights.
MODELS: dict[str, dict[str, Any]] = {
    "the demo's widths": {"hidden": [128], "sharing": {"kind": "mmoe", "experts": 8, "units": [64]}, "tower": [32]},
    "a larger model": {"hidden": [512], "sharing": {"kind": "mmoe", "experts": 8, "units": [256]}, "tower": [128]},
}


def publish(folder: Path, model: dict[str, Any]) -> tuple[Config, Path]:
    """Trains a few steps on made-up examples of 10 context and 20 candidate features, and exports.

    Returns:
      The config and the folder of versions.
    """
    config = ranking_config((5, 5), (10, 10), [10_000] * 15, 16, model, batch_size=256)
    write_examples(folder / "examples", config, 1024)
    train(config, folder / "examples", folder / "workdir")
    export(folder / "workdir", folder / "models", gate)
    return config, folder / "models"


def draw_request(config: Config, candidates: int, seed: int = 1) -> dict[str, Any]:
    """A request as `rank` reads it: plain Python values."""
    columns = draw_columns(config, candidates, seed)
    values = {
        feature.name: [f"v{one}" for one in columns[feature.name]]
        if feature.kind == "categorical"
        else columns[feature.name].tolist()
        for feature in config.features
    }
    names = {side: [feature.name for feature in config.side(side)] for side in ("context", "candidate")}
    return {
        "context": {name: values[name][0] for name in names["context"]},
        "candidates": [{name: values[name][row] for name in names["candidate"]} for row in range(candidates)],
    }


def build_examples(config: Config, request: dict[str, Any]) -> list[bytes]:
    """A serialized tf.Example a candidate, each with the context in it, in the way that TF Serving's clients do."""
    wires = {feature.name: feature_field(config, feature).wire for feature in config.served_features}
    serialized = []
    for candidate in request["candidates"]:
        features = {}
        for name, value in (request["context"] | candidate).items():
            if wires[name] == "bytes":
                features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
            else:
                features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        serialized.append(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return serialized


def messages(config: Config, request: dict[str, Any]) -> dict[str, Any]:
    """The request as a PredictRequest to each signature, by signature."""
    examples = build_examples(config, request)
    raw = {name: values.numpy() for name, values in served_features(config, examples).items()}
    context = {feature.name for feature in config.side("context")}
    return {
        "rank": _message("rank", {name: values[:1] if name in context else values for name, values in raw.items()}),
        "serving_default": _message("serving_default", raw),
        "serving_examples": examples_message(examples),
    }


def examples_message(examples: list[bytes]) -> Any:
    """Serialized tf.Examples as a PredictRequest."""
    return _message("serving_examples", {"examples": np.array(examples, object)})


def _message(signature: str, inputs: dict[str, np.ndarray]) -> Any:
    message = PredictRequest()
    message.model_spec.name = "ranker"
    message.model_spec.signature_name = signature
    for name, values in inputs.items():
        strings = values.dtype == object
        tensor = encode_strings(values.tolist(), values.shape) if strings else encode_numbers(values)
        message.inputs[name].CopyFrom(tensor)
    return message


class ServerProcess:
    """`mmoe-ranker serve` on a free port of the loopback, and a channel to it that is connected."""

    def __init__(self, models: Path) -> None:
        command = [sys.executable, "-m", "mmoe_ranker", "serve", "--models", str(models), "--port", "0"]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._stopped()
        self.target = line.split()[-1].rstrip(".")
        self._channel = grpc.insecure_channel(self.target, options=[("grpc.max_receive_message_length", -1)])
        grpc.channel_ready_future(self._channel).result(timeout=30)

    def predict(self, serializer: Any = None, deserializer: Any = None) -> Any:
        """A callable for Predict, of serialized messages where no serializer is given."""
        return self._channel.unary_unary("/tensorflow.serving.PredictionService/Predict", serializer, deserializer)

    def states(self) -> dict[int, int]:
        """Each version that the server has seen, and its state as `ModelVersionStatus.State` numbers them."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "ranker"
        response = model_service_pb2_grpc.ModelServiceStub(self._channel).GetModelStatus(request, timeout=10)
        return {status.version: status.state for status in response.model_version_status}

    def memory_bytes(self) -> int:
        """What the server's process has in memory.

        Raises:
          RuntimeError: the server has stopped.
        """
        if self._process.poll() is not None:
            raise self._stopped()
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))

    def _stopped(self) -> RuntimeError:
        status = self._process.wait()
        self._log.seek(0)
        return RuntimeError(f"The server stopped with exit status {status}: {self._log.read()[-2000:]}")

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._process.terminate()
        self._process.communicate()
        self._log.close()

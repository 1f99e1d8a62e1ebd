"""The deployment files parse by the schemas that TF Serving reads them with, and fit each other and the signatures."""

from __future__ import annotations

import pathlib

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from serving.protos.schema import build_messages

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "serving" / "deploy"
INT64 = "google.protobuf.Int64Value"
# tensorflow_serving/servables/tensorflow/session_bundle_config.proto and config/monitoring_config.proto, which the
# package tensorflow-serving-api leaves out.
MESSAGES = build_messages(
    "mmoe_ranker.deploy_test",
    {
        "BatchingParameters": [
            ("max_batch_size", 1, INT64),
            ("batch_timeout_micros", 2, INT64),
            ("max_enqueued_batches", 3, INT64),
            ("num_batch_threads", 4, INT64),
            ("allowed_batch_sizes", 6, "repeated int64"),
            ("pad_variable_length_inputs", 7, "bool"),
            ("enable_large_batch_splitting", 8, "google.protobuf.BoolValue"),
            ("max_execution_batch_size", 9, INT64),
        ],
        "PrometheusConfig": [("enable", 1, "bool"), ("path", 2, "string")],
        "MonitoringConfig": [("prometheus_config", 1, "PrometheusConfig")],
    },
)


def parsed(name: str, message):
    return text_format.Parse((DEPLOY / name).read_text(encoding="utf-8"), message)


@pytest.fixture
def service() -> dict:
    return yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text(encoding="utf-8"))["services"]["ranker"]


def test_model_config():
    (config,) = parsed("models.config", model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert (config.name, config.base_path, config.model_platform) == ("ranker", "/models/ranker", "tensorflow")
    assert config.model_version_policy.latest.num_versions == 1
    # TF Serving does not start with a logging_config, and refuses startup labels without a flag.
    assert not config.HasField("logging_config")
    assert not config.version_labels


def test_batching_parameters_are_ones_that_tf_serving_loads():
    parameters = parsed("batching.config", MESSAGES["BatchingParameters"]())
    sizes = list(parameters.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == parameters.max_batch_size.value
    assert parameters.num_batch_threads.value >= 1
    assert not parameters.pad_variable_length_inputs


def test_monitoring_config():
    config = parsed("monitoring.config", MESSAGES["MonitoringConfig"]())
    assert (config.prometheus_config.enable, config.prometheus_config.path) == (True, "/monitoring/prometheus/metrics")


def test_compose_mounts_what_its_flags_name(service):
    targets = {}
    for volume in service["volumes"]:
        source, target, mode = volume.rsplit(":", 2)
        assert mode == "ro"
        targets[target] = source
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in service["command"])
    for flag in ("model_config_file", "monitoring_config_file"):
        assert (DEPLOY / targets[flags[flag]]).is_file()
    (model,) = parsed("models.config", model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert targets[model.base_path].startswith("${MODELS:?")


def test_compose_does_not_batch_rank_and_is_reached_from_this_machine_alone(service):
    assert not any("batching" in flag for flag in service["command"])
    assert {port.rsplit(":", 1)[0] for port in service["ports"]} == {"127.0.0.1:8500", "127.0.0.1:8501"}
    assert "/v1/models/ranker" in service["healthcheck"]["test"][-1]

"""The deployment files parse by the schemas that TF Serving and Compose read them with, and fit each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from google.protobuf import text_format

from tests.serving.tensorflow_serving_files import FLAGS, MESSAGES

DEPLOY = Path(__file__).resolve().parents[2] / "serving" / "deploy"
# schema/compose-spec.json of github.com/compose-spec/compose-spec at 170098ba (2026-06-23), Apache-2.0.
COMPOSE_SCHEMA = Path(__file__).with_name("compose-spec.json")


def parsed(name: str, message: str) -> Any:
    return text_format.Parse((DEPLOY / name).read_text(encoding="utf-8"), MESSAGES[message]())


@pytest.fixture
def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def service(compose) -> dict[str, Any]:
    return compose["services"]["ranker"]


def test_model_config():
    (config,) = parsed("models.config", "ModelServerConfig").model_config_list.config
    assert (config.name, config.base_path, config.model_platform) == ("ranker", "/models/ranker", "tensorflow")
    assert config.model_version_policy.latest.num_versions == 1
    # TF Serving does not start with a logging_config, and refuses startup labels without a flag.
    assert not config.HasField("logging_config")
    assert not config.version_labels


def test_batching_parameters_are_ones_that_tf_serving_loads():
    parameters = parsed("batching.config", "BatchingParameters")
    sizes = list(parameters.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == parameters.max_batch_size.value
    assert parameters.num_batch_threads.value >= 1
    assert not parameters.pad_variable_length_inputs


def test_monitoring_config():
    config = parsed("monitoring.config", "MonitoringConfig")
    assert (config.prometheus_config.enable, config.prometheus_config.path) == (True, "/monitoring/prometheus/metrics")


def test_compose_file_is_one_by_its_published_schema(compose):
    validator = jsonschema.Draft7Validator(json.loads(COMPOSE_SCHEMA.read_text(encoding="utf-8")))
    assert [error.message for error in validator.iter_errors(compose)] == []
    compose["services"]["ranker"]["helthcheck"] = {}
    assert any("helthcheck" in error.message for error in validator.iter_errors(compose))


def test_compose_mounts_what_its_flags_name(service):
    targets = {}
    for volume in service["volumes"]:
        source, target, mode = volume.rsplit(":", 2)
        assert mode == "ro"
        targets[target] = source
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in service["command"])
    assert set(flags) <= FLAGS
    for flag in ("model_config_file", "monitoring_config_file"):
        assert (DEPLOY / targets[flags[flag]]).is_file()
    (model,) = parsed("models.config", "ModelServerConfig").model_config_list.config
    assert targets[model.base_path].startswith("${MODELS:?")


def test_compose_does_not_batch_rank_and_is_reached_from_this_machine_alone(service):
    assert not any("batching" in flag for flag in service["command"])
    assert {port.rsplit(":", 1)[0] for port in service["ports"]} == {"127.0.0.1:8500", "127.0.0.1:8501"}
    assert "/v1/models/ranker" in service["healthcheck"]["test"][-1]

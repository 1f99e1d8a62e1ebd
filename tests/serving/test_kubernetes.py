"""The Kubernetes manifests are ones by the published schemas, and what they say fits TF Serving and each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from serving.metrics import ServerMetrics
from tests.serving.tensorflow_serving_files import FLAGS, HEALTH_SERVICES
from tests.serving.test_deploy import DEPLOY, parsed

MANIFESTS = [
    manifest
    for file in ("deployment.yaml", "fleet.yaml")
    for manifest in yaml.safe_load_all((DEPLOY / "kubernetes" / file).read_text(encoding="utf-8"))
]
ALERTS = yaml.safe_load((DEPLOY / "kubernetes" / "alerts.yaml").read_text(encoding="utf-8"))
BY_KIND = {manifest["kind"]: manifest for manifest in MANIFESTS}
POD = BY_KIND["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
ARGUMENTS = dict(argument.removeprefix("--").split("=", 1) for argument in CONTAINER["args"])
PORTS = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}


@pytest.mark.parametrize("version", ["1.30.0", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_manifests_are_ones_by_the_published_schemas(manifest: dict[str, Any], version: str):
    assert kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_would_be_found():
    spec = {**BY_KIND["Deployment"]["spec"], "minReadySecond": 1}
    with pytest.raises(kubernetes_validate.ValidationError, match="minReadySecond"):
        kubernetes_validate.validate({**BY_KIND["Deployment"], "spec": spec}, "1.30.0", strict=True)


def selects(selector: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= POD["metadata"]["labels"].items()


def test_selectors_and_names_meet():
    deployment = BY_KIND["Deployment"]
    assert selects(deployment["spec"]["selector"]["matchLabels"])
    assert selects(BY_KIND["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
    assert selects(BY_KIND["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"])
    # A canary has the track `canary`, and takes part in the Service all the same.
    service = BY_KIND["Service"]["spec"]
    assert selects(service["selector"])
    assert "track" not in service["selector"]
    assert {port["targetPort"] for port in service["ports"]} == {"grpc"}
    target = BY_KIND["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert "replicas" not in deployment["spec"]
    (claim,) = (volume for volume in POD["spec"]["volumes"] if "persistentVolumeClaim" in volume)
    assert claim["persistentVolumeClaim"]["claimName"] == BY_KIND["PersistentVolumeClaim"]["metadata"]["name"]
    opened = {port["port"] for rule in BY_KIND["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]}
    assert opened == set(PORTS)


def test_arguments_are_tf_servings_and_name_what_is_mounted():
    assert set(ARGUMENTS) <= FLAGS
    assert not any("batching" in flag for flag in ARGUMENTS)
    assert {"grpc": int(ARGUMENTS["port"]), "http": int(ARGUMENTS["rest_api_port"])} == PORTS
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    for flag in ("model_config_file", "monitoring_config_file"):
        path = Path(ARGUMENTS[flag])
        assert str(path.parent) == mounts["config"]
        assert (DEPLOY / path.name).is_file()
    (model,) = parsed("models.config", "ModelServerConfig").model_config_list.config
    assert model.base_path == mounts["models"]
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {vol["name"] for vol in POD["spec"]["volumes"]}
    # Key=value, separated by commas: TF Serving reads no more than that, and crashes where there is less.
    assert all(len(part.split("=")) == 2 for part in ARGUMENTS["grpc_channel_arguments"].split(","))


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_ask_the_health_service_that_is_switched_on(probe: str):
    assert ARGUMENTS["enable_grpc_healthcheck_service"] == "true"
    grpc = CONTAINER[probe]["grpc"]
    assert grpc["port"] == PORTS["grpc"]
    assert grpc["service"] in HEALTH_SERVICES


def test_a_version_that_does_not_load_is_told_by_tf_serving_before_the_startup_probe_gives_up():
    # six attempts, a minute apart, after which the process ends with the reason
    startup = CONTAINER["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > 5 * 60 + 60


def test_a_pod_serves_on_while_its_address_is_taken_away():
    slept = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace_ms = int(re.search(r"max_connection_age_grace_ms=(\d+)", ARGUMENTS["grpc_channel_arguments"])[1])
    assert slept < POD["spec"]["terminationGracePeriodSeconds"]
    assert grace_ms / 1000 <= POD["spec"]["terminationGracePeriodSeconds"]
    assert BY_KIND["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_threads_are_as_many_as_processors():
    assert ARGUMENTS["tensorflow_session_parallelism"] == CONTAINER["resources"]["requests"]["cpu"]


def test_prometheus_is_told_where_the_metrics_are():
    annotations = POD["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(PORTS["http"])
    assert annotations["prometheus.io/path"] == parsed("monitoring.config", "MonitoringConfig").prometheus_config.path


def test_alerts_ask_for_metrics_that_there_are(tmp_path):
    metrics = ServerMetrics("ranker")
    metrics.count_load(tmp_path, None)
    shown = set(re.findall(r"^# TYPE (\S+)", metrics.exposition().decode(), re.MULTILINE))
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    asked = [re.findall(r":[\w:]+", rule["expr"]) for rule in rules]
    assert all(asked)
    assert {re.sub(r"_bucket$", "", name) for names in asked for name in names} <= shown
    for rule in rules:
        assert {"alert", "expr", "labels", "annotations"} <= set(rule)
        assert rule["expr"].count("(") == rule["expr"].count(")")

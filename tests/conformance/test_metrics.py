"""Prometheus metrics, where TF Serving shows them and under its names."""

from __future__ import annotations

import urllib.request

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conformance.target import NAME, Target
from tests.serving.conftest import predict_request

REQUESTS = (":tensorflow:serving:request_count", {"model_name": NAME, "status": "OK"})
REFUSED = (":tensorflow:serving:request_count", {"model_name": NAME, "status": "FAILED_PRECONDITION"})
LATENCY = (
    ":tensorflow:serving:request_latency_count",
    {"model_name": NAME, "API": "Predict", "entrypoint": "GRPC"},
)
RUNTIME = (":tensorflow:serving:runtime_latency_count", {"model_name": NAME, "API": "Predict", "runtime": "TF1"})


@pytest.fixture
def page(target: Target):
    if target.metrics is None:
        pytest.skip("the address of the target's metrics is not given (METRICS)")

    def read() -> str:
        with urllib.request.urlopen(f"http://{target.metrics}/monitoring/prometheus/metrics", timeout=10) as response:
            assert response.headers["Content-Type"].startswith("text/plain")
            return response.read().decode()

    return read


def value(text: str, name: str, labels: dict[str, str]) -> float:
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return next((s.value for s in samples if s.name.removesuffix("_total") == name and s.labels == labels), 0.0)


def test_types_are_declared(page, stubs):
    stubs.prediction.Predict(predict_request(x=[2.0]))
    text = page()
    assert "# TYPE :tensorflow:serving:request_count counter\n" in text
    for name in ("request_latency", "runtime_latency"):
        assert f"# TYPE :tensorflow:serving:{name} histogram\n" in text
    assert f':tensorflow:serving:request_count{{model_name="{NAME}",status="OK"}} ' in text


def test_requests_are_counted_by_outcome_and_only_successes_are_timed(page, stubs):
    before = page()
    for _ in range(5):
        stubs.prediction.Predict(predict_request(x=[2.0]))
    for _ in range(3):
        with pytest.raises(grpc.RpcError):
            stubs.prediction.Predict(predict_request("nope", x=[2.0]))
    after = page()
    for sample, count in ((REQUESTS, 5), (REFUSED, 3), (LATENCY, 5), (RUNTIME, 5)):
        assert value(after, *sample) - value(before, *sample) == count


def test_latencies_are_in_microseconds_below_growing_bounds(page, stubs):
    before = page()
    stubs.prediction.Predict(predict_request(x=[2.0]))
    text = page()
    name = ":tensorflow:serving:request_latency_sum"
    spent = value(text, name, LATENCY[1]) - value(before, name, LATENCY[1])
    assert 10 < spent < 60e6
    bounds = [
        (float(sample.labels["le"]), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == ":tensorflow:serving:request_latency_bucket" and sample.labels["model_name"] == NAME
    ]
    assert len(bounds) == 34
    assert bounds[0][0] == 10
    assert bounds[1][0] == pytest.approx(18)
    assert [count for _, count in bounds] == sorted(count for _, count in bounds)

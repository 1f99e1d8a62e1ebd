"""Histograms of scores, what loads and warm-ups leave behind, and names that are not the model's."""

from __future__ import annotations

import shutil
import urllib.request

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mmoe_ranker.errors import InputError
from serving.metrics import ServerMetrics
from serving.server import ModelServer
from serving.tensor_codec import encode_numbers
from tests.serving.conftest import MODEL, Stubs, open_channel, predict_request
from tests.serving.published_versions import until


def samples(server: ModelServer) -> dict[tuple[str, tuple[str, ...]], float]:
    """Name and label values, in the labels' alphabetical order, to value."""
    address = f"http://127.0.0.1:{server.metrics_port}/monitoring/prometheus/metrics"
    with urllib.request.urlopen(address, timeout=10) as response:
        return parsed(response.read().decode())


def parsed(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name.removesuffix("_total"), tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def samples_once_there(server, wanted):
    """Some are counted when the answer is out already."""
    until(lambda: wanted in samples(server))
    return samples(server)


def test_histogram_of_each_objective(exports, tmp_path):
    version = shutil.copytree(exports / "ranker_with_contract", tmp_path / "1")
    with ModelServer(tmp_path, name="ranker", port=0, metrics_port=0) as server, open_channel(server) as channel:
        outputs = (
            Stubs(channel)
            .prediction.Predict(
                predict_request(
                    "rank",
                    "ranker",
                    device=["phone"],
                    hour=np.int64([3]),
                    age=[20.0],
                    watch_history=[["a"]],
                    video_id=["v1", "v2", "v3"],
                    duration=[40.0, 10.0, float("nan")],
                    content=[[1.0, 0.0], [float("nan"), 0.0], [4.0, 0.0]],
                    tags=[["a", "b", "c"]] * 3,
                    levels=np.ones((3, 1), np.int64),
                )
            )
            .outputs
        )
        found = samples_once_there(server, (":mmoe_ranker:serving:score_count", ("ranker", "combined_score")))
    name = ":mmoe_ranker:serving:score"
    # click = duration / 200, or 1 / 400 without one: 0.2, 0.05 and 0.0025; like = (1 + content) / 10: 0.2, NaN, 0.5
    assert list(outputs["click"].float_val) == pytest.approx([0.2, 0.05, 0.0025])
    counted = {"click": {0.002: 0, 0.005: 1, 0.1: 2, 0.5: 3}, "like": {0.1: 0, 0.5: 2}}
    for objective, count, total in (("click", 3, 0.2525), ("like", 2, 0.7)):
        assert found[f"{name}_count", ("ranker", objective)] == count
        assert found[f"{name}_sum", ("ranker", objective)] == pytest.approx(total)
        for bound, expected in counted[objective].items():
            assert found[f"{name}_bucket", (f"{bound:g}", "ranker", objective)] == expected
        assert found[f"{name}_bucket", ("+Inf", "ranker", objective)] == count
    assert found[f"{name}_count", ("ranker", "combined_score")] == 2
    assert found[":mmoe_ranker:serving:not_finite_score_count", ("ranker", "like")] == 1
    assert found[":tensorflow:cc:saved_model:load_attempt_count", (str(version), "success")] == 1
    assert 1e3 < found[":tensorflow:cc:saved_model:load_latency", (str(version),)] < 60e6
    assert found[":tensorflow:serving:model_warmup_records_read", (str(version), "OK")] == 0


def test_model_without_objectives_has_no_histogram(half_plus_two):
    with ModelServer(half_plus_two, name=MODEL, port=0, metrics_port=0) as server, open_channel(server) as channel:
        Stubs(channel).prediction.Predict(predict_request(x=[2.0]))
        assert not [name for name, _ in samples(server) if "score" in name]


def test_expired_deadline_is_counted_once_the_run_has_ended(half_plus_two):
    with ModelServer(half_plus_two, name=MODEL, port=0, metrics_port=0) as server, open_channel(server) as channel:
        with pytest.raises(grpc.RpcError):
            Stubs(channel).prediction.Predict(predict_request("slow", steps=np.int64(10**12)), timeout=0.3)
        expired = (":tensorflow:serving:request_count", (MODEL, "DEADLINE_EXCEEDED"))
        found = samples_once_there(server, expired)
    assert found[expired] == 1
    assert found[":tensorflow:serving:request_latency_count", ("Predict", "GRPC", MODEL)] == 0


def test_names_out_of_requests_make_no_series():
    metrics = ServerMetrics(MODEL)
    for number in range(1000):
        metrics.count_request(f"name {number}", grpc.StatusCode.NOT_FOUND)
    text = metrics.exposition().decode()
    assert "name 1" not in text
    assert parsed(text)[":tensorflow:serving:request_count", ("", "NOT_FOUND")] == 1000


def test_bounds_are_inclusive_and_large_values_are_counted():
    metrics = ServerMetrics(MODEL)
    metrics.observe_scores({"seconds": encode_numbers(np.float64([0.0001, 0.00011, 50000.0, 1e9, -1.0]))}, ["seconds"])
    found = parsed(metrics.exposition().decode())
    bucket = ":mmoe_ranker:serving:score_bucket"
    bounds = ("0.0001", "0.0002", "20000", "50000", "+Inf")
    assert [found[bucket, (bound, MODEL, "seconds")] for bound in bounds] == [2, 3, 3, 4, 5]


def test_metrics_port_in_use(server, half_plus_two):
    with pytest.raises(
        InputError, match=rf"a port that no other program listens on .*Received: 127\.0\.0\.1:{server.port}$"
    ):
        ModelServer(half_plus_two, port=0, metrics_port=server.port).start()

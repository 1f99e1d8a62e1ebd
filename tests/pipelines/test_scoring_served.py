"""Scores of a trained model against what a server of the same model answers, request by request."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from mmoe_ranker.combined_score import CombinedScore
from mmoe_ranker.dataset import serialized_examples, served_features
from mmoe_ranker.examples import decode_examples, example_layout
from pipelines.scoring.job import score_examples, score_logs
from serving.client import RankingClient
from serving.server import ModelServer
from tests.conftest import TinyWorld

pytestmark = pytest.mark.slow

OVERRIDES = {"click": 0.5, "like": 2.0}


@pytest.fixture(scope="module")
def records(tiny_world: TinyWorld) -> list[bytes]:
    return [record.numpy() for record in serialized_examples(tiny_world.examples, "test")]


@pytest.fixture(scope="module", params=[{}, OVERRIDES], ids=["exported weights", "weights overridden"])
def weights(request: pytest.FixtureRequest) -> dict[str, float]:
    return request.param


@pytest.fixture(scope="module")
def scores(tiny_world: TinyWorld, weights: dict[str, float], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    out = tmp_path_factory.mktemp("scored") / "out"
    score_examples(str(tiny_world.models), str(tiny_world.examples), "test", str(out), score_weights=weights)
    return pq.read_table(out / "scores").to_pylist()


def test_every_request_is_ranked_as_served(
    tiny_world: TinyWorld, records: list[bytes], weights: dict[str, float], scores: list[Any]
) -> None:
    config = tiny_world.config
    columns = decode_examples(records, example_layout(config))
    requests = defaultdict(list)
    for row, request in enumerate(columns["request_id"]):
        requests[request].append(row)
    assert len(requests) == 40
    with (
        ModelServer(tiny_world.models, port=0) as server,
        RankingClient(f"127.0.0.1:{server.port}", timeout=60) as client,
    ):
        for request, rows in requests.items():
            context = {feature.name: columns[feature.name][rows[0]] for feature in config.side("context")}
            candidates = [
                {config.item_key: columns["item_id"][row]}
                | {feature.name: columns[feature.name][row] for feature in config.side("candidate")}
                for row in rows
            ]
            answer = client.rank({"context": context, "candidates": candidates}, weights)["ranking"]
            ours = sorted((scores[row] for row in rows), key=lambda one: one["rank"])
            assert {one["request_id"] for one in ours} == {request}
            assert [one["item_id"] for one in ours] == [one[config.item_key] for one in answer]
            for one, served in zip(ours, answer, strict=True):
                for name in config.objective_names:
                    assert one[name] == pytest.approx(served[name], rel=1e-6)
                assert one["combined_score"] == pytest.approx(served["score"], rel=2e-6)


def test_columns_equal_the_default_signature_and_the_formula(
    tiny_world: TinyWorld, records: list[bytes], weights: dict[str, float], scores: list[Any]
) -> None:
    config = tiny_world.config
    loaded = tf.saved_model.load(str(tiny_world.version))
    answer = loaded.signatures["serving_default"](**served_features(config, records))
    predictions = {name: np.array([one[name] for one in scores]) for name in config.objective_names}
    for name, values in predictions.items():
        np.testing.assert_allclose(values, answer[name].numpy(), rtol=1e-6)
    combined = np.array([one["combined_score"] for one in scores])
    terms = config.combined_score.terms
    formula = CombinedScore.from_terms(config.objective_names, config.combined_score.form, terms)
    np.testing.assert_allclose(combined, formula.score(predictions, weights), rtol=2e-6)
    if not weights:
        np.testing.assert_allclose(combined, answer["combined_score"].numpy(), rtol=1e-6)


def test_logs_give_the_scores_of_their_examples(
    tiny_world: TinyWorld, weights: dict[str, float], scores: list[Any], tmp_path: Path
) -> None:
    log = str(tiny_world.logs / "impressions.parquet")
    summary = score_logs(str(tiny_world.models), tiny_world.config, log, str(tmp_path / "out"), score_weights=weights)
    assert summary["impressions"]["scored"] == tiny_world.summary["impressions"]["examples"]
    rows = {(row["request_id"], row["item_id"]): row for row in pq.read_table(tmp_path / "out/scores").to_pylist()}
    for one in scores:
        found = rows[one["request_id"], one["item_id"]]
        assert found["timestamp_micros"] == one["timestamp_micros"]
        for name in (*tiny_world.config.objective_names, "combined_score"):
            assert found[name] == pytest.approx(one[name], rel=1e-6)

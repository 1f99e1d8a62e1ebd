"""The client on a trained model's export: its own formula of the score, in chunks, explained, in every form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmoe_ranker.combined_score import CombinedScore
from mmoe_ranker.demo import request_from_examples
from mmoe_ranker.errors import InputError
from serving.client import RankingClient
from serving.server import ModelServer
from tests.conftest import TinyWorld

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def target(tiny_world: TinyWorld) -> Iterator[str]:
    with ModelServer(tiny_world.models, port=0) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def request_(tiny_world: TinyWorld) -> dict[str, Any]:
    """Candidates of one request, ten times over with another duration."""
    request = request_from_examples(tiny_world.config, tiny_world.examples)
    candidates = [
        candidate | {"duration": 20.0 + 7.0 * copy} for copy in range(10) for candidate in request["candidates"]
    ]
    return {"context": request["context"], "candidates": candidates}


@pytest.mark.parametrize("weights", [None, {"click": 0.3, "dismiss": 0.0}])
def test_chunks(target: str, request_: dict[str, Any], weights: dict[str, float] | None) -> None:
    with RankingClient(target) as client, RankingClient(target, max_candidates=16) as chunking:
        whole, chunked = client.rank_arrays(request_, weights), chunking.rank_arrays(request_, weights)
    np.testing.assert_allclose(chunked.scores, whole.scores, rtol=1e-5)
    # The same, but for neighbours whose predictions changed their last bit with the number of rows beside them.
    scores = dict(zip(whole.order.tolist(), whole.scores.tolist(), strict=True))
    for ours, theirs in zip(chunked.order.tolist(), whole.order.tolist(), strict=True):
        assert ours == theirs or scores[ours] == pytest.approx(scores[theirs], rel=1e-6)


def test_explanation(target: str, request_: dict[str, Any], tiny_world: TinyWorld) -> None:
    config = tiny_world.config
    formula = CombinedScore.from_terms(config.objective_names, "weighted_product", config.combined_score.terms)
    with RankingClient(target) as client:
        ranking = client.rank_arrays(request_, explain=True)
    total = sum(ranking.contributions.values())
    np.testing.assert_allclose(total, np.log(ranking.scores), atol=1e-5)
    np.testing.assert_allclose(total, np.log(formula.score(ranking.predictions)), rtol=1e-6)
    assert dict(ranking.weights) == pytest.approx(dict(zip(formula.objectives, formula.weights, strict=True)))


def test_forms(target: str, request_: dict[str, Any]) -> None:
    frame = pd.DataFrame(request_["candidates"])
    with RankingClient(target) as client:
        expected = client.rank(request_)
        for candidates in (frame, {name: column.to_numpy() for name, column in frame.items()}):
            assert json.dumps(client.rank(request_ | {"candidates": candidates})) == json.dumps(expected)


def test_weight_that_would_turn_a_complement_round(target: str, request_: dict[str, Any]) -> None:
    with RankingClient(target) as client, pytest.raises(InputError, match="`dismiss` must be at least 0, since its"):
        client.rank(request_, {"dismiss": -1.0})

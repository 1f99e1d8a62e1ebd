"""The live experiment on simulated users: it answers as the world does, and sees what the pipeline sees."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mmoe_ranker.evaluation import predict
from mmoe_ranker.examples import ITEM_ID, REQUEST_ID
from mmoe_ranker.simulation import Events, WorldConfig, simulate, write_logs
from pipelines.impressions import run as build_examples
from tests.evidence.example_sets import simulated_config
from tests.evidence.live_experiment import LiveExperiment


@pytest.fixture(scope="module")
def experiment() -> LiveExperiment:
    return LiveExperiment(simulate(200, seed=5), 300)


def test_better_orders_get_more_and_the_same_order_gets_the_same(experiment: LiveExperiment) -> None:
    requests, world = experiment.requests, experiment.world
    relevance = world.relevance(requests.user, requests.candidates)
    by_relevance, against_it = experiment.order(relevance), experiment.order(-relevance)
    assert by_relevance.shape == (300, world.config.positions)
    best, worst = experiment.answers(by_relevance), experiment.answers(against_it)
    assert best["clicks"] > 2 * worst["clicks"]
    assert experiment.answers(by_relevance) == best
    # No list holds a video twice, which a candidate that is not eligible would make.
    assert all(len(set(row)) == len(row) for row in by_relevance)


def test_answers_are_those_of_the_world_on_average(experiment: LiveExperiment) -> None:
    requests, world = experiment.requests, experiment.world
    shown = experiment.order(np.random.default_rng(0).random(requests.candidates.shape))
    truth = world.preferences(requests.user, shown, requests.device)
    examined = world.examination(requests.device[:, None], np.arange(1, shown.shape[1] + 1))
    clicked = examined * truth.relevance
    answers = experiment.answers(shown)
    assert answers["clicks"] == pytest.approx(clicked.sum(axis=1).mean(), rel=0.03)
    assert answers["watch_seconds"] == pytest.approx((clicked * truth.expected_watch).sum(axis=1).mean(), rel=0.04)
    assert answers["likes"] == pytest.approx((clicked * truth.like_probability).sum(axis=1).mean(), rel=0.1)


@pytest.mark.slow
def test_a_fresh_request_is_seen_as_the_pipeline_would_see_it(tmp_path: Path) -> None:
    from mmoe_ranker.model import Ranker
    from mmoe_ranker.statistics import Statistics

    logs, config = simulate(150, seed=4, world=WorldConfig(num_users=20, num_videos=150)), simulated_config()
    experiment = LiveExperiment(logs, 30)
    requests = experiment.requests
    # The log that these requests would leave: 20 candidates of each shown, nothing done.
    shown = experiment.order(np.zeros(requests.candidates.shape))
    histories = experiment.histories
    nothing = Events(*(np.zeros(0, np.int64) for _ in range(3)), np.zeros(0), np.zeros(0))
    fresh = dataclasses.replace(
        logs,
        timestamp=requests.timestamp,
        user=requests.user,
        device=requests.device,
        random_order=np.zeros(30, bool),
        shown=shown,
        histories=histories,
        events=nothing,
        preferences=logs.world.preferences(requests.user, shown, requests.device),
        examination=logs.examination[:30],
    )
    for name, written in {"before": logs, "fresh": fresh}.items():
        write_logs(written, tmp_path / name)
        sources = (str(tmp_path / name / f"{log}.jsonl") for log in ("impressions", "feedback"))
        build_examples(config, *sources, str(tmp_path / f"{name}_examples"), [])
    ranker = Ranker(config, Statistics.load(tmp_path / "before_examples"))
    expected = experiment.predict(ranker, config)
    compared = 0
    for split in ("train", "validation", "test"):
        made = predict(ranker, tmp_path / "fresh_examples", split, config)
        keys = zip(made.columns[REQUEST_ID].tolist(), made.columns[ITEM_ID].tolist(), strict=True)
        for row, (request, item) in enumerate(keys):
            number, video = int(request[1:]), int(item[1:])
            place = np.flatnonzero(requests.candidates[number] == video)[0]
            for name in config.objective_names:
                assert made.predictions[name][row] == pytest.approx(expected[name][number, place], rel=1e-4)
            compared += 1
    assert compared == 600
    assert max(histories.end - histories.begin) > 3
    assert np.std(expected["click"]) > 0

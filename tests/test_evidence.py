"""The experiments: runs that are kept, comparisons by hand, a live experiment that sees what the pipeline sees."""

from __future__ import annotations

import dataclasses
import fcntl
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmoe_ranker import metrics
from mmoe_ranker.describe import describe
from mmoe_ranker.evaluation import predict
from mmoe_ranker.examples import ITEM_ID, REQUEST_ID
from mmoe_ranker.simulation import Events, WorldConfig, simulate, write_logs
from pipelines.impressions import run as build_examples
from tests.benchmarks import peer
from tests.evidence import census, gates, peers, table1, table2
from tests.evidence.comparison import against_control, table
from tests.evidence.example_sets import simulated_config
from tests.evidence.live_experiment import LiveExperiment
from tests.evidence.real_logs import Reading, paired_bootstrap
from tests.evidence.runs import LeftToAnotherError, Runs, made_once


@pytest.mark.parametrize("metric", ["auc", "auc_within", "mrr", "log_rmse"])
def test_readings_are_the_metrics_and_their_bootstrap_is_paired(metric: str) -> None:
    rng = np.random.default_rng(0)
    requests, positions = np.repeat([b"%d" % index for index in range(60)], 5), np.tile(np.arange(5), 60)
    labels = np.where(rng.random(300) < 0.8, rng.random(300) < 0.3, np.nan).astype(float)
    ours, theirs = ([rng.random(300) + scale * np.nan_to_num(labels) for _ in range(2)] for scale in (1.0, 0.5))
    reading = Reading(metric, labels, {"request_id": requests, "position": positions})

    def by_loops(scores: np.ndarray, rows: np.ndarray, drawn: np.ndarray) -> float:
        if metric == "mrr":
            return metrics.mrr(labels[rows], scores[rows], drawn).value
        if metric == "log_rmse":
            there = rows[~np.isnan(labels[rows])]
            return float(np.sqrt(np.mean((np.log1p(labels[there]) - np.log1p(scores[there])) ** 2)))
        if metric == "auc":
            return metrics.auc(labels[rows], scores[rows])
        return metrics.auc_within(labels[rows], scores[rows], positions[rows]).value

    everything = np.arange(300)
    assert reading(ours[0]) == pytest.approx(by_loops(ours[0], everything, requests))
    found = paired_bootstrap(reading, ours, theirs)
    differences = []
    for _ in range(400):
        # A request that is drawn twice is two requests.
        drawn = rng.integers(60, size=60)
        rows, copies = (drawn[:, None] * 5 + np.arange(5)).ravel(), np.repeat(np.arange(60), 5)
        pairs = zip(ours, theirs, strict=True)
        differences.append(
            np.mean([by_loops(one, rows, copies) - by_loops(other, rows, copies) for one, other in pairs])
        )
    low, high = np.quantile(differences, [0.025, 0.975])
    assert found["low"] == pytest.approx(low, abs=0.25 * (high - low))
    assert found["high"] == pytest.approx(high, abs=0.25 * (high - low))
    expected = [reading(one) - reading(other) for one, other in zip(ours, theirs, strict=True)]
    assert found["mean"] == pytest.approx(np.mean(expected))


def test_a_run_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def one(settings):
        asked.append(settings["seed"])
        return {"figure": settings["seed"] * 2}

    rows = Runs(tmp_path / "e").perform([{"seed": 1}, {"seed": 2}], one)
    assert [(row["seed"], row["figure"]) for row in rows] == [(1, 2), (2, 4)]
    rows = Runs(tmp_path / "e").perform([{"seed": 2}, {"seed": 3}], one)
    assert [row["figure"] for row in rows] == [4, 6]
    assert asked == [1, 2, 3]
    assert len((tmp_path / "e.runs.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_a_run_that_fails_leaves_no_row_and_no_claim(tmp_path: Path) -> None:
    def fails(settings):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Runs(tmp_path / "e").perform([{"seed": 1}], fails)
    assert Runs(tmp_path / "e").perform([{"seed": 1}], lambda settings: {"figure": 5})[0]["figure"] == 5


def test_a_run_that_another_process_is_at_is_left_to_it(tmp_path: Path) -> None:
    runs, asked = Runs(tmp_path / "e"), []

    def one(settings):
        asked.append(settings["seed"])
        if settings["seed"] == 1:
            # While the first is under way, another process comes and takes the second.
            with pytest.raises(LeftToAnotherError, match=r"^e: 1 of 2 runs are left"):
                Runs(tmp_path / "e").perform([{"seed": 1}, {"seed": 2}], one)
        return {}

    runs.perform([{"seed": 1}, {"seed": 2}], one)
    assert asked == [1, 2]


def test_a_folder_is_made_once_and_whole(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "a").write_text("1", encoding="utf-8")

    def fails(folder: Path) -> None:
        (folder / "a").write_text("2", encoding="utf-8")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        made_once(tmp_path / "set", fails)
    assert not (tmp_path / "set").exists()
    made_once(tmp_path / "set", make)
    made_once(tmp_path / "set", fails)
    assert (tmp_path / "set" / "a").read_text(encoding="utf-8") == "1"
    with (tmp_path / ".set.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_arms_are_paired_with_the_control_by_seed() -> None:
    figures = {("none", 1): 10.0, ("none", 2): 20.0, ("tower", 2): 22.0, ("tower", 1): 11.0}
    rows = [{"arm": arm, "seed": seed, "ndcg": value} for (arm, seed), value in figures.items()]
    compared = against_control(rows, "none", ["ndcg"], relative=True)["ndcg"]
    assert compared["none"] == {"mean": 15.0}
    assert compared["tower"]["difference"]["values"] == pytest.approx([10.0, 10.0])
    absolute = against_control(rows, "none", ["ndcg"])
    assert absolute["ndcg"]["tower"]["difference"]["values"] == pytest.approx([1.0, 2.0])
    # Student's quantile for one degree of freedom is 12.706; the standard error is 0.5.
    assert absolute["ndcg"]["tower"]["difference"]["low"] == pytest.approx(1.5 - 12.706 * 0.5, abs=1e-3)
    lines = table(absolute, 2).splitlines()
    assert lines[2:] == ["| none | 15.0000 |", "| tower | +1.50 [-4.85, +7.85] |"]


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


@pytest.mark.slow
def test_each_simulated_experiment_runs_in_tiny_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = [table1.CONTROL, "mmoe_8"]
    result = table1.run(tmp_path / "table1_simulated", (1, 2), arms, table1.TINY)
    assert set(result["compared"]) >= {"clicks", "watch_seconds", "likes", "ndcg"}
    assert result["costs"]["mmoe_8"]["multiplications"] > result["costs"][table1.CONTROL]["multiplications"]
    rows = table1.trained_arms(tmp_path, "simulated", ["mmoe_8"], [1], table1.TINY)  # kept by the run above
    assert 0 < rows[0]["gates"]["entropy"] <= 1
    assert rows[0]["clicks"] > 0

    def same(root, data, arms, seeds, size):
        return [{"arm": arm, "seed": seed, "gates": rows[0]["gates"]} for arm in arms for seed in seeds]

    monkeypatch.setattr(gates, "trained_arms", same)
    found = gates.run(tmp_path / "gates", (1, 2), ("simulated",), table1.TINY)["simulated"]
    assert found["seeds_polarised"] == {"mmoe_8_no_dropout": 0, "mmoe_8": 0}


@pytest.mark.slow
def test_kinds_of_bias_are_compared_in_tiny_mode(tmp_path: Path) -> None:
    plan = table2.Plan({"agenda": {}}, (table2.CONTROL, "adversarial"), (1, 2), table2.TINY)
    result = table2.run(tmp_path / "table2", plan)
    assert list(result) == ["agenda"]
    assert np.isfinite(result["agenda"]["ndcg"]["adversarial"]["difference"]["mean"])


def test_every_kind_of_bias_of_table_2_is_a_config() -> None:
    kinds = {arm: simulated_config(3, bias=bias).model.bias.kind for arm, bias in table2.ARMS.items()}
    assert kinds["anchored_no_flag"] == "anchored"
    assert set(kinds.values()) == {
        "none",
        "input_feature",
        "adversarial",
        "shallow_tower",
        "anchored",
    }


def test_anchored_is_held_against_the_better_of_none_and_the_shallow_tower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ndcg = {"none": [0.8, 0.7, 0.9], "shallow_tower": [0.7, 0.9, 0.7], "anchored": [0.81, 0.72, 0.93]}

    def one(root: Path, settings: dict[str, Any], knobs: dict[str, float]) -> dict[str, float]:
        assert knobs == table2.ANCHORED_GRID[settings["world"]]
        return dict.fromkeys(table2.READINGS, 1.0) | {"ndcg": ndcg[settings["arm"]][settings["seed"] - 1]}

    monkeypatch.setattr(table2, "_one", one)
    plan = dataclasses.replace(table2.PLANS["anchored_grid"], seeds=(1, 2, 3))
    result = table2.run(tmp_path / "anchored_grid", plan)
    assert len(result) == 6
    for world in result.values():
        held = world["anchored_minus_better"]
        assert held["better"] == "none"
        np.testing.assert_allclose(held["difference"]["values"], [0.01, 0.02, 0.03])
        assert held["difference"]["mean"] == pytest.approx(0.02)


@pytest.fixture
def census_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up file of 400 persons in the form of UCI's."""
    rng, lines = np.random.default_rng(1), []
    for _ in range(400):
        row = [str(rng.choice(["a", "b", "?"])) for _ in range(42)]
        for column in (0, 5, 16, 17, 18, 30, 39):
            row[column] = str(rng.integers(0, 60))
        row[4] = str(rng.choice(["Children", "Bachelors degree(BA AB BS)"]))
        row[7] = str(rng.choice(["Never married", "Divorced"]))
        row[41] = str(rng.choice(["- 50000.", "50000+."]))
        lines.append(", ".join(row))
    (tmp_path / "data" / "census").mkdir(parents=True)
    file = tmp_path / "data" / "census" / census.FILE
    file.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    monkeypatch.setenv("MMOE_RANKER_DATA", str(tmp_path / "data"))
    return file


@pytest.mark.slow
def test_census_runs_in_tiny_mode(tmp_path: Path, census_file: Path) -> None:
    (row,) = table1.trained_arms(tmp_path, "census_education", ["mmoe_4"], [1], table1.TINY)
    assert 0 <= row["education auc"] <= 1
    assert row["parameters"] > 0
    assert row["multiplications"] > 0
    summary = json.loads(
        (tmp_path / "examples" / "census_education" / "examples" / "summary.json").read_text(encoding="utf-8")
    )
    assert {name: split["examples"] for name, split in summary["splits"].items()} == {
        "train": 320,
        "validation": 40,
        "test": 40,
    }
    test = np.load(tmp_path / "table1_census_education" / "test.npz")
    raw = [line.split(", ") for line in gzip.decompress(census_file.read_bytes()).decode().splitlines()]
    order = np.random.default_rng(7).permutation(400)[360:]
    expected = {int(f"{place + 360}"): raw[person] for place, person in enumerate(order)}
    for request, education, never in zip(test["request_id"], test["education"], test["never_married"], strict=True):
        person = expected[int(request[1:])]
        assert education == person[4].startswith("Bachelors")
        assert never == (person[7] == "Never married")


def test_no_census_feature_gives_a_label_away() -> None:
    for pair, label in census.PAIRS.items():
        assert not {7, label, 19, 22, 23} & set(census.feature_columns(pair))


@pytest.mark.slow
@pytest.mark.skipif(not peer.is_installed(), reason="`make bench` installs the peer; tests download nothing")
def test_the_peer_trains_on_what_ours_trains_on(tiny_world, tmp_path: Path) -> None:
    peers.write_input(tiny_world.config, tiny_world.examples, tmp_path)
    answer = peers._worker(tmp_path, seed=1, passes=1, out=str(tmp_path / "out.npz"))
    assert answer["parameters"] > 0
    test, out = np.load(tmp_path / "test.npz"), np.load(tmp_path / "out.npz")
    assert out["click"].shape == test["click_label"].shape
    assert np.std(out["click"]) > 0
    assert peers._worker(tmp_path, seed=1, passes=2, choose=True)["passes"] in (1, 2)


@pytest.mark.parametrize("data", ["simulated", "kuairand", "census_income"])
def test_arms_of_a_size_have_the_same_multiplications(data: str) -> None:
    costs = {arm: _multiplications(table1.arm_config(data, arm, 1)) for arm in table1.TABLE_ARMS}
    assert costs["mmoe_4"] == pytest.approx(costs["shared_bottom_small"], rel=0.01)
    assert costs["mmoe_8"] == pytest.approx(costs["shared_bottom_large"], rel=0.01)
    assert costs["ple"] == pytest.approx(costs["shared_bottom_large"], rel=0.01)


@pytest.mark.slow
def test_what_arms_differ_by_is_what_describe_counts() -> None:
    configs = [table1.arm_config("simulated", arm, 1) for arm in ("shared_bottom_small", "mmoe_4", "ple")]
    rest = [describe(config).multiplications - _multiplications(config) for config in configs]
    assert len(set(rest)) == 1
    assert rest[0] > 0


def _multiplications(config) -> int:
    """Of everything above the shared hidden layer, by hand."""
    sharing, inputs, objectives = config.model.sharing, config.model.hidden[-1], len(config.objectives)
    (units,), (tower,) = sharing.units, config.model.tower
    towers = objectives * (units * tower + tower)
    if sharing.kind == "shared_bottom":
        return inputs * units + towers
    if sharing.kind == "mmoe":
        gates = objectives * sharing.experts
        return inputs * sharing.experts * units + inputs * gates + gates * units + towers
    experts = objectives * sharing.objective_experts + sharing.shared_experts
    gates = objectives * (sharing.objective_experts + sharing.shared_experts)
    first = inputs * experts * units + inputs * (gates + experts) + (gates + experts) * units
    return first + units * experts * units + units * gates + gates * units + towers

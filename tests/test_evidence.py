"""The experiments' comparisons by hand: readings, pairs, arms of a size, and what is held against what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmoe_ranker import metrics
from mmoe_ranker.describe import describe
from tests.evidence import table1, table2
from tests.evidence.comparison import against_control, table
from tests.evidence.example_sets import simulated_config
from tests.evidence.real_logs import Reading, paired_bootstrap


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


def test_arms_of_a_grid_are_held_against_each_other_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ndcg = {
        "none": [0.8, 0.7, 0.9, 0.8, 0.8],
        "shallow_tower": [0.7, 0.9, 0.7, 0.8, 0.7],
        "anchored": [0.81, 0.72, 0.93, 0.8, 0.84],
        "input_feature": [0.6, 0.7, 0.75, 0.8, 0.8],
    }

    def one(root: Path, settings: dict[str, Any], knobs: dict[str, float]) -> dict[str, float]:
        assert knobs == table2.PLANS[experiment].worlds[settings["world"]]
        return dict.fromkeys(table2.READINGS, 1.0) | {"ndcg": ndcg[settings["arm"]][settings["seed"] - 1]}

    monkeypatch.setattr(table2, "_one", one)
    experiment = "anchored_grid"
    anchored = table2.run(tmp_path / experiment)
    assert len(anchored) == 6
    for world in anchored.values():
        held = world["anchored_minus_better"]
        assert held["better"] == "none"
        np.testing.assert_allclose(held["difference"]["values"], [0.01, 0.02, 0.03, 0.0, 0.04], atol=1e-12)
        assert held["difference"]["mean"] == pytest.approx(0.02)
        assert "tower_minus_input" not in world
    experiment = "table2_grid"
    grid = table2.run(tmp_path / experiment)
    assert len(grid) == 8
    for world in grid.values():
        np.testing.assert_allclose(world["tower_minus_input"]["values"], [0.1, 0.2, -0.05, 0.0, -0.1], atol=1e-12)
        assert "anchored_minus_better" not in world


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

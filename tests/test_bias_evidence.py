"""Models of selection bias on public logs: judged rightly where the truth is known, without training anything."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmoe_ranker.config_loading import load_config
from mmoe_ranker.metrics import ExpertHealth
from mmoe_ranker.position_bias import inverse_propensity_ndcg
from tests.evidence import bias_arms, bias_judgement, example_sets, figures
from tests.position_bias.worlds import Log, simulated


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    """Logs of a ranker that does not know its users, in the place of clara2's."""
    log = simulated(requests=1500, alignment=0.0)
    logs = tmp_path / "examples" / "clara2" / "logs"
    logs.mkdir(parents=True)
    requests = np.char.mod("r%d", log.requests)
    shown = {"request_id": requests, "position": log.positions, "url_id": log.items}
    shown["query_url"] = np.char.mod("q_%d", log.items)
    pd.DataFrame(shown).to_parquet(logs / "impressions.parquet")
    clicked = log.clicks == 1
    feedback = {"request_id": requests[clicked], "item_id": np.char.mod("%d", log.items[clicked]), "event": "click"}
    pd.DataFrame(feedback).to_parquet(logs / "feedback.parquet")
    monkeypatch.setattr(bias_arms, "public_set", lambda root, data: root / "examples" / data)
    return log


def _arm(log: Log, seed: int, seen: bool, honest: bool) -> bias_arms.Arm:
    predictions = log.predictions()
    noise = np.exp(0.05 * np.random.default_rng(seed).normal(size=len(log.items)))
    # An arm without bias modelling takes a part of it for relevance, by features that go with position.
    missing = np.minimum(log.relevance * noise * (1.0 if honest else log.examination**0.3), 1.0)
    columns = {**predictions.columns, "item_id": np.char.mod("%d", log.items).astype(bytes)}
    predictions = dataclasses.replace(
        predictions,
        predictions={"click": missing},
        columns=columns,
        seen=predictions.seen if seen else None,
        expert_health=ExpertHealth(np.full((1, 2), 0.5), np.ones(1), np.ones(1), np.zeros(1), 0),
    )
    learned = [{"position": place, "click": -0.1 * place * seed} for place in range(1, 21)]
    return bias_arms.Arm(load_config("clara2"), predictions, learned if seen else [], None)


def test_arms_are_judged_by_what_the_log_says(world: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert bias_arms.logged_clicks(tmp_path, "clara2")["click"].to_numpy().tolist() == world.clicks.tolist()

    def trained_arm(root, data, arm, seed):
        assert data == "clara2"
        return _arm(world, seed, seen=arm != "none", honest=arm != "none")

    monkeypatch.setattr(bias_judgement, "trained_arm", trained_arm)
    result = bias_judgement.run(tmp_path / "bias_clara2", seeds=(1, 2, 3))
    none, tower = (result["arms"][arm] for arm in ("none", "shallow_tower"))
    assert result["clicks"] == world.clicks.sum()
    assert tower["position_effect"]["mean"] < 0.2 < 1 < none["position_effect"]["mean"]
    low, high = none["position_effect"]["over_items"]
    assert low < none["position_effect"]["mean"] < high
    assert tower["position_left"]["mean"] < 0.1 < none["position_left"]["mean"]
    assert tower["ndcg_ips"]["difference"]["low"] > 0
    assert tower["ndcg_ips"]["difference_over_requests"]["low"] > 0
    reference = dict(zip(result["reference"]["positions"], result["reference"]["values"], strict=True))
    propensities = np.array([reference[place] for place in world.positions.tolist()])
    scores = _arm(world, 2, seen=True, honest=True).predictions.predictions["click"]
    expected = inverse_propensity_ndcg(world.clicks, scores, world.requests, propensities, k=10)
    assert tower["ndcg_ips"]["values"][1] == pytest.approx(expected.value)
    assert result["effective_clicks"] == pytest.approx(expected.effective_clicks)


def test_figures_are_redrawn_from_what_has_trained(world: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    few = world.rows(world.requests < 300)
    monkeypatch.setattr(figures, "trained_arm", lambda root, data, arm, seed: _arm(few, seed, True, True))
    result = figures.run(tmp_path / "figures", seeds=(1, 2), data=("clara2",))
    drawn = {file.stem.partition("_")[2] for file in (tmp_path / "figures").glob("clara2_*.png")}
    assert drawn == {"5_gates", "6_click_rate", "7_learned_bias", "examination", "calibration"}
    second = result["clara2"]["learned"][1]
    assert second["runs"] == pytest.approx([np.exp(-0.1), np.exp(-0.2)])
    assert result["clara2"]["report"]["objective"] == "click"


@pytest.mark.parametrize("data", ["clara2", "trivago"])
def test_arms_differ_in_their_model_of_bias_alone(data: str):
    configs = {arm: bias_arms.arm_config(data, arm, 4) for arm in bias_arms.ARMS}
    assert {arm: config.model.bias.kind for arm, config in configs.items()} == {arm: arm for arm in configs}
    plain = load_config(data, ["training.seed=4"])
    assert configs["shallow_tower"] == plain
    for config in configs.values():
        same = config.model.model_copy(update={"bias": plain.model.bias})
        assert config.model_copy(update={"model": same}) == plain
    if not (example_sets.data_folder() / data).is_dir():
        pytest.skip(f"{data} is not in MMOE_RANKER_DATA or ../shared/data")
    raw = pd.read_parquet(example_sets.data_folder() / data / "impressions.parquet")
    assert raw.groupby(["query_id", "url_id"] if data == "clara2" else "item_id")["position"].nunique().max() > 1

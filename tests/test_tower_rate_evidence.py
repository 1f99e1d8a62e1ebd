"""Experiments on the shallow tower: what their models override, and what is held against what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmoe_ranker.config_loading import load_config
from tests.evidence import position_bias


def test_rates_are_of_the_shallow_tower_and_the_slowest_is_the_default() -> None:
    configs = {rate: load_config("watch_next", given) for rate, given in position_bias.MODELS["tower_rate"].items()}
    for rate, config in configs.items():
        assert config.training.bias_optimizer is not None
        assert config.training.bias_optimizer.learning_rate == float(rate)
        assert config.model.bias.kind == "shallow_tower"
    default = load_config("watch_next").training
    assert default.bias_optimizer is None
    assert default.optimizer == configs["0.001"].training.bias_optimizer


def test_models_are_held_against_the_last_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ndcg = {"0.01": [0.85, 0.83], "0.003": [0.83, 0.83], "0.001": [0.8, 0.82]}

    def one_world(folder: Path, models: Any, knobs: Any, seed: int, requests: int) -> dict[str, Any]:
        return {
            "ndcg": {model: values[seed - 1] for model, values in ndcg.items()},
            "spearman": {"phone": 0.9 + seed / 100},
        }

    monkeypatch.setattr(position_bias, "_one_world", one_world)
    result = position_bias.run(tmp_path / "tower_rate", seeds=(1, 2))
    assert list(result) == ["agenda", "aligned"]
    gains = result["agenda"]["minus_0.001"]
    assert {model: gain["mean"] for model, gain in gains.items()} == pytest.approx({"0.01": 0.03, "0.003": 0.02})
    assert result["agenda"]["spearman"] == {"phone": [0.91, 0.92]}

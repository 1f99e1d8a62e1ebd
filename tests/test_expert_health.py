"""Expert health from training to report, in a world taken through every step; with every new layer in another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmoe_ranker.config_loading import dump_config, load_config
from mmoe_ranker.dataset import parsed_dataset
from mmoe_ranker.evaluation import evaluate_workdir
from mmoe_ranker.evaluation_text import format_report
from mmoe_ranker.export import export
from mmoe_ranker.training import train
from mmoe_ranker.workdir import Workdir
from serving.verifying.verification import gate
from tests.conftest import TinyWorld


def test_the_report_holds_the_gates_of_the_split(tiny_world: TinyWorld) -> None:
    report = evaluate_workdir(tiny_world.workdir, tiny_world.examples, "test")
    ranker = Workdir.open(tiny_world.workdir).load_ranker()
    served = [feature.name for feature in tiny_world.config.served_features]
    gates = np.concatenate(
        [
            ranker(ranker.feature_rows({name: parsed[name] for name in served}))["gates"].numpy()
            for parsed in parsed_dataset(tiny_world.examples, "test", tiny_world.config)
        ]
    )
    assert set(report["gates"]["objectives"]) == set(tiny_world.config.objective_names)
    for index, figures in enumerate(report["gates"]["objectives"].values()):
        np.testing.assert_allclose(figures["utilisation"], gates[:, index].mean(axis=0), atol=1e-5)
        entropy = -np.mean(np.sum(gates[:, index] * np.log(gates[:, index]), axis=1))
        assert figures["entropy"] == pytest.approx(entropy, abs=1e-4)
        assert figures["entropy_share"] == pytest.approx(entropy / np.log(8), abs=1e-4)
        assert figures["polarised"] == pytest.approx(np.mean(gates[:, index].max(axis=1) > 0.95), abs=1e-6)
    assert report["gates"]["dead_experts"] == 0
    text = format_report(report)
    assert "utilisation of experts, of which 0 dead" in text
    assert "expert 7" in text


def test_training_says_how_the_experts_are(tiny_world: TinyWorld) -> None:
    logged = tiny_world.result["metrics"]
    for name in tiny_world.config.objective_names:
        assert 0 < logged[f"{name}_gate_entropy"] <= np.log(8) + 1e-5
        assert 0 <= logged[f"{name}_gate_polarised"] <= 1
        assert sum(logged[f"{name}_expert_{index}"] for index in range(8)) == pytest.approx(1.0, abs=1e-4)
    assert logged["dead_experts"] == 0.0
    assert 0.0 <= logged["silent_experts"] <= 8.0


@pytest.mark.slow
def test_attention_dropout_projections_and_extraction_from_training_to_export(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(dump_config(tiny_world.config), encoding="utf-8")
    config = load_config(
        str(base),
        [
            "features.watch_history.pooling=attention",
            "features.video_id.oov_dropout=0.1",
            "features.content.projection=4",
            "model.sharing={kind: ple, levels: 2, shared_experts: 3, objective_experts: 1, units: [8]}",
            "training.epochs=1",
        ],
    )
    result = train(config, tiny_world.examples, tmp_path / "workdir")
    logged = result["metrics"]
    assert {"click_own_expert_0", "click_expert_2", "silent_experts_level_1"} <= set(logged)
    assert "click_expert_3" not in logged
    version = export(tmp_path / "workdir", tmp_path / "models", gate)  # which the gate holds against the ranker
    assert (version / "saved_model.pb").is_file()
    report = json.loads(json.dumps(evaluate_workdir(tmp_path / "workdir", tiny_world.examples, "test")))
    assert report["gates"]["own_experts"] == 1
    assert len(report["gates"]["objectives"]["click"]["utilisation"]) == 4
    assert "own 0" in format_report(report)

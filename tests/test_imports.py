"""Imports go one way only (the table in README, "The house"), and the light parts stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each part may import of ours; `layers` stands for the whole folder, as `metrics` and `simulation` do.
_LEAVES = {"errors"}
_SECTIONS = {
    *("config_fields", "config_features", "config_tables", "config_objectives", "config_model", "config_training"),
}
_CONFIG = _LEAVES | _SECTIONS | {"config", "config_checks", "config_loading", "config_matching"}
_DATA = _CONFIG | {"statistics", "examples", "example_encoding"}
_PARTS = {"layers", "features", "losses", "objective_heads", "objectives", "sharing", "selection_bias", "bias_kinds"}
_MODEL = _DATA | _PARTS | {"dataset", "model"}
_DISTRIBUTION = _MODEL | {"cluster", "distribution", "parameter_server"}
_TRAINING = _MODEL | {"optimizers", "workdir"}
ALLOWED = {
    "errors": set(),
    "metrics": _LEAVES,
    "combined_score": _LEAVES,
    **{section: {"config_fields"} for section in _SECTIONS},
    "config_features": {"config_fields", "config_tables"},
    "score_weights": _LEAVES | {"combined_score", "metrics"},
    "text_table": set(),
    "json_numbers": set(),
    "weight_plots": set(),
    "weight_search": _DATA | {"metrics", "combined_score", "predictions", "request_sample", "score_weights"},
    "weight_report": _CONFIG | {"json_numbers", "text_table", "weight_plots", "weight_search", "whole_files"},
    "config": _CONFIG,
    "config_checks": _CONFIG,
    "config_loading": _CONFIG,
    "config_matching": _CONFIG,
    "simulation": _LEAVES | {"whole_files"},
    "statistics": _LEAVES,
    "examples": _CONFIG,
    "example_encoding": _DATA,
    "layers": _LEAVES,
    "features": _DATA | {"layers"},
    "losses": _LEAVES | {"replicas"},
    "objective_heads": _DATA | {"losses"},
    "objectives": _DATA | {"layers", "losses", "objective_heads"},
    "sharing": _DATA | {"layers"},
    "selection_bias": _DATA | {"layers", "features"},
    "anchored_bias": _DATA | {"layers", "features", "selection_bias"},
    "bias_kinds": _DATA | {"features", "selection_bias", "anchored_bias"},
    "replicas": set(),
    "tensorflow_loading": set(),
    "precision": set(),
    "model": _DATA | _PARTS | {"replicas", "precision"},
    "dataset": _DATA | {"layers", "features"},
    "optimizers": _MODEL,
    "workdir": _MODEL | {"whole_files"},
    "training_progress": _TRAINING,
    "training_callbacks": _TRAINING | {"training_progress"},
    "expert_history": _TRAINING | {"metrics", "training_progress"},
    "cluster": _LEAVES,
    "distribution": _DISTRIBUTION,
    "parameter_server": _DISTRIBUTION | {"training_callbacks"},
    "training_guards": _TRAINING | {"training_progress", "training_callbacks"},
    "early_stopping": _TRAINING | {"training_progress"},
    "incremental": _TRAINING | {"training_progress"},
    "training": _TRAINING
    | _DISTRIBUTION
    | {"training_progress", "training_callbacks", "training_guards", "expert_history", "early_stopping", "incremental"},
    "evaluation_text": {"text_table"},
    "predictions": _DATA | {"metrics"},
    "bounded_predictions": _DATA | {"metrics", "predictions"},
    "position_bias": _DATA | {"json_numbers", "metrics", "predictions"},
    "evaluation_rows": _DATA | {"metrics", "predictions"},
    "evaluation_statistics": {"metrics"},
    "evaluation_objectives": {"metrics", "evaluation_rows", "evaluation_statistics"},
    "evaluation_metrics": _DATA
    | {"metrics", "combined_score", "json_numbers", "predictions"}
    | {"evaluation_rows", "evaluation_statistics", "evaluation_objectives"},
    "evaluation": _TRAINING
    | {"metrics", "predictions", "bounded_predictions", "evaluation_rows", "evaluation_metrics", "saved_evaluation"},
    "request_sample": {"metrics"},
    "pairing": _DATA | {"metrics", "predictions", "request_sample", "saved_evaluation"},
    "comparison": _DATA
    | {"combined_score", "evaluation_metrics", "evaluation_rows", "metrics", "pairing", "saved_evaluation"},
    "comparison_text": {"comparison", "json_numbers", "metrics", "text_table"},
    "whole_files": set(),
    "saved_evaluation": _CONFIG | {"predictions", "evaluation", "tensorflow_loading", "whole_files"},
    "serving_signatures": _TRAINING | {"combined_score"},
    "export": _TRAINING | {"serving_signatures", "combined_score"},
    "describe": _MODEL | {"serving_signatures"},
    "tuning_search": _CONFIG,
    "tuning": _TRAINING | {"training", "evaluation", "evaluation_metrics", "predictions", "tuning_search"},
    "tuning_plots": set(),
    "tuning_report": _CONFIG | {"tuning_search", "tuning_plots", "whole_files"},
    "plots": _LEAVES | {"metrics", "position_bias"},
    "report": _CONFIG
    | {"examples", "metrics", "combined_score", "predictions", "saved_evaluation", "position_bias", "weight_search"}
    | {"json_numbers", "plots", "whole_files"},
    "demo": _DATA | {"dataset", "layers", "features"},
}
# `tensorflow_loading` imports TensorFlow when it is called: `score` does so in the worker.
LIGHT = _DATA | {"metrics", "combined_score", "simulation", "position_bias", "tensorflow_loading", "whole_files"}


def _imports(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _parts(imports: set[str]) -> set[str]:
    known = {path.stem for path in (ROOT / "mmoe_ranker").iterdir()}
    found = {name.split(".")[1] for name in imports if name.startswith("mmoe_ranker.")}
    return found & known


def _files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("file", _files("mmoe_ranker"), ids=lambda file: str(file.relative_to(ROOT)))
def test_library_imports_go_one_way(file: Path) -> None:
    part = file.relative_to(ROOT / "mmoe_ranker").parts[0].removesuffix(".py")
    if part in ("__init__", "__main__", "cli"):
        return
    assert part in ALLOWED, f"{part} has no place in the house: give it one in this test and in the README"
    extra = _parts(_imports(file)) - ALLOWED[part] - {part}
    assert not extra, f"{file.name} must not import {sorted(extra)}"


@pytest.mark.parametrize("file", _files("mmoe_ranker"), ids=lambda file: str(file.relative_to(ROOT)))
def test_only_the_command_line_imports_pipelines_and_serving(file: Path) -> None:
    if file.relative_to(ROOT / "mmoe_ranker").parts[0] != "cli":
        assert not {name for name in _imports(file) if name.split(".")[0] in ("pipelines", "serving")}


@pytest.mark.parametrize("file", _files("pipelines"), ids=lambda file: str(file.relative_to(ROOT)))
def test_pipelines_reach_only_what_is_light(file: Path) -> None:
    imports = _imports(file)
    assert _parts(imports) <= LIGHT
    assert not {name for name in imports if name.split(".")[0] in ("tensorflow", "tf_keras", "keras", "serving")}


@pytest.mark.parametrize("file", _files("serving"), ids=lambda file: str(file.relative_to(ROOT)))
def test_serving_imports_nothing_of_the_model(file: Path) -> None:
    assert _parts(_imports(file)) <= {"errors", "examples", "combined_score"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["pipelines.impressions", "pipelines.scoring.job", "serving.client", "mmoe_ranker.cli"]
)
def test_no_tensorflow_is_loaded(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('tensorflow', 'tf_keras', 'keras') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Batch scoring from files to files, with a model whose answers are computed by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.errors import InputError
from pipelines.impressions import run
from pipelines.scoring import files
from pipelines.scoring.job import score_examples, score_logs
from tests.configs import small_config
from tests.pipelines.formula_model import FormulaModel, expected_predictions
from tests.pipelines.logs import naive_labels, random_logs, request, write_flat_impressions, write_json
from tests.pipelines.reading import content_of

WEIGHTS = {"click": 1.0, "watch_time": 0.5, "like": 0.3, "dismiss": 2.0}


class World:
    """Logs, their examples in several parts, and two versions of a model."""

    def __init__(self, folder: Path) -> None:
        self.config = parse_config(small_config())
        self.folder, self.models, self.examples = folder, folder / "models", folder / "examples"
        self.records, self.events = random_logs()
        for record in self.records[::3]:
            # Some equal durations, so that there are ties; some missing.
            record["impressions"][0]["item"]["duration"] = record["impressions"][-1]["item"]["duration"]
        for record in self.records[1::5]:
            del record["impressions"][0]["item"]["duration"]
        self.log = write_json(folder / "impressions.jsonl", self.records)
        feedback = write_json(folder / "feedback.jsonl", self.events)
        run(self.config, self.log, feedback, str(self.examples), ["--num_shards", "8"])
        FormulaModel(self.config).save(self.models / "3")
        FormulaModel(self.config).save(self.models / "12")
        (self.models / ".export-of-another").mkdir()
        (self.models / "13").mkdir()  # a version that is only being copied


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("scoring"))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for file in sorted((folder / "scores").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def naive_key(predictions: dict[str, float], weights: dict[str, float]) -> float:
    """The log of the combined score of `small_config`."""
    factors = {
        "click": predictions["click"],
        "watch_time": predictions["watch_time"] + 1.0,
        "like": predictions["like"] + 0.05,
        "dismiss": 1.0 - predictions["dismiss"],
    }
    return math.fsum(weights[name] * math.log(factors[name]) for name in factors)


def naive_scores(records: list[dict[str, Any]], weights: dict[str, float]) -> list[dict[str, Any]]:
    """What is to be written for these logs, without labels, record by record."""
    rows = []
    for record in sorted(records, key=lambda record: (record["timestamp"], record["request_id"])):
        impressions = sorted(record["impressions"], key=lambda impression: impression["position"])
        predicted = [expected_predictions(one["item"].get("duration")) for one in impressions]
        keys = [naive_key(predictions, weights) for predictions in predicted]
        order = sorted(range(len(keys)), key=lambda place: -keys[place])
        for place, impression in enumerate(impressions):
            rows.append(
                {
                    "request_id": record["request_id"],
                    "item_id": impression["item"]["video_id"],
                    "timestamp_micros": round(record["timestamp"] * 1e6),
                    **predicted[place],
                    "combined_score": pytest.approx(math.exp(keys[place]), rel=1e-5),
                    "rank": order.index(place) + 1,
                }
            )
    return rows


def test_logs_are_scored_as_computed_by_hand(world: World, tmp_path: Path):
    summary = score_logs(str(world.models), world.config, world.log, str(tmp_path / "out"))
    expected = naive_scores(world.records, WEIGHTS)
    assert rows_of(tmp_path / "out") == expected
    assert any(row["rank"] > 1 for row in expected)
    assert summary == json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["model"] == {"name": "watch_next", "version": 12, "score_weights": WEIGHTS}
    assert summary["requests"] == len(world.records)


def test_examples_keep_files_order_and_labels(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Batches end within requests, and a file has several.
    monkeypatch.setattr(files, "BATCH_ROWS", 3)
    weights = {"click": 0.25, "like": 1.5}
    summary = score_examples(
        str(world.models), str(world.examples), "train", str(tmp_path / "out"), 3, "parquet", weights
    )
    parts = sorted(path.name.split(".")[0] for path in (world.examples / "train").glob("part-*"))
    assert len(parts) > 2
    assert sorted(path.stem for path in (tmp_path / "out/scores").iterdir()) == parts
    labels = naive_labels(world.records, world.events)
    expected = [
        row | {f"{name}_label": label for name, label in labels[row["request_id"], row["item_id"]].items()}
        for row in naive_scores(world.records[:32], WEIGHTS | weights)
    ]
    assert rows_of(tmp_path / "out") == expected
    assert summary["examples"] == {"split": "train", "read": len(expected), "scored": len(expected), "reconciled": True}
    assert summary["model"] == {"name": "watch_next", "version": 3, "score_weights": WEIGHTS | weights}


def test_bad_records_and_duplicates_are_counted(world: World, tmp_path: Path):
    wrong_time = request(50, ["v1"]) | {"timestamp": 3.0}
    one_wrong = request(51, ["v1", "v2", "v3"])
    one_wrong["impressions"][1]["item"]["duration"] = "long"
    twice = request(52, ["v4", "v5"])
    log = write_json(tmp_path / "log.jsonl", ["{", wrong_time, one_wrong, twice, twice])
    summary = score_logs(str(world.models), world.config, log, str(tmp_path / "out"))
    found = {(row["request_id"], row["item_id"]) for row in rows_of(tmp_path / "out")}
    assert found == {("r51", "v1"), ("r51", "v3"), ("r52", "v4"), ("r52", "v5")}
    assert summary["impressions"] == {
        "records": 5,
        "read": 9,
        "scored": 4,
        "duplicates": 2,
        "dead_letters": 3,
        "dead_letters_by_reason": {
            "duration: must be a number": 1,
            "record: must be valid JSON": 1,
            "timestamp: must be UTC seconds from the year 2000 to 2099": 1,
        },
        "reconciled": True,
    }
    letters = b"".join(path.read_bytes() for path in sorted((tmp_path / "out/dead_letters").iterdir()))
    assert len(letters.splitlines()) == 3


def test_every_form_of_a_log_gives_the_same_bytes(world: World, tmp_path: Path):
    write_json(tmp_path / "a.jsonl", world.records[:20])
    write_json(tmp_path / "b.jsonl.gz", world.records[20:])
    logs = {
        "flat": write_flat_impressions(tmp_path / "flat.parquet", world.records[::-1]),
        "two files": str(tmp_path / "?.jsonl*"),
    }
    score_logs(str(world.models), world.config, world.log, str(tmp_path / "out"), beam_args=["--num_shards", "3"])
    expected = content_of(tmp_path / "out/scores")
    assert len(expected) == 3
    for name, log in logs.items():
        arguments = ["--num_shards", "3", "--direct_num_workers", "2", "--direct_running_mode", "multi_threading"]
        score_logs(str(world.models), world.config, log, str(tmp_path / name), beam_args=arguments)
        assert content_of(tmp_path / name / "scores") == expected


@pytest.mark.slow
def test_worker_processes_write_the_same_bytes(world: World, tmp_path: Path):
    models, examples = str(world.models), str(world.examples)
    score_examples(models, examples, "train", str(tmp_path / "one"))
    arguments = ["--direct_num_workers", "2", "--direct_running_mode", "multi_processing"]
    score_examples(models, examples, "train", str(tmp_path / "two"), beam_args=arguments)
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_json_lines_hold_the_same_values(world: World, tmp_path: Path):
    score_examples(str(world.models), str(world.examples), "test", str(tmp_path / "parquet"))
    score_examples(str(world.models), str(world.examples), "test", str(tmp_path / "jsonl"), form="jsonl")
    files = sorted((tmp_path / "jsonl/scores").glob("*.jsonl"))
    lines = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    rows = rows_of(tmp_path / "parquet")
    assert any(row["watch_time_label"] is None for row in rows)
    assert [list(line) for line in lines] == [list(row) for row in rows]
    single = [{k: float(np.float32(v)) if isinstance(v, float) else v for k, v in line.items()} for line in lines]
    assert single == rows


def test_a_rerun_takes_the_place_of_scores_but_of_nothing_else(world: World, config: Config, tmp_path: Path):
    out, models, examples = str(tmp_path / "out"), str(world.models), str(world.examples)
    score_examples(models, examples, "validation", out, form="jsonl")
    score_examples(models, examples, "validation", out)
    before = content_of(tmp_path / "out")
    assert {Path(name).suffix for name in before} == {".json", ".parquet"}
    with pytest.raises(InputError, match="`weights` may name only"):
        score_examples(models, examples, "validation", out, score_weights={"clicks": 1.0})
    assert content_of(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(InputError, match="one that an earlier run wrote"):
        score_examples(models, examples, "validation", examples)
    with pytest.raises(InputError, match="one that an earlier run wrote"):
        run(config, world.log, world.log, out)

"""What `score` refuses, each with one sentence that says what is allowed and what was received."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pytest

from mmoe_ranker.cli import cli
from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import dump_config, parse_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.example_encoding import encode_examples
from mmoe_ranker.examples import META_FIELDS, Field
from pipelines.impressions import run
from pipelines.scoring.job import score_examples, score_logs
from pipelines.tfrecords import tfrecord_gzip
from tests.configs import asof_config, small_config
from tests.pipelines.formula_model import FormulaModel
from tests.pipelines.logs import random_logs, write_json


class World:
    """A log, its examples and a model."""

    def __init__(self, folder: Path) -> None:
        self.config = parse_config(small_config())
        self.models, self.examples = folder / "models", folder / "examples"
        records, events = random_logs()
        self.log = write_json(folder / "impressions.jsonl", records)
        run(self.config, self.log, write_json(folder / "feedback.jsonl", events), str(self.examples))
        FormulaModel(self.config).save(self.models / "1")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("scoring_refusals"))


def refused(out: Path, call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    """The sentence; fails where there is more than one line of it, or where something is left behind."""
    with pytest.raises(InputError) as error:
        call(*(str(value) if isinstance(value, Path) else value for value in arguments), **named)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert re.search(r"Received: .+\.$", sentence)
    assert not list(out.parent.glob(f".{out.name}*"))
    assert not out.exists()
    return sentence


def examples_of(config: Config, content: bytes, folder: Path) -> Path:
    """A folder of examples with one file in its test split."""
    (folder / "test").mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    (folder / "config.yaml").write_text(dump_config(config))
    (folder / "test" / "part-00000-of-00001.tfrecord.gz").write_bytes(content)
    return folder


def with_feature(**changes: Any) -> Config:
    """`small_config` with its feature `content` changed, or left out where nothing is given."""
    raw = small_config()
    features = [feature for feature in raw["features"] if feature["name"] != "content"]
    return parse_config(raw | {"features": features + ([{"name": "content", **changes}] if changes else [])})


def test_models(world: World, tmp_path: Path):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    for models in (tmp_path / "empty", tmp_path / "not there", world.models / "1"):
        sentence = refused(out, score_examples, models, world.examples, "test", out)
        assert sentence.startswith("`models` must hold at least one version, a sub-folder named by an integer")
        assert sentence.endswith(f"Received: '{models}'.")
    sentence = refused(out, score_examples, world.models, world.examples, "test", out, version=7)
    assert sentence == f"`version` must be one that is in '{world.models}': 1. Received: 7."


def test_a_model_that_is_no_ranker(world: World, tmp_path: Path):
    out = tmp_path / "out"
    folder = FormulaModel(world.config).save(tmp_path / "models/4", leave_out="serving_examples")
    sentence = refused(out, score_examples, tmp_path / "models", world.examples, "test", out)
    assert sentence == (
        "The model must have the signature `serving_examples`, as `mmoe-ranker export` writes it. "
        f"Received: '{folder}' with contract, serving_default."
    )
    (folder / "saved_model.pb").write_bytes(b"broken")
    sentence = refused(out, score_examples, tmp_path / "models", world.examples, "test", out)
    assert sentence.startswith("The model must be a SavedModel that TensorFlow can load (")
    raw = json.loads(json.dumps(small_config()).replace('"like"', '"rank"'))
    folder = FormulaModel(parse_config(raw)).save(tmp_path / "models/5")
    sentence = refused(out, score_examples, tmp_path / "models", world.examples, "test", out)
    assert sentence == f"An objective must not be called `rank`, which is a column of its own. Received: '{folder}'."


def test_score_weights(world: World, tmp_path: Path):
    out = tmp_path / "out"
    sentence = refused(out, score_logs, world.models, world.config, world.log, out, score_weights={"clicks": 2.0})
    assert sentence == "`weights` may name only the objectives click, watch_time, like, dismiss. Received: 'clicks'."
    sentence = refused(out, score_examples, world.models, world.examples, "test", out, score_weights={"dismiss": -2.0})
    assert sentence.startswith("`weights` must be at least 0 where `complement` is true")


def test_folders_of_examples(world: World, tmp_path: Path):
    out = tmp_path / "out"
    sentence = refused(out, score_examples, world.models, tmp_path, "test", out)
    assert sentence.startswith("The folder of examples must be complete")
    empty = tmp_path / "examples"
    shutil.copytree(world.examples, empty)
    shutil.rmtree(empty / "test")
    sentence = refused(out, score_examples, world.models, empty, "test", out)
    assert sentence == f"The split `test` must hold an example. Received: '{empty}' with none."
    (empty / "test").mkdir()
    (empty / "test/part-00000-of-00001.tfrecord.gz").write_bytes(tfrecord_gzip([]))
    assert refused(out, score_examples, world.models, empty, "test", out) == sentence
    sentence = refused(out, score_examples, world.models, world.examples, "tests", out)
    assert sentence == "The split must be one of train, validation, test. Received: 'tests'."
    arguments = ["--num_shards", "3"]
    sentence = refused(out, score_examples, world.models, world.examples, "test", out, beam_args=arguments)
    assert sentence == "The option --num_shards goes with logs: examples keep their files. Received: 3."


@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({}, "none"),
        ({"side": "candidate", "kind": "vector", "size": 7}, "float32 [N, 7]"),
        ({"side": "candidate", "kind": "numeric"}, "float32 [N]"),
        ({"side": "context", "kind": "categorical", "buckets": 9, "dim": 2}, "string [N]"),
    ],
)
def test_examples_of_another_config(world: World, changes: dict[str, Any], received: str, tmp_path: Path):
    out = tmp_path / "out"
    examples = examples_of(with_feature(**changes), b"", tmp_path / "examples")
    sentence = refused(out, score_examples, world.models, examples, "test", out)
    assert sentence == (
        "The config of what is scored must have the feature `content` as the model takes it, float32 [N, 6]. "
        f"Received: {received} in the config 'watch_next'."
    )


def test_examples_that_the_model_does_not_take(world: World, tmp_path: Path):
    out = tmp_path / "out"
    fields = (*META_FIELDS, Field("duration", "float", 1, "feature"))
    columns = {
        "request_id": pa.array(["r"]),
        "item_id": pa.array(["v"]),
        "timestamp_micros": pa.array([1]),
        "duration": pa.array([np.inf], pa.float32()),
    }
    infinite = examples_of(world.config, tfrecord_gzip([encode_examples(fields, columns)]), tmp_path / "infinite")
    sentence = refused(out, score_examples, world.models, infinite, "test", out)
    assert sentence == (
        "The model must be able to take the examples (assertion failed: [`duration` must be finite.]). "
        f"Received: '{infinite / 'test/part-00000-of-00001.tfrecord.gz'}', examples 0 to 0."
    )
    columns["duration"] = pa.array([10.0], pa.float32())
    nameless = examples_of(world.config, tfrecord_gzip([encode_examples(fields[3:], columns)]), tmp_path / "nameless")
    sentence = refused(out, score_examples, world.models, nameless, "test", out)
    assert re.search(r"\(.*_id \(data type: string\) is required but could not be found\.\)\. Received", sentence)
    garbage = examples_of(world.config, tfrecord_gzip([pa.array([b"garbage"])]), tmp_path / "garbage")
    assert "Could not parse example" in refused(out, score_examples, world.models, garbage, "test", out)


def test_logs(world: World, tmp_path: Path):
    out = tmp_path / "out"
    sentence = refused(out, score_logs, world.models, world.config, tmp_path / "*.jsonl", out)
    assert sentence.startswith("The impressions log must be a path or glob that matches at least one file.")
    log = write_json(tmp_path / "broken.jsonl", ["{", "{"])
    sentence = refused(out, score_logs, world.models, world.config, log, out)
    assert sentence == (
        f"The impressions log must hold at least one valid impression. Received: '{log}', 2 records, "
        "refused: {'record: must be valid JSON': 2}."
    )
    config = parse_config(asof_config())
    sentence = refused(out, score_logs, world.models, config, world.log, out)
    assert sentence == (
        "Logs can be scored where all features stand in them; with tables or histories, make examples first and score "
        "those. Received: the features country, duration, watch_history, like_history."
    )


def command(*arguments: Any) -> None:
    cli.main(["score", *map(str, arguments)], standalone_mode=False)


def test_the_command(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    target = ["--models", world.models, "--out", tmp_path / "out"]
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(world.config))
    for wrong in (
        [],
        ["--examples", world.examples, "--impressions", world.log, "--config", config],
        ["--examples", world.examples, "--config", config],
        ["--impressions", world.log],
        ["--impressions", world.log, "--config", config, "--split", "test"],
    ):
        with pytest.raises(click.UsageError, match="Give either --examples"):
            command(*target, *wrong)
    with pytest.raises(
        click.UsageError, match=r"must be a term and its weight, such as click=0\.5\. Received: 'click'"
    ):
        command(*target, "--examples", world.examples, "--score-weights", "click")
    with pytest.raises(InputError, match="Every option must be one of this command's or a Beam pipeline option"):
        command(*target, "--examples", world.examples, "--splits=test")
    assert not (tmp_path / "out").exists()
    command(*target, "--impressions", world.log, "--config", config, "--format=jsonl", "--score-weights", "like=0")
    scored = json.loads((tmp_path / "out/summary.json").read_text())
    assert scored["model"]["score_weights"]["like"] == 0.0
    number = scored["impressions"]["scored"]
    assert capsys.readouterr().out == f"Scored {number} impressions with version 1 into {tmp_path / 'out'}.\n"
    command(*target, "--examples", world.examples, "--version", 1, "--direct_num_workers=1")
    assert json.loads((tmp_path / "out/summary.json").read_text())["examples"]["split"] == "test"

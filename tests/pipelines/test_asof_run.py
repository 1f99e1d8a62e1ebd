"""The whole job with tables and histories: files to files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from mmoe_ranker.cli import cli
from mmoe_ranker.cli.options import globs_by_table
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.serving_signatures import feature_specs
from mmoe_ranker.statistics import Statistics
from pipelines.impressions import run
from tests.configs import asof_config
from tests.pipelines.asof_worlds import naive_features
from tests.pipelines.logs import event, random_logs, request, write_flat_impressions, write_json, write_nested
from tests.pipelines.reading import content_of, read_all, read_split

START = 1_651_017_600.5
CONFIG = parse_config(asof_config())


def world() -> tuple[list, list, dict[str, list[dict[str, Any]]]]:
    """Requests and events of `random_logs`; users that move now and then, one row twice and one bad; some videos."""
    records, events = random_logs()
    rng = np.random.default_rng(5)
    users = [
        {"user_id": f"u{rng.integers(3)}", "updated_at": START + 60 * float(rng.integers(40)), "country": country}
        for country in rng.choice(["de", "fr", "us"], size=20)
    ]
    videos = [{"video_id": f"v{number}", "seconds": 10.0 * number} for number in range(10)]
    return records, events, {"users": users, "videos": videos}


def write_tables(folder: Path, tables: dict[str, list], prefix: str = "") -> dict[str, str]:
    return {name: write_json(folder / f"{prefix}{name}.jsonl", rows) for name, rows in tables.items()}


def test_examples_equal_the_naive_double(tmp_path: Path):
    records, events, tables = world()
    logs = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)
    bad = {"users": [{"user_id": "u1", "updated_at": None}, tables["users"][0]], "videos": []}
    globs = write_tables(tmp_path, {name: bad[name] + rows for name, rows in tables.items()})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(asof_config()))
    tables_given = [word for name, glob in globs.items() for word in ("--table", f"{name}={glob}")]
    command = ["examples", "--config", str(tmp_path / "config.yaml"), "--impressions", logs[0], "--feedback", logs[1]]
    done = CliRunner().invoke(cli, [*command, *tables_given, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    expected = naive_features(CONFIG, records, events, tables)
    examples = read_all(CONFIG, tmp_path / "out")
    assert len(examples) == len(expected)
    # An example knows no empty list: the field is there, without a value.
    for example in examples:
        for name, value in expected[example["request_id"], example["item_id"]].items():
            assert example[name] == value, name
    distinct = {(row["user_id"], row["updated_at"]) for row in tables["users"]}
    counted = summary["tables"]["users"]
    assert (counted["read"], counted["rows"]) == (22, len(distinct))
    assert counted["duplicates"] == 21 - len(distinct)
    assert counted["dead_letters_by_reason"] == {"updated_at: missing": 1}
    assert counted["reconciled"]
    for name, feature in (("users", "country"), ("videos", "duration")):
        hits = sum(features[feature] is not None for features in expected.values())
        counted = summary["tables"][name]
        assert (counted["hits"], counted["misses"]) == (hits, len(examples) - hits)
        assert summary["missing"][feature] == len(examples) - hits
    empty = sum(features["watch_history"] == [] for features in expected.values())
    watched = sum(one["event"] == "watch" for one in events)
    assert summary["histories"]["watch_history"] == {"events": watched, "empty": empty}
    letters = (tmp_path / "out/dead_letters/table-users-00000-of-00001.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in letters] == ["updated_at: missing"]


def test_check_looks_at_features_of_tables_too(tmp_path: Path):
    records, events, tables = world()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(asof_config()))
    logs = ["--impressions", write_json(tmp_path / "i.jsonl", records)]
    logs += ["--feedback", write_json(tmp_path / "f.jsonl", events)]
    for name, glob in write_tables(tmp_path, tables).items():
        logs += ["--table", f"{name}={glob}"]
    done = CliRunner().invoke(cli, ["check", "--config", str(tmp_path / "config.yaml"), *logs])
    expected = naive_features(CONFIG, records, events, tables)
    for name in ("country", "duration"):
        missing = sum(features[name] is None for features in expected.values())
        assert re.search(rf"^{name} +\w+ +{missing} ", done.output, re.MULTILINE), done.output


def test_every_form_of_logs_and_tables_gives_the_same_bytes(tmp_path: Path):
    records, events, tables = world()
    lines = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)
    first = run(CONFIG, *lines, str(tmp_path / "lines"), (), write_tables(tmp_path, tables))
    flat = write_flat_impressions(tmp_path / "i.parquet", records), write_nested(tmp_path / "f.parquet", events)
    parquet = {name: write_nested(tmp_path / f"{name}.parquet", rows) for name, rows in tables.items()}
    half = len(tables["users"]) // 2
    write_json(tmp_path / "u-0.jsonl.gz", tables["users"][:half])
    write_json(tmp_path / "u-1.jsonl.gz", tables["users"][half:])
    parquet["users"] = str(tmp_path / "u-*.jsonl.gz")
    second = run(CONFIG, *flat, str(tmp_path / "flat"), (), parquet)
    # Of a flat table the records are impressions.
    del first["impressions"]["records"], second["impressions"]["records"]
    assert first == second
    one, other = content_of(tmp_path / "lines"), content_of(tmp_path / "flat")
    del one["summary.json"], other["summary.json"]
    assert one == other


def test_training_does_not_see_what_comes_after_it(tmp_path: Path):
    """All feedback and rows from the validation period on taken away: not a feature of a training example changes."""
    records, events, tables = world()
    begin = START + 60 * 32
    before = {
        "users": [row for row in tables["users"] if row["updated_at"] < begin],
        "videos": tables["videos"],
    }
    assert len(before["users"]) < len(tables["users"])
    early = [one for one in events if one["timestamp"] < begin]
    logs = write_json(tmp_path / "i.jsonl", records)
    run(
        CONFIG, logs, write_json(tmp_path / "f.jsonl", events), str(tmp_path / "all"), [],
        write_tables(tmp_path, tables, "all-"),
    )  # fmt: skip
    run(
        CONFIG, logs, write_json(tmp_path / "e.jsonl", early), str(tmp_path / "early"), [],
        write_tables(tmp_path, before, "early-"),
    )  # fmt: skip
    names = [feature.name for feature in CONFIG.features]
    whole, cut = (read_split(CONFIG, tmp_path / out, "train") for out in ("all", "early"))
    assert [[one[name] for name in names] for one in whole] == [[one[name] for name in names] for one in cut]
    vocabularies = [Statistics.load(tmp_path / out).vocabularies for out in ("all", "early")]
    assert vocabularies[0] == vocabularies[1]
    # And the test does see something: what comes later differs.
    assert read_split(CONFIG, tmp_path / "all", "test") != read_split(CONFIG, tmp_path / "early", "test")


@pytest.mark.slow
def test_number_of_workers_changes_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("pipelines.log_blocks.BLOCK_BYTES", 1000)
    records, events, tables = world()
    logs = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)
    globs = write_tables(tmp_path, tables)
    run(CONFIG, *logs, str(tmp_path / "one"), ["--num_shards", "6"], globs)
    two = ["--num_shards", "6", "--direct_num_workers", "2", "--direct_running_mode", "multi_processing"]
    run(CONFIG, *logs, str(tmp_path / "two"), two, globs)
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def test_histories_alone_need_no_table(tmp_path: Path):
    raw = asof_config()
    raw["tables"] = []
    raw["features"] = [feature for feature in raw["features"] if "table" not in feature]
    config = parse_config(raw)
    records, events = [request(number, ["v1"]) for number in range(10)], [event(0, "v1", "watch", 3.0)]
    records[6]["context"]["user_id"] = None
    logs = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)
    summary = run(config, *logs, str(tmp_path / "out"))
    histories = {one["request_id"]: one["watch_history"] for one in read_all(config, tmp_path / "out")}
    assert histories == {**{f"r{number}": [] for number in range(10)}, "r3": ["v1"], "r6": None, "r9": ["v1"]}
    assert summary["tables"] == {}
    assert summary["missing"]["watch_history"] == 1


@pytest.mark.parametrize("given", [["users"], ["=x"], ["users="], ["users=a", "users=b"]])
def test_tables_are_given_by_name_and_glob(given: list[str]):
    assert globs_by_table(["users=a=*.jsonl", "videos=b"]) == {"users": "a=*.jsonl", "videos": "b"}
    with pytest.raises(InputError, match=r"`--table` must read NAME=GLOB, each name once. Received: '.*'\."):
        globs_by_table(given)


def test_signatures_take_these_features_like_any_other():
    specs = feature_specs(CONFIG, None)
    assert {name: spec.shape.rank for name, spec in specs.items() if not CONFIG.feature(name).is_logged} == {
        "country": 1, "duration": 1, "watch_history": 2, "like_history": 2,
    }  # fmt: skip


def refused(tmp_path: Path, records: list, tables: dict[str, str], raw: dict | None = None) -> str:
    logs = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", [])
    with pytest.raises(InputError) as error:
        run(parse_config(raw or asof_config()), *logs, str(tmp_path / "out"), [], tables)
    assert not (tmp_path / "out").exists()
    return str(error.value)


def test_files_for_each_table_and_no_other(tmp_path: Path):
    records, _, tables = world()
    globs = write_tables(tmp_path, tables)
    message = refused(tmp_path, records, {"users": globs["users"]})
    assert message.startswith("Files must be given for each table of the config, as `--table NAME=GLOB`")
    assert message.endswith("configured: users, videos. Received: users.")
    message = refused(tmp_path, records, {**globs, "makers": globs["users"]})
    assert message.endswith("Received: users, videos, makers.")
    message = refused(tmp_path, records, {**globs, "users": str(tmp_path / "no-*.jsonl")})
    assert message.startswith("The table `users` must be a path or glob that matches at least one file. Received: ")


def test_a_column_that_no_row_has(tmp_path: Path):
    records, _, tables = world()
    globs = write_tables(tmp_path, {**tables, "videos": [{"video_id": "v1", "length": 3}, {"seconds": 3}]})
    message = refused(tmp_path, records, globs)
    assert message.startswith("The feature `duration` must have a value in column `seconds` of the table `videos`")
    shown = sum(one["item"]["video_id"] == "v1" for record in records for one in record["impressions"])
    why = f"1 rows, of which one held for {shown} impressions, refused: {{'video_id: missing': 1}}."
    assert message.endswith(f"Received: {why}")


def test_a_history_of_nobody(tmp_path: Path):
    raw = asof_config()
    # Before the feature that it goes by, so that the sentence is the history's.
    raw["features"] = [raw["features"][-1], *raw["features"][:-1]]
    records, _, tables = world()
    for record in records:
        del record["context"]["user_id"]
    message = refused(tmp_path, records, write_tables(tmp_path, tables), raw)
    assert message.startswith("The feature `like_history` must be the history of known users: `user_id` must stand in")
    assert message.endswith("Received: none in 131 impressions.")

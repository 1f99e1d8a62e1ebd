"""`check` from files to a report: against plain Python, for every form of the logs, and by the command line."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from mmoe_ranker.cli import cli
from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config, parse_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.simulation import WorldConfig, simulate, write_logs
from pipelines.checking import feature_findings
from pipelines.checking.finding import percent
from pipelines.checking.job import _read_result, run
from pipelines.checking.text import format_check
from tests.configs import asof_config
from tests.pipelines.check_logs import Log
from tests.pipelines.logs import (
    event,
    naive_labels,
    random_logs,
    request,
    write_flat_impressions,
    write_json,
    write_nested,
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("logs")
    records, events = random_logs()
    paths = write_json(folder / "i.jsonl", records), write_json(folder / "f.jsonl", events)
    return run(Log().parsed(), *paths)


def test_figures_equal_the_naive_double(report):
    records, events = random_logs()
    figures, labels = report.figures, naive_labels(records, events)
    rows = [(record, one) for record in records for one in record["impressions"]]
    # 80 % and 90 % of 40 requests in order of time.
    split_of = {f"r{n}": "train" if n < 32 else "validation" if n < 36 else "test" for n in range(40)}
    for split in ("train", "validation", "test"):
        mine = [(record, one) for record, one in rows if split_of[record["request_id"]] == split]
        assert figures["splits"][split]["impressions"] == len(mine)
        for name in ("click", "watch_time", "like", "dismiss"):
            known = [labels[record["request_id"], one["item"]["video_id"]][name] for record, one in mine]
            known = [label for label in known if label is not None]
            found = figures["objectives"][name]["splits"][split]
            assert found["labelled"] == len(known)
            mean = found["mean"] if name == "watch_time" else found["rate"]
            assert mean == pytest.approx(sum(known) / len(known), rel=1e-6) if known else mean is None

    cells: dict[tuple[int, str], list[float]] = defaultdict(list)
    for record, one in rows:
        key = one["position"], record["context"]["device"]
        cells[key].append(labels[record["request_id"], one["item"]["video_id"]]["click"])
    assert [
        (int(row["position"]), row["device"], row["impressions"], row["rates"]["click"])
        for row in figures["positions"]["position x device"]
    ] == [(*key, len(clicks), pytest.approx(sum(clicks) / len(clicks))) for key, clicks in sorted(cells.items())]

    places: dict[tuple[str, str], set[int]] = defaultdict(set)
    for record, one in rows:
        places[one["item"]["video_id"], record["context"]["device"]].add(one["position"])
    several = sum(len(places[one["item"]["video_id"], record["context"]["device"]]) > 1 for record, one in rows)
    assert figures["identifiability"]["at_several_positions_within_group"] == pytest.approx(several / len(rows))

    features = figures["features"]
    users, videos = ([record["context"]["user_id"] for record, _ in rows], [one["item"]["video_id"] for _, one in rows])
    assert features["user_id"]["distinct"] == len(set(users))
    shares = {one["value"]: one["share"] for one in features["video_id"]["most_frequent"]}
    assert shares == {video: pytest.approx(videos.count(video) / len(videos)) for video in shares}
    trained = [one["item"]["video_id"] for record, one in rows if split_of[record["request_id"]] == "train"]
    tested = [one["item"]["video_id"] for record, one in rows if split_of[record["request_id"]] == "test"]
    unknown = [video for video in tested if trained.count(video) < 2]
    assert features["video_id"]["unknown"]["test"] == pytest.approx(len(unknown) / len(tested))
    lengths = sorted(len(record["context"]["watch_history"]) for record, _ in rows)
    assert features["watch_history"]["quantiles"]["p50"] == lengths[math.ceil(len(lengths) / 2) - 1]
    shares_of = [np.array([trained.count(video), tested.count(video)]) for video in sorted(set(videos))]
    counts = np.array([one for one in shares_of if one.sum()]) + 0.5
    expected, actual = (counts / counts.sum(axis=0)).T
    stability = float(np.sum((actual - expected) * np.log(actual / expected)))
    assert features["video_id"]["drift"]["test"]["index"] == pytest.approx(stability)
    assert figures["time"]["span_seconds"] == 39 * 60
    assert figures["feedback"]["joined"] == len(events)


def test_every_form_of_the_logs_and_parts_give_the_same(report, tmp_path: Path):
    records, events = random_logs()
    config = Log().parsed()
    flat = write_flat_impressions(tmp_path / "i.parquet", records), write_nested(tmp_path / "f.parquet", events)
    found = run(config, *flat, ["--num_shards", "7"])
    # Of a flat table the records are impressions.
    found.figures["impressions"]["records"] = report.figures["impressions"]["records"]
    assert found.as_json() == report.as_json()


@pytest.mark.slow
def test_number_of_workers_changes_nothing(report, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("pipelines.log_blocks.BLOCK_BYTES", 2000)
    records, events = random_logs()
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)
    two = ["--direct_num_workers", "2", "--direct_running_mode", "multi_processing", "--num_shards", "5"]
    assert run(Log().parsed(), *paths, [*two, "--temp_location", str(tmp_path / "tmp")]).as_json() == report.as_json()
    assert not list((tmp_path / "tmp").rglob("*"))


def test_the_text_holds_what_the_document_holds(report):
    text = format_check(report.figures, report.findings)
    for name in (*report.figures["features"], *report.figures["objectives"], "position x device", "joined", "test"):
        assert name in text
    identifiability = report.figures["identifiability"]
    assert f"{identifiability['items']} items over {identifiability['positions']} positions; share" in text
    assert (
        f"within device\n  at positions tied together by shared items: {percent(identifiability['connected'])}" in text
    )
    for finding in report.findings:
        assert f"{finding.severity}: {finding.code} ({finding.about})" in text
    assert json.loads(json.dumps(report.as_json(), allow_nan=False)) == report.as_json()
    assert max(map(len, text.splitlines())) <= 160


def test_refused_records_and_large_vocabularies(config: Config, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(feature_findings, "LARGE_VOCABULARY", 3)
    records = [request(number, ["v1", "v2", "v3", "v4"]) for number in range(40)]
    for record in records[:20]:
        del record["context"]
    events = [event(number, "v1", "click") for number in range(20, 40)] + [{**event(1, "v1", "like"), "timestamp": 5}]
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)
    found = {(one.code, one.about): one for one in run(config, *paths).findings}
    dead = found["dead_letters", "impressions"]
    assert dead.severity == "error"
    # A record refused as a whole counts as one.
    assert "20 records of the impressions log (20 %) break a rule: context: missing (20)." in dead.sentence
    assert found["dead_letters", "feedback"].severity == "warning"
    assert "would hold 4 values" in found["vocabulary_large", "video_id"].sentence


def test_features_of_tables_and_histories_are_looked_at_as_examples_have_them(tmp_path: Path):
    records, events = random_logs()
    users = [
        {"user_id": "u1", "updated_at": records[10]["timestamp"], "country": "BR"},
        {"user_id": "u2", "updated_at": records[0]["timestamp"], "country": None},
    ]
    videos = [{"video_id": f"v{video}", "seconds": 5.0} for video in range(6)]
    tables = {
        "users": write_json(tmp_path / "users.jsonl", users),
        "videos": write_json(tmp_path / "videos.jsonl", videos),
    }
    logs = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)
    found = run(parse_config(asof_config()), *logs, tables=tables)
    rows = [(record, one) for record in records for one in record["impressions"]]
    of_brazil = [record["context"]["user_id"] == "u1" and number >= 10 for number, record in enumerate(records)]
    features = found.figures["features"]
    shown = sum(of_brazil[int(record["request_id"][1:])] for record, _ in rows)
    assert features["country"]["missing"] == len(rows) - shown
    known = [one["item"]["video_id"] in {video["video_id"] for video in videos} for _, one in rows]
    assert features["duration"]["missing"] == len(rows) - sum(known)
    assert features["duration"]["distinct"] == 1
    assert 0 < features["watch_history"]["quantiles"]["max"] <= 5

    write_json(tmp_path / "users.jsonl", [{**user, "country": None} for user in users])
    found = run(parse_config(asof_config()), *logs, tables=tables)
    (missing,) = [one for one in found.findings if one.severity == "error" and one.about == "country"]
    assert missing.code == "feature_never_present"
    assert "the table `users` has this column" in missing.suggestion


def test_nothing_to_check_is_refused(config: Config, tmp_path: Path):
    paths = write_json(tmp_path / "i.jsonl", ["no json"]), write_json(tmp_path / "f.jsonl", [])
    with pytest.raises(InputError, match=r"at least one valid impression. Received: .*i.jsonl', 1 records, refused: "):
        run(config, *paths)
    with pytest.raises(InputError, match=r"--num_shards must be at least 1. Received: 0."):
        run(config, *paths, ["--num_shards", "0"])
    nowhere = str(tmp_path / "result")
    with pytest.raises(InputError, match=r"--temp_location must name a folder .* Received: no result in .*result'\."):
        _read_result(nowhere)


def test_the_command_says_what_it_found_by_its_exit_status(tmp_path: Path):
    write_logs(simulate(300, seed=3), tmp_path / "logs")
    logs = tmp_path / "logs"
    arguments = ["check", "--config", "watch_next", "--impressions", str(logs / "impressions.parquet")]
    arguments += ["--feedback", str(logs / "feedback.parquet"), "--json", str(tmp_path / "check.json")]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert "0 errors" in done.output
    document = json.loads((tmp_path / "check.json").read_text())
    assert document["impressions"]["examples"] == 6_000
    assert not [one for one in document["findings"] if one["severity"] == "error"]

    done = CliRunner().invoke(cli, [*arguments, "--set", "objectives.2.event=likes"])
    assert done.exit_code == 2
    assert done.stderr.startswith("mmoe-ranker: 1 finding(s) would spoil training: label_constant (like).")
    assert "is it `event: like`?" in " ".join(done.output.split())
    done = CliRunner().invoke(cli, [*arguments[:-1], str(tmp_path / "nowhere" / "check.json")])
    assert "The folder of `--json` must exist" in str(done.exception)


def test_a_simulated_log_has_no_error_and_its_bias_is_what_users_did(tmp_path: Path):
    # A ranker with an agenda but no idea of what users like: who sees an item where is chance.
    logs = simulate(2000, seed=4, world=WorldConfig(alignment=0.0))
    write_logs(logs, tmp_path / "logs")
    found = run(
        load_config("watch_next"),
        str(tmp_path / "logs" / "impressions.parquet"),
        str(tmp_path / "logs" / "feedback.parquet"),
    )
    assert not [one for one in found.findings if one.severity == "error"], found.findings
    told = np.array(list(found.figures["identifiability"]["examination"].values()))
    truth = logs.examination.mean(axis=0)
    np.testing.assert_allclose(told / told.sum(), truth / truth.sum(), atol=0.01)

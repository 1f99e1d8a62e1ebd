"""The job from files to files: forms of the logs, splits, determinism, what is counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.statistics import Statistics
from pipelines.impressions import run
from tests.configs import small_config
from tests.pipelines.logs import (
    event,
    naive_labels,
    random_logs,
    request,
    write_flat_impressions,
    write_json,
    write_nested,
)
from tests.pipelines.reading import content_of, read_all, read_split


def test_examples_equal_the_naive_double(config: Config, tmp_path: Path):
    records, events = random_logs()
    shuffled = [records[place] for place in np.random.default_rng(2).permutation(len(records))]
    paths = write_json(tmp_path / "i.jsonl", shuffled), write_json(tmp_path / "f.jsonl", events)
    summary = run(config, *paths, str(tmp_path / "out"))
    labels = naive_labels(records, events)
    expected = []
    for record in records:
        micros = round(record["timestamp"] * 1e6)
        for impression in record["impressions"]:
            item, context = impression["item"], record["context"]
            known = labels[record["request_id"], item["video_id"]]
            expected.append(
                {
                    "user_id": context["user_id"],
                    "device": context["device"],
                    "watch_history": context["watch_history"],
                    "video_id": item["video_id"],
                    "duration": item["duration"],
                    "content": item["content"],
                    "position": impression["position"],
                    **{f"{name}_label": label for name, label in known.items()},
                    "request_id": record["request_id"],
                    "item_id": item["video_id"],
                    "timestamp_micros": micros,
                }
            )
    assert read_all(config, tmp_path / "out") == expected
    assert summary["impressions"]["examples"] == len(expected)
    assert summary["feedback"]["joined"] == len(events)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert parse_config(small_config()) == config
    # 80 % and 90 % of 40 requests in order of time.
    assert {example["request_id"] for example in read_split(config, tmp_path / "out", "validation")} == {
        f"r{number}" for number in range(32, 36)
    }
    assert {example["request_id"] for example in read_split(config, tmp_path / "out", "test")} == {
        f"r{number}" for number in range(36, 40)
    }


def test_statistics_are_of_the_training_split_alone(config: Config, tmp_path: Path):
    records, events = random_logs()
    run(
        config,
        write_json(tmp_path / "i.jsonl", records),
        write_json(tmp_path / "f.jsonl", events),
        str(tmp_path / "out"),
    )
    train = read_split(config, tmp_path / "out", "train")
    statistics = Statistics.load(tmp_path / "out")
    assert statistics.num_examples == len(train)
    durations = np.log1p([example["duration"] for example in train])
    moments = statistics.numeric["duration"]
    assert (moments.count, moments.missing) == (len(train), 0)
    np.testing.assert_allclose(
        [moments.mean, moments.std, moments.min, moments.max],
        [durations.mean(), durations.std(), durations.min(), durations.max()],
        rtol=1e-9,
    )
    watched = np.log1p([e["watch_time_label"] for e in train if e["watch_time_label"] is not None])
    np.testing.assert_allclose(
        [
            statistics.labels["watch_time"].count,
            statistics.labels["watch_time"].mean,
            statistics.labels["watch_time"].std,
        ],
        [len(watched), watched.mean(), watched.std()],
        rtol=1e-9,
    )
    videos = [example["video_id"] for example in train]
    counts = {video: videos.count(video) for video in set(videos)}
    common = sorted((video for video in counts if counts[video] >= 2), key=lambda video: (-counts[video], video))
    assert statistics.vocabularies["video_id"] == tuple(common)
    assert set(statistics.vocabularies) == {"device", "video_id"}


def test_every_form_of_the_logs_gives_the_same_bytes(config: Config, tmp_path: Path):
    records, events = random_logs()
    feedback = write_json(tmp_path / "f.jsonl", events)
    forms = {
        "lines": (write_json(tmp_path / "i.jsonl", records), feedback),
        "gzip": (write_json(tmp_path / "i.jsonl.gz", records), write_json(tmp_path / "f.jsonl.gz", events)),
        "flat": (write_flat_impressions(tmp_path / "i.parquet", records), write_nested(tmp_path / "f.parquet", events)),
        "nested": (write_nested(tmp_path / "n.parquet", records), feedback),
    }
    half = len(records) // 2
    write_json(tmp_path / "part-0.json", records[:half])
    write_json(tmp_path / "part-1.json", records[half:])
    forms["glob"] = (str(tmp_path / "part-*.json"), feedback)
    contents = {}
    for name, paths in forms.items():
        summary = run(config, *paths, str(tmp_path / name))
        contents[name] = content_of(tmp_path / name)
        # Of a flat table the records are impressions.
        del summary["impressions"]["records"]
        contents[name]["summary.json"] = json.dumps(summary)
    for name in forms:
        assert contents[name] == contents["lines"], name


def test_blocks_and_parts_change_nothing_but_the_cut(config: Config, tmp_path: Path, monkeypatch):
    records, events = random_logs()
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)
    run(config, *paths, str(tmp_path / "whole"))
    monkeypatch.setattr("pipelines.log_blocks.BLOCK_BYTES", 700)
    run(config, *paths, str(tmp_path / "cut"), ["--num_shards=5"])
    assert read_all(config, tmp_path / "cut") == read_all(config, tmp_path / "whole")
    cut, whole = Statistics.load(tmp_path / "cut"), Statistics.load(tmp_path / "whole")
    assert (cut.vocabularies, cut.num_examples) == (whole.vocabularies, whole.num_examples)
    assert cut.numeric["duration"].mean == pytest.approx(whole.numeric["duration"].mean, rel=1e-12)
    assert cut.labels["watch_time"].std == pytest.approx(whole.labels["watch_time"].std, rel=1e-12)
    names = sorted(path.name for path in (tmp_path / "cut/train").iterdir())
    assert names == [f"part-{part:05d}-of-{len(names):05d}.tfrecord.gz" for part in range(len(names))]
    assert len(names) == 4


def test_duplicates_orphans_and_unnamed_events_are_counted(config: Config, tmp_path: Path):
    first, again = request(0, ["v1", "v2"]), request(0, ["v2", "v3"])
    again["timestamp"] += 1.0
    records = [request(number, ["v1", "v2"]) for number in range(1, 10)] + [again, first, first]
    events = [
        event(0, "v2", "click"),
        event(0, "v2", "click"),
        event(0, "v2", "click", delay=6.0),
        event(0, "v9", "click"),
        event(77, "v1", "like"),
        event(0, "v1", "share"),
        event(0, "v1", "watch", 5.0),
    ]
    summary = run(
        config,
        write_json(tmp_path / "i.jsonl", records),
        write_json(tmp_path / "f.jsonl", events),
        str(tmp_path / "out"),
    )
    counted = summary["impressions"]
    assert (counted["read"], counted["examples"], counted["duplicates"]) == (24, 21, 3)
    assert counted["reconciled"]
    feedback = summary["feedback"]
    assert (feedback["read"], feedback["joined"], feedback["duplicates"]) == (7, 3, 1)
    assert (feedback["orphans"], feedback["ignored"]) == (2, 1)
    assert feedback["by_event"]["orphan"] == {"click": 1, "dismiss": 0, "like": 1, "watch": 0}
    assert feedback["reconciled"]
    mine = [example for example in read_all(config, tmp_path / "out") if example["request_id"] == "r0"]
    # v3 came a second after v2, but stands before it in the log, and bears the request's time.
    assert [(example["item_id"], example["position"]) for example in mine] == [("v1", 1), ("v3", 2), ("v2", 2)]
    assert {example["timestamp_micros"] for example in mine} == {round(first["timestamp"] * 1e6)}
    # Watched without a click: the label is of clicks alone.
    assert [example["watch_time_label"] for example in mine] == [None, None, None]


def test_an_ignored_event_may_have_any_name(config: Config, tmp_path: Path):
    # JSON's own escapes, which leave half of a surrogate pair as it is.
    lines = [json.dumps(event(0, "v1", name)) for name in ("share", "\ud83d", "caf\u00e9")]
    (tmp_path / "f.jsonl").write_text("\n".join(lines), encoding="ascii")
    shown = write_json(tmp_path / "i.jsonl", [request(number, ["v1"]) for number in range(10)])
    feedback = run(config, shown, str(tmp_path / "f.jsonl"), str(tmp_path / "out"))["feedback"]
    assert feedback["by_event"]["ignored"] == {"share": 1, "\\ud83d": 1, "caf\u00e9": 1}


def test_a_regression_without_event_may_mean_zero(tmp_path: Path):
    raw = small_config()
    raw["objectives"][1] = {**raw["objectives"][1], "given": None, "without_event": "zero"}
    config = parse_config(raw)
    records = [request(number, ["v1"]) for number in range(10)]
    events = [event(3, "v1", "watch", 7.0), event(3, "v1", "watch", 2.5, delay=9.0)]
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)
    run(config, *paths, str(tmp_path / "out"))
    labels = [example["watch_time_label"] for example in read_all(config, tmp_path / "out")]
    assert labels == [0.0, 0.0, 0.0, 9.5, *[0.0] * 6]


def test_explicit_start_times(tmp_path: Path):
    raw = small_config()
    raw["split"] = {"validation_start": "2022-04-27T00:03:00.5Z", "test_start": "2022-04-27T00:05:00.500001Z"}
    config = parse_config(raw)
    records = [request(number, ["v1"]) for number in range(10)]
    run(config, write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", []), str(tmp_path / "out"))
    requests = [
        [e["request_id"] for e in read_split(config, tmp_path / "out", split)] for split in ("train", "validation")
    ]
    assert requests == [["r0", "r1", "r2"], ["r3", "r4", "r5"]]


def test_rates_by_position_and_device(config: Config, tmp_path: Path):
    records = [request(number, ["v1", "v2"]) for number in range(10)]
    events = [event(number, "v1", "click") for number in (0, 2, 3)]
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)
    slices = run(config, *paths, str(tmp_path / "out"))["slices"]
    rates = {row["position"]: (row["impressions"], row["objectives"]["click"]["mean"]) for row in slices["position"]}
    assert rates == {1: (10, 0.3), 2: (10, 0.0)}
    crossed = {
        (row["position"], row["device"]): (row["impressions"], row["objectives"]["click"])
        for row in slices["position x device"]
    }
    assert crossed[1, "phone"] == (5, {"labelled": 5, "mean": 2 / 5})
    assert crossed[1, "tv"] == (5, {"labelled": 5, "mean": 1 / 5})


def test_a_value_with_a_newline_is_in_no_vocabulary(config: Config, tmp_path: Path):
    records = [request(number, ["v1"], device="two\nlines" if number < 3 else "phone") for number in range(10)]
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", [])
    summary = run(config, *paths, str(tmp_path / "out"))
    assert Statistics.load(tmp_path / "out").vocabularies["device"] == ("phone",)
    assert summary["vocabularies"]["device"] == {"values": 1, "too_rare": 0, "with_newline": 1}
    assert read_all(config, tmp_path / "out")[0]["device"] == "two\nlines"


def test_an_earlier_output_is_replaced(config: Config, tmp_path: Path):
    feedback = write_json(tmp_path / "f.jsonl", [])
    out = tmp_path / "out"
    out.mkdir()
    for count in (30, 10):
        records = [request(number, ["v1"]) for number in range(count)]
        run(config, write_json(tmp_path / "i.jsonl", records), feedback, str(out) + "/")
        assert len(read_all(config, out)) == count
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.jsonl", "i.jsonl", "out"]

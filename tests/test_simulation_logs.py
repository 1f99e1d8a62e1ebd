"""The files of the simulated logs: complete, the same in both forms, without leak, the truth apart."""

import filecmp
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmoe_ranker.config_loading import load_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.simulation import DEVICES, Events, World, WorldConfig, log_files, simulate, write_logs
from mmoe_ranker.simulation.logs import SimulatedLogs, watch_histories

# Few users over many requests, so that histories fill up and are cut.
SMALL = WorldConfig(num_users=40, num_videos=300, history_length=10)
CONTEXT = {"user_id", "country", "tenure_days", "device", "hour", "watch_history", "random_order"}
ITEM = {"video_id", "topic", "uploader_id", "duration", "content"}


@pytest.fixture(scope="module")
def logs() -> SimulatedLogs:
    return simulate(400, seed=11, world=SMALL)


@pytest.fixture(scope="module")
def folder(logs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "logs"
    write_logs(logs, path)
    return path


def json_lines(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def all_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_same_seed_gives_byte_identical_files(folder, tmp_path):
    write_logs(simulate(400, seed=11, world=SMALL), tmp_path / "again")
    names = all_files(folder)
    assert names == [
        "feedback.jsonl",
        "feedback.parquet",
        "impressions.jsonl",
        "impressions.parquet",
        "truth/examination.json",
        "truth/truth.parquet",
        "truth/world.json",
    ]
    assert filecmp.cmpfiles(folder, tmp_path / "again", names, shallow=False) == (names, [], [])


def test_another_seed_gives_other_files(folder, tmp_path):
    write_logs(simulate(400, seed=12, world=SMALL), tmp_path / "other")
    assert filecmp.cmpfiles(folder, tmp_path / "other", ["impressions.jsonl", "feedback.jsonl"], shallow=False)[0] == []


def test_ranked_lists_have_the_shape_of_the_contract(folder, logs):
    records = json_lines(folder / "impressions.jsonl")
    assert len(records) == 400
    assert [record["timestamp"] for record in records] == sorted(record["timestamp"] for record in records)
    assert [record["request_id"] for record in records] == sorted({record["request_id"] for record in records})
    for index, record in enumerate(records):
        assert set(record) == {"request_id", "timestamp", "context", "impressions"}
        assert set(record["context"]) == CONTEXT
        assert record["context"]["user_id"] == f"u{logs.user[index]}"
        assert record["context"]["device"] == DEVICES[logs.device[index]]
        assert record["context"]["random_order"] is bool(logs.random_order[index])
        assert record["context"]["hour"] == int(record["timestamp"] % 86400 // 3600)
        assert [impression["position"] for impression in record["impressions"]] == list(range(1, 21))
        assert [impression["item"]["video_id"] for impression in record["impressions"]] == [
            f"v{video}" for video in logs.shown[index]
        ]
        for impression in record["impressions"]:
            assert set(impression) == {"position", "item"}
            assert set(impression["item"]) == ITEM
            assert len(impression["item"]["content"]) == 16


def test_feedback_joins_on_request_and_item_and_comes_later(folder):
    records = json_lines(folder / "impressions.jsonl")
    shown = {
        (record["request_id"], impression["item"]["video_id"]): (record["timestamp"], impression["item"]["duration"])
        for record in records
        for impression in record["impressions"]
    }
    events = json_lines(folder / "feedback.jsonl")
    assert {event["event"] for event in events} == {"click", "watch", "like", "rating", "dismiss"}
    assert [event["timestamp"] for event in events] == sorted(event["timestamp"] for event in events)
    assert len({(event["request_id"], event["item_id"], event["event"]) for event in events}) == len(events)
    clicks = {}
    for event in events:
        assert set(event) == {"request_id", "item_id", "event", "value", "timestamp"}
        key = event["request_id"], event["item_id"]
        requested, duration = shown[key]
        assert event["timestamp"] >= requested + 1.0
        if event["event"] == "click":
            clicks[key] = event["timestamp"]
        elif event["event"] in ("watch", "like", "rating"):
            assert event["timestamp"] >= clicks[key]
        if event["event"] == "watch":
            assert 0.1 <= event["value"] <= duration
            assert event["timestamp"] - clicks[key] == pytest.approx(event["value"], abs=0.002)


def test_parquet_holds_the_same_impressions(folder):
    rows = [
        {
            "request_id": record["request_id"],
            "timestamp": record["timestamp"],
            "position": impression["position"],
            **record["context"],
            **impression["item"],
        }
        for record in json_lines(folder / "impressions.jsonl")
        for impression in record["impressions"]
    ]
    assert pq.read_table(folder / "impressions.parquet").to_pylist() == rows


def test_parquet_holds_the_same_feedback(folder):
    assert pq.read_table(folder / "feedback.parquet").to_pylist() == json_lines(folder / "feedback.jsonl")


def test_blocks_do_not_show_in_the_files(folder, logs, tmp_path, monkeypatch):
    monkeypatch.setattr(log_files, "_BLOCK", 37)
    write_logs(logs, tmp_path / "blocks")
    for name in ("impressions.jsonl", "feedback.jsonl"):
        assert filecmp.cmp(folder / name, tmp_path / "blocks" / name, shallow=False)
    whole, blocks = (pq.read_table(path / "impressions.parquet") for path in (folder, tmp_path / "blocks"))
    assert whole.equals(blocks)


def test_history_is_what_the_user_had_watched_before_the_request_and_nothing_else(folder):
    requests = json_lines(folder / "impressions.jsonl")
    user_of = {request["request_id"]: request["context"]["user_id"] for request in requests}
    watches = [event for event in json_lines(folder / "feedback.jsonl") if event["event"] == "watch"]
    cut = 0
    for request in requests:
        before = [
            event["item_id"]
            for event in watches
            if event["timestamp"] < request["timestamp"]
            and user_of[event["request_id"]] == request["context"]["user_id"]
        ]
        assert request["context"]["watch_history"] == before[-10:]
        cut += len(before) > 10
    assert cut > 50


def test_a_watch_that_ends_as_the_request_comes_is_not_in_its_history():
    # One user, three requests; video 7 is watched until exactly 20.0, video 8 until 20.5.
    events = Events(
        request=np.array([0, 0]),
        slot=np.array([1, 0]),
        kind=np.array([1, 1]),
        value=np.array([5.0, 5.0]),
        timestamp=np.array([20.0, 20.5]),
    )
    shown = np.array([[8, 7], [1, 2], [3, 4]])
    histories = watch_histories(np.array([10.0, 20.0, 20.001]), np.zeros(3, dtype=int), shown, events, max_length=5)
    found = [histories.videos[begin:end].tolist() for begin, end in zip(histories.begin, histories.end, strict=True)]
    assert found == [[], [], [7]]


def test_truth_stands_apart_and_matches_the_world(folder, logs):
    truth = pq.read_table(folder / "truth" / "truth.parquet").to_pydict()
    shown = pq.read_table(folder / "impressions.parquet").to_pydict()
    for key in ("request_id", "video_id"):
        assert truth[key] == shown[key]
    user = np.array([int(name[1:]) for name in shown["user_id"]])
    video = np.array([int(name[1:]) for name in shown["video_id"]])
    device = np.array([DEVICES.index(name) for name in shown["device"]])
    made_of = json.loads((folder / "truth" / "world.json").read_text())
    world = World(WorldConfig(**made_of["world"]), made_of["seed"])
    preferences = world.preferences(user, video, device)
    assert truth["relevance"] == world.relevance(user, video).tolist()
    assert truth["examination"] == world.examination(device, np.array(shown["position"])).tolist()
    for name in ("expected_watch", "like_probability", "dismiss_probability"):
        assert truth[name] == getattr(preferences, name).tolist()
    curves = json.loads((folder / "truth" / "examination.json").read_text())
    assert list(curves) == list(DEVICES)
    for place in range(0, len(video), 97):
        assert truth["examination"][place] == curves[shown["device"][place]][shown["position"][place] - 1]


def test_logs_name_nothing_of_the_truth(folder):
    columns = set(pq.read_schema(folder / "impressions.parquet").names)
    assert columns == {"request_id", "timestamp", "position"} | CONTEXT | ITEM
    truth = set(pq.read_schema(folder / "truth" / "truth.parquet").names) - {"request_id", "video_id"}
    assert truth == {"relevance", "examination", "expected_watch", "like_probability", "dismiss_probability"}
    latent = {"quality", "clickbait", "boost", "taste", "factors", "generosity", "upload_timestamp"}
    assert not columns & (truth | latent)


def test_the_preset_names_exactly_what_the_world_logs():
    config = load_config("watch_next")
    assert {feature.name for feature in config.side("context")} == CONTEXT - {"random_order"}
    assert {feature.name for feature in config.side("candidate")} == ITEM
    assert [feature.name for feature in config.side("bias")] == ["position"]
    assert {objective.event for objective in config.objectives} == {"click", "watch", "like", "rating", "dismiss"}
    default = WorldConfig()
    assert config.feature("position").size == default.positions
    assert config.feature("content").size == default.content_size
    assert config.feature("watch_history").max_length == default.history_length


def test_simulated_logs_are_replaced(logs, folder, tmp_path):
    target = tmp_path / "logs"
    write_logs(simulate(5, seed=1, world=SMALL), target)
    write_logs(logs, target)
    names = all_files(folder)
    assert filecmp.cmpfiles(folder, target, names, shallow=False) == (names, [], [])
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


@pytest.mark.parametrize("existed", [False, True])
def test_a_failure_leaves_what_was_there_before(logs, tmp_path, monkeypatch, existed):
    target = tmp_path / "logs"
    if existed:
        write_logs(simulate(5, seed=1, world=SMALL), target)
    before = {name: (target / name).read_bytes() for name in all_files(target)}

    def disk_is_full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log_files, "_write_truth", disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        write_logs(logs, target)
    assert [path.name for path in tmp_path.iterdir()] == (["logs"] if existed else [])
    assert {name: (target / name).read_bytes() for name in all_files(target)} == before


def test_a_folder_of_other_things_is_refused(logs, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(
        InputError, match=r"must be new, empty, or hold nothing but .* Received: .*'thesis.txt' in it\."
    ):
        write_logs(logs, tmp_path)
    with pytest.raises(InputError, match=r"Received: .*'thesis.txt' in it\."):
        write_logs(logs, tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_without_pyarrow(logs, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"need pyarrow .* Received: no pyarrow\."):
        write_logs(logs, tmp_path / "logs")
    assert list(tmp_path.iterdir()) == []

"""The job on logs and folders that it refuses, and when it is stopped: one sentence, and nothing half-written."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.errors import InputError
from pipelines import impressions as job
from pipelines import output_folder
from pipelines.impressions import run
from tests.configs import small_config
from tests.pipelines.logs import random_logs, request, write_json
from tests.pipelines.reading import content_of, read_all


@pytest.fixture
def logs(tmp_path: Path) -> tuple[str, str]:
    records, events = random_logs()
    return write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)


def refused(tmp_path: Path, config: Config, impressions: str, feedback: str, arguments=(), out: str = "out") -> str:
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InputError) as error:
        run(config, impressions, feedback, str(tmp_path / out), arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "something was left behind"
    assert "Received: " in str(error.value)
    assert "\n" not in str(error.value)
    assert "while running" not in str(error.value)
    return str(error.value)


def test_missing_files(config: Config, logs, tmp_path: Path):
    missing = str(tmp_path / "no-*.jsonl")
    assert "The impressions log must be a path or glob that matches" in refused(tmp_path, config, missing, logs[1])
    assert "The feedback log must be a path or glob that matches" in refused(tmp_path, config, logs[0], missing)


def test_unknown_kind_of_file(config: Config, logs, tmp_path: Path):
    (tmp_path / "i.csv").write_text("a,b\n")
    assert "allowed endings: .jsonl, .json" in refused(tmp_path, config, str(tmp_path / "i.csv"), logs[1])


def test_broken_files(config: Config, logs, tmp_path: Path):
    whole = write_json(tmp_path / "whole.jsonl.gz", random_logs()[0])
    (tmp_path / "cut.jsonl.gz").write_bytes(Path(whole).read_bytes()[:-50])
    assert "must be whole gzip files (cut short)" in refused(tmp_path, config, str(tmp_path / "cut.jsonl.gz"), logs[1])
    (tmp_path / "bad.jsonl.gz").write_bytes(b"not gzip at all")
    assert "must be whole gzip files (" in refused(tmp_path, config, str(tmp_path / "bad.jsonl.gz"), logs[1])
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    assert "must be Parquet" in refused(tmp_path, config, str(tmp_path / "bad.parquet"), logs[1])


@pytest.mark.parametrize("content", ["", "\n\n", '{"request_id": "r1"}\n'])
def test_empty_logs(config: Config, logs, tmp_path: Path, content: str):
    (tmp_path / "empty.jsonl").write_text(content)
    message = refused(tmp_path, config, str(tmp_path / "empty.jsonl"), logs[1])
    assert "must hold at least one valid impression" in message


def test_empty_training_split(logs, tmp_path: Path):
    raw = small_config()
    raw["split"] = {"validation_start": "2020-01-01T00:00:00Z", "test_start": "2020-01-02T00:00:00Z"}
    assert "must leave impressions for training" in refused(tmp_path, parse_config(raw), *logs)


def test_a_feature_that_no_record_has(logs, tmp_path: Path):
    raw = small_config()
    raw["features"].append({"name": "country", "side": "context", "kind": "categorical", "vocabulary": "auto"})
    message = refused(tmp_path, parse_config(raw), *logs)
    assert message.startswith(
        "The feature `country` must stand in at least one record of the impressions log, in context."
    )


def test_a_feature_that_some_records_lack(config: Config, tmp_path: Path):
    records = [request(number, ["v1"]) for number in range(10)]
    del records[2]["context"]["device"]
    records[3]["impressions"][0]["item"]["duration"] = None
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", [])
    summary = run(config, *paths, str(tmp_path / "out"))
    assert (summary["missing"]["device"], summary["missing"]["duration"], summary["missing"]["user_id"]) == (1, 1, 0)
    examples = read_all(config, tmp_path / "out")
    assert (examples[2]["device"], examples[3]["duration"]) == (None, None)


def test_no_position_at_all(tmp_path: Path):
    raw = small_config()
    raw["features"] = [feature for feature in raw["features"] if feature["name"] != "position"]
    raw["model"]["bias"] = {"kind": "none"}
    records = [request(number, ["v2", "v1"]) for number in range(10)]
    for record in records:
        for impression in record["impressions"]:
            del impression["position"]
    config = parse_config(raw)
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", [])
    run(config, *paths, str(tmp_path / "out"))
    # Without positions the order of the log stands.
    assert [example["item_id"] for example in read_all(config, tmp_path / "out")] == ["v2", "v1"] * 10


def test_unknown_and_wrong_options(config: Config, logs, tmp_path: Path):
    assert "Received: '--no_such_option=3'" in refused(tmp_path, config, *logs, ["--no_such_option=3"])
    assert "direct_num_workers" in refused(tmp_path, config, *logs, ["--direct_num_workers=many"])
    assert "--num_shards" in refused(tmp_path, config, *logs, ["--num_shards=0"])
    assert "Received: 'NoRunner'" in refused(tmp_path, config, *logs, ["--runner=NoRunner"])


def test_a_folder_that_is_not_ours_is_not_touched(config: Config, logs, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    assert "which holds something else" in refused(tmp_path, config, *logs, out="mine")
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("x")
    assert "must be a folder" in refused(tmp_path, config, *logs, out="file")


def test_a_full_disk(config: Config, logs, tmp_path: Path, monkeypatch):
    def full(path: str, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    # In a step of the pipeline, whose errors come back as text, and after it.
    for step in ("_WritePart", "_finish"):
        with monkeypatch.context() as patched:
            patched.setattr(job, "write_file", full)
            if step == "_finish":
                patched.setattr(job, "run_and_wait", lambda _: full("totals", b""))
            before = sorted(path.name for path in tmp_path.iterdir())
            with pytest.raises(OSError, match="No space left on device") as error:
                run(config, *logs, str(tmp_path / "out"))
            assert error.value.errno == errno.ENOSPC
            assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_failure_at_the_end_leaves_the_earlier_output(config: Config, logs, tmp_path: Path, monkeypatch):
    run(config, *logs, str(tmp_path / "out"))
    before = content_of(tmp_path)
    monkeypatch.setattr(job, "summarise", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(config, *logs, str(tmp_path / "out"))
    assert content_of(tmp_path) == before


@pytest.mark.slow
def test_a_killed_run_leaves_no_output_and_the_next_one_clears_up(config: Config, logs, tmp_path: Path):
    script = (
        "import time, pipelines.impressions as job; from mmoe_ranker.config_loading import parse_config;"
        "from tests.configs import small_config;"
        "job.summarise = lambda *_: time.sleep(60);"
        f"job.run(parse_config(small_config()), {logs[0]!r}, {logs[1]!r}, {str(tmp_path / 'out')!r})"
    )
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", script], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".out.*/config.yaml")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert list(tmp_path.glob(".out.*/config.yaml"))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "out").exists()
    run(config, *logs, str(tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.jsonl", "i.jsonl", "out"]
    assert output_folder.FORMAT in (tmp_path / "out/summary.json").read_text()

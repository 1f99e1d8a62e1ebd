"""The same logs give the same bytes; a rerun replaces at once; a killed run leaves the old output or the new one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mmoe_ranker.config import Config
from pipelines import output_folder
from pipelines.impressions import run
from pipelines.output_folder import FORMAT, SUMMARY, write_file, writing_beside
from tests.pipelines.logs import event, random_logs, request, write_flat_impressions, write_json, write_nested
from tests.pipelines.reading import content_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_files_workers_and_the_order_of_records_change_no_byte(config: Config, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("pipelines.log_blocks.BLOCK_BYTES", 3000)
    records, events = random_logs(seed=5)
    # Repetitions, an orphan, an early event, and a request in two records.
    events += [
        events[3],
        events[3],
        event(77, "v1", "like"),
        event(2, records[2]["impressions"][0]["item"]["video_id"], "click", delay=-50.0),
    ]
    second = {**request(5, ["v50", "v51"]), "timestamp": records[5]["timestamp"] + 3.0}
    for place, impression in enumerate(second["impressions"], start=10):
        impression["position"] = place
    records.append(second)
    runs: dict[str, tuple[str, str, list[str]]] = {
        "one": (write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events), []),
    }
    rng = np.random.default_rng(6)
    (tmp_path / "many").mkdir()
    for log, rows in (("i", records), ("f", events)):
        shuffled = [rows[place] for place in rng.permutation(len(rows))]
        for part, ending in enumerate(("jsonl", "json.gz", "json")):
            write_json(tmp_path / f"many/{log}-{part}.{ending}", shuffled[part::3])
    many = str(tmp_path / "many/i-*"), str(tmp_path / "many/f-*")
    runs["shuffled over three files"] = (*many, [])
    workers = ["--direct_num_workers", "3", "--direct_running_mode"]
    runs["three threads"] = (*many, [*workers, "multi_threading"])
    flat = write_flat_impressions(tmp_path / "flat.parquet", records[::-1])
    # The first row names the columns.
    table = write_nested(tmp_path / "f.parquet", sorted(events, key=lambda one: "value" not in one))
    runs["three processes"] = (flat, table, [*workers, "multi_processing"])
    contents = {}
    for name, (impressions, feedback, arguments) in runs.items():
        summary = run(config, impressions, feedback, str(tmp_path / name), ["--num_shards", "5", *arguments])
        # Of a flat table the records are impressions.
        del summary["impressions"]["records"]
        contents[name] = {**content_of(tmp_path / name), SUMMARY: json.dumps(summary).encode()}
        assert (summary["feedback"]["duplicates"], summary["feedback"]["early"]) == (2, 1), name
    for name in runs:
        assert contents[name] == contents["one"], name


def test_a_reader_sees_one_version_whole_while_reruns_replace_it(tmp_path: Path):
    out = tmp_path / "out"

    def write(version: int) -> None:
        with writing_beside(str(out)) as folder:
            for part in range(version % 7, 12):
                write_file(f"{folder}/train/part-{part}", b"%d" % version)
            write_file(f"{folder}/{SUMMARY}", json.dumps({"format": FORMAT, "version": version}).encode())

    write(0)
    done, seen, wrong = threading.Event(), set(), []

    def version_of_folder() -> tuple[int, int]:
        # Numbers of inodes are used again.
        return os.stat(out).st_ino, os.stat(out).st_ctime_ns

    def read() -> None:
        while not done.is_set():
            # A folder once opened is read to its end, whatever takes its place; what is removed meanwhile is missed.
            before = version_of_folder()
            try:
                version = json.loads((out / SUMMARY).read_bytes())["version"]
                parts = {path.name: path.read_bytes() for path in (out / "train").iterdir()}
            except FileNotFoundError as error:
                if version_of_folder() == before:
                    wrong.append(str(error))
                continue
            if version_of_folder() == before:
                seen.add(version)
                if parts != {f"part-{part}": b"%d" % version for part in range(version % 7, 12)}:
                    wrong.append(f"{version}: {parts}")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for version in range(1, 150):
            write(version)
    finally:
        done.set()
        reader.join()
    assert not wrong
    assert len(seen) > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path):
    for log, seed in (("a", 1), ("b", 2)):
        records, events = random_logs(seed)
        write_json(tmp_path / f"{log}.jsonl", records)
    write_json(tmp_path / "f.jsonl", events)
    killing = [sys.executable, "-m", "tests.pipelines.killing", str(tmp_path), "8", "6"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(killing, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = done.stdout.split("\n")[:-1]
    assert "half" not in done.stdout
    assert set(found[:6]) <= {"nothing", "a", "b"}
    assert found[6:] == ["_exchange a for a", "_exchange b for b", "remove b for b", "at last a"]
    # What the killed ones left is gone.
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("a.jsonl", "b.jsonl", "f.jsonl", "out", "whole-a", "whole-b")
    ]


def test_what_a_killed_run_left_goes_whatever_the_name_of_the_output(tmp_path: Path, monkeypatch):
    # A process of this number cannot be: what bears it is of nobody who lives.
    left = tmp_path / f".out[1].{2**31}-0123abcd"
    left.mkdir()
    monkeypatch.setattr(output_folder, "_exchange", lambda *_: False)
    monkeypatch.setattr(os, "getpid", lambda: 2**31)
    for version in (1, 2):
        with writing_beside(str(tmp_path / "out[1]")) as folder:
            write_file(f"{folder}/{SUMMARY}", json.dumps({"format": FORMAT, "version": version}).encode())
            assert not left.exists()
    # Killed between taking the old output away and removing it, where folders cannot be exchanged.
    monkeypatch.setattr(output_folder, "remove", lambda _: None)
    with writing_beside(str(tmp_path / "out[1]")) as folder:
        write_file(f"{folder}/{SUMMARY}", json.dumps({"format": FORMAT, "version": 3}).encode())
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.undo()
    with writing_beside(str(tmp_path / "out[1]")) as folder:
        write_file(f"{folder}/{SUMMARY}", json.dumps({"format": FORMAT, "version": 4}).encode())
    assert [path.name for path in tmp_path.iterdir()] == ["out[1]"]


@pytest.mark.slow
def test_workers_end_with_a_job_that_is_killed(tmp_path: Path):
    records, events = random_logs()
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)
    script = (
        "import pipelines.impressions as job; from mmoe_ranker.config_loading import parse_config;"
        "from tests.configs import small_config;"
        f"job.run(parse_config(small_config()), {paths[0]!r}, {paths[1]!r}, {str(tmp_path / 'out')!r},"
        "['--direct_num_workers=2', '--direct_running_mode=multi_processing'])"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        workers: set[Path] = set()
        while len(workers) < 2 and process.poll() is None:
            time.sleep(0.05)
            workers = workers_of(process.pid)
        assert len(workers) == 2
        # Beyond the start of Python itself, which nobody can watch over.
        time.sleep(1.0)
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 30
    while any(worker.exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [worker for worker in workers if worker.exists()]


def workers_of(parent: int) -> set[Path]:
    """The folders in /proc of the parent's worker processes."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mine = f"\nPPid:\t{parent}\n" in (folder / "status").read_text()
            if mine and b"pipelines.quiet_worker" in (folder / "cmdline").read_bytes():
                found.add(folder)
    return found

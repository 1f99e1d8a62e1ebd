"""Logs and examples on a file system of Beam's that is no disk: listed, read, written, renamed, replaced, refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from pipelines.impressions import run
from pipelines.log_blocks import list_blocks
from tests.pipelines.logs import event, random_logs, request, write_flat_impressions, write_json, write_nested
from tests.pipelines.memory_files import MemoryFileSystem
from tests.pipelines.reading import content_of

SHARDS = ["--num_shards", "3"]


@pytest.fixture
def files() -> dict[str, bytes]:
    MemoryFileSystem.empty()
    return MemoryFileSystem.files


def upload(path: str) -> str:
    name = Path(path).name
    MemoryFileSystem.files[f"mem://logs/day/{name}"] = Path(path).read_bytes()
    return f"mem://logs/day/{name}"


def in_folder(folder: str) -> dict[str, bytes]:
    return {path[len(folder) + 1 :]: data for path, data in MemoryFileSystem.files.items() if path.startswith(folder)}


def test_another_file_system_gives_the_bytes_of_the_disk(config: Config, tmp_path: Path, files: dict[str, bytes]):
    records, events = random_logs()
    records[3] = {**records[3], "timestamp": "yesterday"}
    half = len(records) // 2
    local = [
        write_json(tmp_path / "i-0.jsonl", records[:half]),
        write_json(tmp_path / "i-1.jsonl.gz", records[half:]),
        write_nested(tmp_path / "f.parquet", events),
    ]
    for path in local:
        upload(path)
    run(config, str(tmp_path / "i-*"), local[2], str(tmp_path / "disk"), SHARDS)
    run(config, "mem://logs/day/i-*", "mem://logs/day/f.parquet", "mem://examples/today", SHARDS)
    expected, written = content_of(tmp_path / "disk"), in_folder("mem://examples/today")
    # A dead letter names the file that it is from.
    dead = [name for name in expected if name.startswith("dead_letters/")]
    assert dead == [name for name in written if name.startswith("dead_letters/")] == [dead[0]]
    assert expected.pop(dead[0]).replace(str(tmp_path).encode(), b"mem://logs/day") == written.pop(dead[0])
    assert written == expected
    # Nothing is left beside it, and the summary, which says that the rest is complete, came last.
    assert {path.split("/")[3] for path in files if path.startswith("mem://examples/")} == {"today"}
    renamed = [path for what, path in MemoryFileSystem.log if what == "rename"]
    assert renamed[-1] == "mem://examples/today/summary.json"


@pytest.mark.parametrize("refuse", [("create", "part-"), ("rename", "part-")])
def test_a_failure_midway_leaves_no_half_output(
    config: Config, tmp_path: Path, files: dict[str, bytes], refuse: tuple[str, str]
):
    one = upload(write_flat_impressions(tmp_path / "i.parquet", [request(n, ["v1", "v2"]) for n in range(10)]))
    feedback = upload(write_json(tmp_path / "f.json", [event(1, "v1", "click")]))
    other = upload(write_json(tmp_path / "other.json", [request(n, ["v1", "v3"]) for n in range(12)]))
    out = "mem://examples/today"
    run(config, one, feedback, out, SHARDS)
    before = in_folder(out)
    MemoryFileSystem.refuse = refuse
    with pytest.raises(Exception, match="out of order"):
        run(config, other, feedback, out, SHARDS)
    MemoryFileSystem.refuse = None
    after = in_folder(out)
    if refuse[0] == "create":
        assert after == before
    else:
        # Object stores have no renaming of a folder: until the summary is there, nothing counts.
        assert "summary.json" not in after
    assert not [path for path in files if path.startswith("mem://examples/.")]
    run(config, other, feedback, out, SHARDS)
    again = in_folder(out)
    run(config, other, feedback, "mem://examples/new", SHARDS)
    assert again == in_folder("mem://examples/new") != before


def test_a_folder_that_no_run_wrote_is_not_replaced(config: Config, tmp_path: Path, files: dict[str, bytes]):
    logs = [upload(write_json(tmp_path / "i.json", [request(1, ["v1"])])), upload(write_json(tmp_path / "f.json", []))]
    files["mem://examples/today/thesis.tex"] = b"years of work"
    with pytest.raises(InputError, match=r"one that an earlier run wrote\. Received: 'mem://examples/today'"):
        run(config, *logs, "mem://examples/today")
    assert in_folder("mem://examples/today") == {"thesis.tex": b"years of work"}


@pytest.mark.parametrize("path", ["gs://bucket/logs-*.jsonl", "hdfs://host/logs-*.jsonl", "nowhere://x/logs.jsonl"])
def test_a_file_system_that_is_not_installed_is_refused(config: Config, tmp_path: Path, path: str):
    if path.startswith("gs:"):
        with contextlib.suppress(ImportError):
            import google.cloud.storage  # noqa: F401

            pytest.skip("the extra `bigquery`, which brings gs://, is installed")
    with pytest.raises(InputError, match=r"path or glob of files that can be listed \(.*install.*\)\. Received: '"):
        list_blocks("impressions", path)
    good = write_json(tmp_path / "i.json", [request(1, ["v1"])])
    with pytest.raises(InputError, match=r"folder of a file system that is installed .*install.*\)\. Received: '"):
        run(config, good, good, path)


@pytest.mark.parametrize("ending", [".csv", ".jsonl.bz2", ".jsonl.zst", ".json.lz4", ".avro", ".parquet.gz", ""])
def test_other_endings_are_refused(files: dict[str, bytes], ending: str):
    files[f"mem://logs/x{ending}"] = b"{}"
    with pytest.raises(
        InputError, match=r"must be JSON lines or Parquet; allowed endings: \.jsonl, .* Received: 'mem:"
    ):
        list_blocks("feedback", f"mem://logs/x{ending}")

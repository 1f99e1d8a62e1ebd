"""Runners that can be had on one machine, a worker that is killed midway, and the graph as other runners take it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import StandardOptions
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.portability.spark_runner import SparkRunner

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from pipelines import impressions as job
from pipelines import lost_workers
from pipelines.impressions import run
from pipelines.running import JobFailed, check_paths, parse_options, run_and_wait
from tests.pipelines.logs import random_logs, write_flat_impressions, write_json, write_nested
from tests.pipelines.memory_files import MemoryFileSystem
from tests.pipelines.reading import content_of

EMBEDDED = ["--runner=PortableRunner", "--job_endpoint=embed"]
SHARDS = ["--num_shards=3"]


@pytest.fixture
def logs(tmp_path: Path) -> list[str]:
    records, events = random_logs()
    records[3] = {**records[3], "timestamp": "yesterday"}
    return [write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)]


@pytest.fixture
def worker_pool() -> Iterator[int]:
    """The port of a pool of worker processes, on this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as pool:
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("localhost", port)) == 0:
                        break
                time.sleep(0.1)
            yield port
        finally:
            pool.terminate()


def test_the_portable_runner_gives_the_same_bytes(config: Config, tmp_path: Path, logs: list[str]):
    run(config, *logs, str(tmp_path / "local"), SHARDS)
    run(config, *logs, str(tmp_path / "portable"), [*SHARDS, *EMBEDDED, "--environment_type=LOOPBACK"])
    assert content_of(tmp_path / "local") == content_of(tmp_path / "portable")
    with pytest.raises(InputError, match=r"^The impressions log must hold at least one valid impression"):
        run(config, logs[1], logs[1], str(tmp_path / "bad"), [*EMBEDDED, "--environment_type=LOOPBACK"])
    assert not (tmp_path / "bad").exists()


@pytest.mark.slow
def test_a_worker_pool_gives_the_same_bytes(config: Config, tmp_path: Path, logs: list[str], worker_pool: int):
    run(config, *logs, str(tmp_path / "local"), SHARDS)
    pool = ["--environment_type=EXTERNAL", f"--environment_config=localhost:{worker_pool}"]
    run(config, *logs, str(tmp_path / "pool"), [*SHARDS, *EMBEDDED, *pool])
    assert content_of(tmp_path / "local") == content_of(tmp_path / "pool")


class KillWorker(beam.DoFn):
    """Kills the process that it runs in, as a machine that is out of memory does, unless a file says that it did."""

    def process(self, element: Any, done: str) -> Iterator[Any]:
        if not Path(done).exists():
            Path(done).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield element


@pytest.mark.slow
def test_a_worker_killed_midway_ends_the_run_and_leaves_nothing(
    config: Config, tmp_path: Path, logs: list[str], monkeypatch
):
    run(config, *logs, str(tmp_path / "expected"), SHARDS)
    workers = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    encode = job.BuildExamples.expand

    def with_a_murderer(self: Any, blocks: Any) -> Any:
        built = encode(self, blocks)
        killed = built["parts"] | "Kill" >> beam.ParDo(KillWorker(), str(tmp_path / "killed"))
        return {**built, "parts": killed}

    monkeypatch.setattr(job.BuildExamples, "expand", with_a_murderer)
    out = tmp_path / "new" / "out"
    started = time.monotonic()
    with pytest.raises(ChildProcessError, match=lost_workers.LOST):
        run(config, *logs, str(out), [*SHARDS, *workers])
    assert time.monotonic() - started < 60
    assert (tmp_path / "killed").exists()
    assert list(out.parent.iterdir()) == []
    run(config, *logs, str(out), SHARDS)
    assert content_of(out) == content_of(tmp_path / "expected")


def test_a_worker_that_never_connects_ends_the_run(config: Config, tmp_path: Path, logs: list[str], monkeypatch):
    monkeypatch.setattr("pipelines.running.sys.executable", "/bin/false")
    with pytest.raises(ChildProcessError, match=lost_workers.LOST):
        run(config, *logs, str(tmp_path / "out"), ["--direct_num_workers=2", "--direct_running_mode=multi_processing"])
    monkeypatch.setattr(lost_workers, "_SECONDS_TO_CONNECT", 0.2)
    lost = threading.Event()
    monkeypatch.setattr(lost_workers._WatchedConnection, "lose", lambda _: lost.set())
    lost_workers._WatchedConnection()
    assert lost.wait(5)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([*EMBEDDED, "--environment_type=EXTERNAL", "--environment_config=localhost:9"], "failed to connect"),
        (["--runner=PortableRunner"], "must specify a --job_endpoint"),
        (["--runner=PortableRunner", "--job_endpoint=localhost:9", "--job_server_timeout=1"], "does not answer"),
        (["--runner=FlinkRunner", "--flink_job_server_jar=nowhere.jar"], "make sure the file exists"),
    ],
)
def test_a_runner_that_cannot_run_it_says_why(
    config: Config, tmp_path: Path, logs: list[str], arguments: list[str], reason: str
):
    with pytest.raises((InputError, JobFailed), match=reason) as error:
        run(config, *logs, str(tmp_path / "out"), arguments)
    assert "\n" not in str(error.value)
    if isinstance(error.value, InputError):
        name = arguments[0].split("=")[1]
        assert str(error.value).startswith("The runner must be there and have the options that it needs (")
        assert str(error.value).endswith(f"Received: --runner {name}.")
    assert not (tmp_path / "out").exists()


def test_dataflow_needs_paths_that_its_workers_reach():
    options = parse_options(["--runner=DataflowRunner"])
    check_paths(options, ["gs://bucket/logs", "bigquery://p.d.t", "gs://bucket/out"])
    with pytest.raises(InputError, match=r"must be of a file system that its workers reach, .*Received: '/tmp/logs'\."):
        check_paths(options, ["gs://bucket/logs", "/tmp/logs"])
    check_paths(parse_options([]), ["/tmp/logs"])


def test_an_output_that_no_worker_wrote_to_is_refused(config: Config, tmp_path: Path, logs: list[str], monkeypatch):
    # As on a cluster, where each worker has a disk of its own.
    monkeypatch.setattr(job, "run_and_wait", lambda _: None)
    with pytest.raises(InputError, match=r"file system that the workers share .* nothing of theirs arrived\."):
        run(config, *logs, str(tmp_path / "out"))


def captured(config: Config, monkeypatch, tmp_path: Path, arguments: list[str]) -> beam.Pipeline:
    """The pipeline of a run on files of memory, not run."""
    MemoryFileSystem.empty()
    records, events = random_logs()
    for name, path in [
        ("i", write_flat_impressions(tmp_path / "i.parquet", records)),
        ("f", write_nested(tmp_path / "f.parquet", events)),
    ]:
        MemoryFileSystem.files[f"mem://logs/{name}.parquet"] = Path(path).read_bytes()
    seen: list[beam.Pipeline] = []
    monkeypatch.setattr(job, "run_and_wait", seen.append)
    with pytest.raises(InputError, match="nothing of theirs arrived"):
        run(config, "mem://logs/i.parquet", "mem://logs/f.parquet", "mem://out/today", arguments)
    return seen[0]


@pytest.mark.parametrize("runner", [FlinkRunner, SparkRunner, PortableRunner])
def test_the_graph_is_whole_and_names_no_path_of_this_machine(
    config: Config, tmp_path: Path, monkeypatch, runner: type[PortableRunner]
):
    arguments = [f"--runner={runner.__name__}", "--environment_type=DOCKER", "--environment_config=registry/image:1"]
    pipeline = captured(config, monkeypatch, tmp_path, arguments)
    # What these runners send to their job server: typed, combiners lifted, stages sorted.
    proto = runner.get_proto_pipeline(pipeline, pipeline.options)
    data = proto.SerializeToString()
    for folder in (str(tmp_path), str(Path(__file__).parents[2])):
        assert folder.encode() not in data
    environments = proto.components.environments.values()
    assert {environment.urn for environment in environments} == {"beam:env:docker:v1"}
    assert any(b"registry/image:1" in environment.payload for environment in environments)
    # Every step unpickles from the proto alone, and grouping goes by keys whose bytes are a function of their value.
    again = beam.Pipeline.from_runner_api(pipeline.to_runner_api(), pipeline.runner, pipeline.options)
    assert again.transforms_stack[0].parts
    context = PipelineContext(proto.components)
    grouped = [one for one in proto.components.transforms.values() if one.spec.urn == "beam:transform:group_by_key:v1"]
    assert len(grouped) >= 4
    for transform in grouped:
        [collection] = transform.inputs.values()
        coder = context.coders.get_by_id(proto.components.pcollections[collection].coder_id)
        coder.key_coder().as_deterministic_coder(transform.unique_name)


def test_the_documented_commands_have_options_that_beam_knows():
    text = (Path(__file__).parents[2] / "docs" / "running_the_pipeline.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE))
    commands = [
        shlex.split(line) for line in blocks.replace("\\\n", " ").splitlines() if "mmoe-ranker examples" in line
    ]
    known = {"--config", "--impressions", "--feedback", "--out"}
    runners = set()
    for command in commands:
        arguments = [word for word in command[2:] if word != "…"]
        for name in known & set(arguments):
            place = arguments.index(name)
            del arguments[place : place + 2]
        runners.add(parse_options(arguments).view_as(StandardOptions).runner)
    assert {"PortableRunner", "DataflowRunner", "FlinkRunner", "SparkRunner", None} <= runners
    assert len(commands) >= 8


def test_the_options_of_a_runner_are_checked_by_it():
    class Fussy(beam.runners.runner.PipelineRunner):
        def run_pipeline(self, pipeline: beam.Pipeline, options: Any) -> Any:
            raise ValueError("no region")

    pipeline = beam.Pipeline(runner=Fussy(), options=parse_options(["--runner=tests.Fussy"]))
    with pytest.raises(InputError, match=re.escape("(no region). Received: --runner tests.Fussy.")):
        run_and_wait(pipeline)

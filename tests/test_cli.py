"""The command line as users meet it: processes, exit status, one sentence on standard error."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmoe_ranker.cli import main
from mmoe_ranker.demo import request_from_examples
from tests.configs import TWO_OBJECTIVES
from tests.conftest import TinyWorld

pytestmark = pytest.mark.slow


def run(*arguments: object, stdin: str | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmoe_ranker", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
    )


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The console script in this process, for what `run` would spend on importing TensorFlow once more."""

    def run_here(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["mmoe-ranker", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            main()
        return subprocess.CompletedProcess(arguments, exited.value.code, *capsys.readouterr())  # type: ignore[arg-type]

    return run_here


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence that a refused command says; fails where there is more, or another status."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("mmoe-ranker: ")
    return lines[0].removeprefix("mmoe-ranker: ")


@pytest.fixture(scope="module")
def request_file(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("request") / "request.json"
    file.write_text(json.dumps(request_from_examples(tiny_world.config, tiny_world.examples)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def target(tiny_world: TinyWorld) -> Iterator[str]:
    command = [sys.executable, "-m", "mmoe_ranker", "serve", "--models", str(tiny_world.models), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1].rstrip(".")
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_help_and_version() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("simulate", "examples", "train", "evaluate", "export", "score", "serve", "rank", "demo"):
        assert re.search(rf"^  {command}\b", done.stdout, re.MULTILINE)
    assert run("--version").stdout.startswith("mmoe-ranker, version ")


def test_the_main_job_by_its_commands(tmp_path: Path, run_here: Callable[..., Any]) -> None:
    overrides = [*TWO_OBJECTIVES, "model.hidden=[16]", "training.batch_size=128", "training.epochs=1"]
    small = [argument for override in overrides for argument in ("--set", override)]
    logs, examples = tmp_path / "logs", tmp_path / "examples"
    assert run("simulate", "--out", logs, "--requests", 100, "--seed", 2).returncode == 0
    files = ["--impressions", logs / "impressions.jsonl", "--feedback", logs / "feedback.jsonl"]
    done = run("examples", "--config", "watch_next", *files, "--out", examples)
    assert done.returncode == 0, done.stderr
    assert "train: 1,600 examples" in done.stdout
    train = ["train", "--config", "watch_next", "--examples", examples, "--workdir", tmp_path / "w", *small]
    done = run(*train)
    assert done.returncode == 0, done.stderr
    assert "Trained 13 steps" in done.stdout
    again = run_here(*train)
    assert again.returncode == 0
    assert "Nothing to do" in again.stdout
    assert "of 13 steps, finished" in again.stdout
    done = run("evaluate", "--workdir", tmp_path / "w", "--examples", examples, "--json", tmp_path / "report.json")
    assert done.returncode == 0, done.stderr
    assert "by position" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["split"] == "test"
    assert report["impressions"] == 200
    done = run("export", "--workdir", tmp_path / "w", "--out", tmp_path / "models")
    assert done.returncode == 0, done.stderr
    assert [entry.name.isdecimal() for entry in (tmp_path / "models").iterdir()] == [True]


def test_rank_prints_the_ranking_best_first(target: str, request_file: Path) -> None:
    done = run("rank", "--target", target, "--request", request_file)
    assert done.returncode == 0, done.stderr
    ranking = json.loads(done.stdout)["ranking"]
    request = json.loads(request_file.read_text())
    assert {row["video_id"] for row in ranking} == {row["video_id"] for row in request["candidates"]}
    scores = [row["score"] for row in ranking]
    assert scores == sorted(scores, reverse=True)
    assert set(ranking[0]) == {"video_id", "score", "click", "watch_time", "like", "rating", "dismiss"}
    assert run("rank", "--target", target, "--request", "-", stdin=request_file.read_text()).stdout == done.stdout


def test_rank_logs_the_list_under_the_id_that_it_prints(target: str, request_file: Path, tmp_path: Path) -> None:
    done = run("rank", "--target", target, "--request", request_file, "--log", tmp_path / "lists")
    assert done.returncode == 0, done.stderr
    answer, request = json.loads(done.stdout), json.loads(request_file.read_text())
    (file,) = (tmp_path / "lists").iterdir()
    record = json.loads(file.read_text())
    assert (record["request_id"], record["context"]) == (answer["request_id"], request["context"])
    shown = [impression["item"] for impression in record["impressions"]]
    assert [item["video_id"] for item in shown] == [row["video_id"] for row in answer["ranking"]]
    assert sorted(shown, key=str) == sorted(request["candidates"], key=str)


def test_rank_with_weights_explained(target: str, request_file: Path) -> None:
    rank = ("rank", "--target", target, "--request", request_file)
    weights = ("--score-weights", "click=0,like=2", "--score-weights", "dismiss=0")
    done = run(*rank, *weights, "--explain")
    assert done.returncode == 0, done.stderr
    for row in json.loads(done.stdout)["ranking"]:
        contributions = row["contributions"]
        assert contributions["click"] == contributions["dismiss"] == 0.0
        assert contributions["like"] < 0.0
        assert sum(contributions.values()) == pytest.approx(math.log(row["score"]), rel=1e-5)
    assert "at least 0" in refusal(run(*rank, "--score-weights", "dismiss=-1"))
    done = run(*rank, "--score-weights", "click=1,click=2")
    assert (done.returncode, "must give each term's weight once. Received: 'click' twice." in done.stderr) == (2, True)


def _changed(request_file: Path, change: Any) -> str:
    request = json.loads(request_file.read_text())
    change(request)
    return json.dumps(request)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda request: request["context"].pop("device"), "device"),
        (lambda request: request["context"].update(colour="red"), "colour"),
        (lambda request: request["candidates"][0].update(position=1), "position"),
        (lambda request: request["candidates"][1].pop("duration"), "duration"),
        (lambda request: request["candidates"][0].update(duration="long"), "duration"),
        (lambda request: request["candidates"].clear(), "candidates"),
    ],
)
def test_requests_with_a_mistake(target: str, request_file: Path, change: Any, words: str) -> None:
    message = refusal(run("rank", "--target", target, "--request", "-", stdin=_changed(request_file, change)))
    assert words in message
    assert "Received: " in message


def test_rank_refuses_what_is_no_request(target: str, request_file: Path, tmp_path: Path) -> None:
    assert "The request must be JSON. Received: " in refusal(
        run("rank", "--target", target, "--request", "-", stdin='{"context": ')
    )
    assert "must be a readable file" in refusal(run("rank", "--target", target, "--request", tmp_path / "none.json"))
    assert "Received: " in refusal(run("rank", "--target", target, "--name", "nobody", "--request", request_file))


def test_nobody_listening_is_said_in_a_sentence(request_file: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = run("rank", "--target", f"127.0.0.1:{port}", "--timeout", 1, "--request", request_file)
    assert done.returncode in (1, 2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"127.0.0.1:{port}" in done.stderr


def test_a_port_in_use(tiny_world: TinyWorld) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refusal(run("serve", "--models", tiny_world.models, "--port", port))
    assert str(port) in message


def test_folders_that_are_missing(tmp_path: Path, tiny_world: TinyWorld, run_here: Callable[..., Any]) -> None:
    none = tmp_path / "none"
    train = ["train", "--config", "watch_next", "--examples", none, "--workdir", tmp_path / "workdir"]
    assert "none" in refusal(run(*train))
    assert "none" in refusal(run_here("serve", "--models", none, "--port", 0))
    assert "none" in refusal(run_here("export", "--workdir", none, "--out", tmp_path / "models"))
    assert "none" in refusal(run_here("evaluate", "--workdir", none, "--examples", tiny_world.examples))
    files = ["--impressions", none / "*.jsonl", "--feedback", none / "*.jsonl"]
    assert "none" in refusal(run_here("examples", "--config", "watch_next", *files, "--out", tmp_path / "examples"))
    assert list(tmp_path.iterdir()) == []


def test_configs_and_options_with_a_mistake(tmp_path: Path) -> None:
    out = ["--examples", tmp_path, "--workdir", tmp_path / "workdir"]
    message = refusal(run("train", "--config", "watch_next", *out, "--set", "training.epoch=2"))
    assert "`training.epoch` is not a key here (did you mean `epochs`?)" in message
    assert message.endswith("Received: 'epoch'.")
    assert "a preset (clara2, kuairand, trivago, watch_next)" in refusal(run("train", "--config", "wach_next", *out))
    assert "Missing option '--config'" in refusal(run("train"))
    assert "No such command 'trian'" in refusal(run("trian"))
    assert refusal(run("simulate", "--out", tmp_path / "x", "--requests", 0))


def test_a_missing_extra_is_said_in_a_sentence(tmp_path: Path) -> None:
    # None in sys.modules is how Python says that a package is not there.
    code = "import sys; sys.modules['tensorflow'] = None; import mmoe_ranker.cli as c; c.main()"
    command = [sys.executable, "-c", code, "train", "--config", "watch_next", "--examples", "x", "--workdir", "y"]
    message = refusal(subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path))
    assert "pip install 'mmoe_ranker[all]'" in message
    assert "Received: " in message
    assert "tensorflow" in message


def test_the_demo_runs_every_step(tmp_path: Path) -> None:
    done = run("demo", "--out", tmp_path / "demo", "--requests", 150)
    assert done.returncode == 0, done.stderr
    for step in range(1, 9):
        assert f"[{step}/8] mmoe-ranker" in done.stdout
    assert "by device" in done.stdout
    assert "<html" in (tmp_path / "demo" / "report.html").read_text()[:200]
    ranking = json.loads((tmp_path / "demo" / "ranking.json").read_text())["ranking"]
    assert len(ranking) == 10
    assert f"  1.  video_id {ranking[0]['video_id']}" in done.stdout
    assert "holds something" in refusal(run("demo", "--out", tmp_path / "demo"))


def test_the_demo_ends_with_the_sentence_of_the_command_that_failed(tmp_path: Path) -> None:
    done = run("demo", "--out", tmp_path / "demo", "--data", tmp_path)
    assert done.returncode == 2
    first, last = done.stderr.strip().splitlines()
    assert first.startswith("mmoe-ranker: The raw folder")
    assert last == "The demo stopped at `convert`, for the reason above."


def test_damaged_examples_are_said_in_a_sentence(tiny_world: TinyWorld, tmp_path: Path) -> None:
    shutil.copytree(tiny_world.examples, tmp_path / "examples")
    (part,) = (tmp_path / "examples" / "test").iterdir()
    part.write_bytes(part.read_bytes()[:2000])
    message = refusal(run("evaluate", "--workdir", tiny_world.workdir, "--examples", tmp_path / "examples"))
    assert message.startswith("A file of the `test` split is damaged; make it again. Received: ")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_said_in_a_sentence_and_leaves_nothing(full_disk: Path, tiny_world: TinyWorld) -> None:
    logs = ["--impressions", tiny_world.logs / "impressions.jsonl", "--feedback", tiny_world.logs / "feedback.jsonl"]
    (full_disk / "ballast").write_bytes(bytes(900_000))
    for command in (
        ["simulate", "--out", full_disk / "logs", "--requests", 500],
        ["examples", "--config", "watch_next", *logs, "--out", full_disk / "examples"],
        ["export", "--workdir", tiny_world.workdir, "--out", full_disk / "models"],
    ):
        done = run(*command)
        assert done.returncode == 1, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert done.stderr.startswith("mmoe-ranker: The disk is full; nothing was published. Received: ")
        assert [path.name for path in full_disk.rglob("*") if path.is_file()] == ["ballast"]

"""Options, runners, and what the text of a worker's failure means."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from mmoe_ranker.errors import InputError
from pipelines.json_lines import LineParser, Lines
from pipelines.output_folder import FORMAT, SUMMARY, check_replaceable, write_file, writing_beside
from pipelines.running import parse_options, run_and_wait, runner_for


def test_beam_options_pass_through():
    options = parse_options(["--direct_num_workers", "2", "--direct_running_mode=multi_threading"])
    direct = options.view_as(DirectOptions)
    assert (direct.direct_num_workers, direct.direct_running_mode) == (2, "multi_threading")
    with pytest.raises(InputError, match=r"Every option must be one of .* Received: '--direct_num_wokers 2'\."):
        parse_options(["--direct_num_wokers", "2"])
    with pytest.raises(InputError, match="invalid int value"):
        parse_options(["--direct_num_workers", "two"])


@pytest.mark.parametrize("arguments", [[], ["--runner=DirectRunner"], ["--runner=direct"], ["--runner=FnApiRunner"]])
def test_the_local_runner_needs_no_download(arguments):
    assert isinstance(runner_for(parse_options(arguments)), FnApiRunner)


class FailingRunner:
    options = PipelineOptions([])

    def __init__(self, error: Exception):
        self.error = error

    def run(self):
        raise self.error


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            "Traceback ...\nmmoe_ranker.errors.InputError: The log must be X. Received: 'a.b'. [while running 'Read']",
            InputError,
            "The log must be X. Received: 'a.b'.",
        ),
        ("Traceback ...\nOSError: [Errno 28] No space left on device: 'x' [while ...]", OSError, "No space left"),
        ("Traceback ...\nKeyError: 'x'", RuntimeError, "KeyError"),
    ],
)
def test_failures_of_workers_come_as_text(text: str, kind: type[Exception], message: str):
    with pytest.raises(kind, match=message.replace("(", r"\(")) as error:
        run_and_wait(FailingRunner(RuntimeError(text)))
    if kind is OSError:
        assert error.value.errno == errno.ENOSPC


def test_logging_is_as_before():
    logger = logging.getLogger("apache_beam")
    before = logger.level
    with pytest.raises(RuntimeError):
        run_and_wait(FailingRunner(RuntimeError("x")))
    assert logger.level == before


def test_a_folder_appears_when_the_block_ends(tmp_path: Path):
    out = tmp_path / "deep" / "out"
    with writing_beside(str(out)) as folder:
        write_file(f"{folder}/{SUMMARY}", json.dumps({"format": FORMAT}).encode())
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == [SUMMARY]
    check_replaceable(str(out))
    with pytest.raises(ZeroDivisionError), writing_beside(str(out)) as folder:
        write_file(f"{folder}/more", bytes(1 // 0))
    assert [path.name for path in out.iterdir()] == [SUMMARY]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_attempt_that_fails_leaves_no_file(tmp_path: Path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="No space"):
        write_file(str(tmp_path / "part"), b"x")
    assert list(tmp_path.iterdir()) == []


def test_the_types_of_a_later_chunk_are_learnt():
    parser = LineParser({"a": None, "b": None})
    for data, expected in [
        (b'{"a": 1}\n', [{"a": 1, "b": None}]),
        (b'{"a": 2, "b": "2022-01-01", "c": 1}\n', [{"a": 2, "b": "2022-01-01"}]),
        (b'{"a": 2.5}\r\n\n  \n{"b": "x"}', [{"a": 2.5, "b": None}, {"a": None, "b": "x"}]),
    ]:
        [(_, table)] = parser.parse(Lines.of(data))
        assert table.to_pylist() == expected


def test_one_broken_line_costs_a_short_run():
    lines = [json.dumps({"a": number}).encode() for number in range(1000)]
    lines[700] = b'{"a": }'
    runs = list(LineParser({"a": None}).parse(Lines.of(b"\n".join(lines))))
    slow = [line for run, table in runs if table is None for line in run]
    assert 700 in slow
    assert len(slow) <= 64
    assert sorted(line for run, _ in runs for line in run) == list(range(1000))
    assert beam.__version__

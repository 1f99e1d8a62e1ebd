"""The benchmarks' table and file, and that each benchmark measures two sides that do the same work."""

from __future__ import annotations

import gzip
import importlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from mmoe_ranker.config_loading import load_config
from mmoe_ranker.examples import decode_examples, example_layout
from mmoe_ranker.simulation import simulate, write_logs
from tests.benchmarks import __main__ as command
from tests.benchmarks import peer
from tests.benchmarks.memory import PeakMemory
from tests.benchmarks.table import NAMES, Measurement, format_table, write_measurements
from tests.benchmarks.timing import in_turn, medians


def _measurement(name: str, value: float = 3.0) -> Measurement:
    return Measurement(name, value, 2.0, "ms", "medians of 3")


def _read(file: Path) -> dict[str, float]:
    return {entry["name"]: entry["value"] for entry in json.loads(file.read_text(encoding="utf-8"))}


def test_the_file_has_the_six_keys_that_others_read(tmp_path: Path) -> None:
    write_measurements(tmp_path / "build" / "bench.json", [_measurement("gemm_share")], ["train"])
    assert json.loads((tmp_path / "build" / "bench.json").read_text(encoding="utf-8")) == [
        {"name": "gemm_share", "ratio": 1.5, "value": 3.0, "baseline": 2.0, "unit": "ms", "note": "medians of 3"}
    ]
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["bench.json"]


def test_a_run_of_one_group_keeps_the_others_and_replaces_its_own(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    write_measurements(file, [_measurement("overhead_p50")], ["serving"])
    write_measurements(file, [_measurement("gemm_share"), _measurement("train_scaling")], ["train"])
    write_measurements(file, [_measurement("gemm_share", 7.0)], ["train"])
    assert _read(file) == {"gemm_share": 7.0, "overhead_p50": 3.0}
    write_measurements(file, [], list(NAMES))
    assert _read(file) == {}


def test_the_table_has_a_line_and_a_note_a_benchmark() -> None:
    lines = format_table([_measurement("first_request"), _measurement("gemm_share")]).splitlines()
    assert lines[0].split() == ["benchmark", "ratio", "value", "baseline", "unit"]
    assert lines[1].split() == ["first_request", "1.500", "3", "2", "ms"]
    assert lines[2] == "    medians of 3"
    assert len(lines) == 5


def test_sides_take_turns_and_the_median_is_kept() -> None:
    asked: list[str] = []
    figures = {"a": iter([5.0, 1.0, 3.0]), "b": iter([2.0, 2.0, 9.0])}

    def side(name: str) -> float:
        asked.append(name)
        return next(figures[name])

    measured = in_turn("turns", 3, {name: lambda name=name: side(name) for name in figures})
    assert asked == ["a", "b", "b", "a", "a", "b"]
    assert medians(measured) == {"a": 3.0, "b": 2.0}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this system keeps no peak to set back")
def test_memory_that_was_needed_before_does_not_count() -> None:
    np.ones(50_000_000)  # 400 MB, gone at once
    peak = PeakMemory()
    assert int(peak.grown().split()[1]) < 100
    np.ones(25_000_000)
    assert 150 < int(peak.grown().split()[1]) < 300


def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"must be one of train, metrics, pipeline, serving\. Received: speed\.$"):
        command.main(["speed"])


def test_a_peer_that_fails_is_said_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(tiny: bool) -> list[Measurement]:
        raise peer.PeerError("no peer here")

    module = type("Group", (), {"BENCHMARKS": (fails, lambda tiny: [_measurement("gemm_share")])})
    monkeypatch.setattr(command.importlib, "import_module", lambda name: module)
    monkeypatch.setattr(command, "FILE", tmp_path / "bench.json")
    monkeypatch.delenv("MMOE_RANKER_TINY", raising=False)
    assert command.main(["train"]) == 1
    assert _read(tmp_path / "bench.json") == {"gemm_share": 3.0}
    assert "not measured: no peer here" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("group", list(NAMES))
def test_each_benchmark_runs_in_tiny_mode(group: str) -> None:
    measured = []
    for benchmark in importlib.import_module(f"tests.benchmarks.{group}").BENCHMARKS:
        if "deepctr" in benchmark.__name__ and not peer.is_installed():
            continue  # `make bench` installs it; tests download nothing
        measured += benchmark(True)
    names = {one.name for one in measured}
    assert names == {name for name in NAMES[group] if peer.is_installed() or "deepctr" not in name}
    assert all(one.ratio > 0 and np.isfinite(one.ratio) and one.unit and one.note for one in measured)


@pytest.mark.slow
def test_the_usual_job_makes_the_same_examples(tmp_path: Path) -> None:
    from pipelines.impressions import run
    from tests.benchmarks.per_element_job import run as run_per_element
    from tests.benchmarks.per_element_job import write_single_impressions

    config = load_config("watch_next")
    logs = tmp_path / "logs"
    write_logs(simulate(60, seed=2), logs)
    run(config, str(logs / "impressions.jsonl"), str(logs / "feedback.jsonl"), str(tmp_path / "examples"))
    single = tmp_path / "single.jsonl"
    assert write_single_impressions(logs / "impressions.jsonl", single) == 60 * 20
    (tmp_path / "usual").mkdir()
    run_per_element(config, single, logs / "feedback.jsonl", tmp_path / "usual" / "examples")
    expected, received = _rows(tmp_path / "examples", config), _rows(tmp_path / "usual", config)
    assert len(received) == 60 * 20
    assert received == expected


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_the_floor_makes_the_same_examples_in_the_same_order(tmp_path: Path, form: str) -> None:
    from pipelines.impressions import run
    from tests.benchmarks.beamless_job import run as run_without_beam

    config = load_config("watch_next")
    write_logs(simulate(60, seed=2), tmp_path)
    impressions, feedback = (tmp_path / f"{name}.{form}" for name in ("impressions", "feedback"))
    run(config, str(impressions), str(feedback), str(tmp_path / "examples"))
    (tmp_path / "floor").mkdir()
    run_without_beam(config, impressions, feedback, tmp_path / "floor")
    expected = [
        gzip.decompress(file.read_bytes())
        for split in ("train", "validation", "test")
        for file in sorted((tmp_path / "examples" / split).iterdir())
    ]
    [floor] = (tmp_path / "floor").iterdir()
    assert gzip.decompress(floor.read_bytes()) == b"".join(expected)


def _rows(folder: Path, config) -> list[tuple]:
    records = []
    for file in folder.rglob("*.tfrecord.gz"):
        data, place = gzip.decompress(file.read_bytes()), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            records.append(data[place + 12 : place + 12 + length])
            place += length + 16
    columns = decode_examples(records, example_layout(config))
    return sorted(zip(columns["request_id"], columns["item_id"], map(repr, zip(*columns.values())), strict=True))  # noqa: B905


@pytest.mark.slow
def test_both_ways_to_ask_get_the_same_answer() -> None:
    from serving.protos import PredictRequest, PredictResponse
    from serving.tensor_codec import decode
    from tests.benchmarks.model_server import MODELS, ServerProcess, draw_request, messages
    from tests.benchmarks.serving import _published

    config, models, _ = _published(next(iter(MODELS)))
    request = draw_request(config, 30)
    assert len(request["context"]) == 10
    assert len(request["candidates"]) == 30
    assert {len(candidate) for candidate in request["candidates"]} == {20}
    sent = messages(config, request)
    with ServerProcess(models) as server:
        predict = server.predict(PredictRequest.SerializeToString, PredictResponse.FromString)
        scores = {name: decode(predict(message).outputs["combined_score"]) for name, message in sent.items()}
    assert np.std(scores["rank"]) > 0
    np.testing.assert_allclose(scores["rank"], scores["serving_examples"], rtol=1e-5)
    np.testing.assert_allclose(scores["serving_default"], scores["serving_examples"], rtol=1e-5)

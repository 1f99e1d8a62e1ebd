"""Saved evaluations: used while they hold, made again with a word on it when they do not, whole or not there."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

import mmoe_ranker.evaluation
from mmoe_ranker import saved_evaluation
from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import dump_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics import expert_health
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.saved_evaluation import load_evaluation, save_evaluation
from mmoe_ranker.whole_files import writing_whole


def _predictions(count: int, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    floats = {"click": rng.random(count).astype(np.float32).astype(float)}
    labels = {"click": np.where(rng.random(count) < 0.5, np.nan, 1.0)}
    columns = {
        "request_id": np.array([b"r%d" % (row // 3) for row in range(count)], dtype=object),
        "item_id": np.array([b"\xff%d" % row for row in range(count)], dtype=object),
        "position": np.arange(count) % 3 - 1,
    }
    return Predictions(
        floats, labels, columns, expert_health(rng.dirichlet(np.ones(4), (5, 1))), {"click": floats["click"] / 2}
    )


class _Run:
    """A workdir and a folder of examples as far as evaluations look at them, and an evaluator that counts its calls."""

    def __init__(self, folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        self.workdir, self.examples, self.evaluated = folder / "workdir", folder / "examples", []
        for split in ("validation", "test"):
            self.make_examples(self.examples, split, 100)
        (self.workdir / "checkpoints").mkdir(parents=True)
        (self.workdir / "config.yaml").write_text(dump_config(config))
        (self.workdir / "training.json").write_text(json.dumps({"examples": str(self.examples)}))
        (self.workdir / "checkpoints" / "ckpt-1.index").write_bytes(b"one")
        monkeypatch.setattr(mmoe_ranker.evaluation, "evaluate_workdir", self.evaluate)
        monkeypatch.setattr(saved_evaluation, "load_tensorflow", lambda: None)

    @staticmethod
    def make_examples(folder: Path, split: str, size: int) -> None:
        (folder / split).mkdir(parents=True, exist_ok=True)
        (folder / "summary.json").write_text("{}")
        (folder / split / "part-00000.tfrecord.gz").write_bytes(bytes(size))

    def evaluate(self, workdir: Path, examples: Path, split: str) -> None:
        self.evaluated.append((examples, split))
        save_evaluation(workdir, examples, _predictions(7, len(self.evaluated)), {"split": split, "calls": 1})


@pytest.fixture
def run(tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> _Run:
    return _Run(tmp_path, config, monkeypatch)


@pytest.fixture(autouse=True)
def _hear(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="mmoe_ranker")


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_predictions_come_back_as_they_were(count: int, tmp_path: Path) -> None:
    made = _predictions(count)
    made.save(tmp_path / "p.parquet")
    found = Predictions.load(tmp_path / "p.parquet")
    for part in ("predictions", "labels", "seen", "columns"):
        assert getattr(found, part).keys() == getattr(made, part).keys()
        for name, values in getattr(made, part).items():
            np.testing.assert_array_equal(getattr(found, part)[name], values)
            assert getattr(found, part)[name].dtype == values.dtype
    np.testing.assert_array_equal(found.expert_health.utilisation, made.expert_health.utilisation)
    # One object an id, not one a row.
    assert len({id(value) for value in found.columns["request_id"]}) == len(set(made.columns["request_id"]))


def test_a_selection_has_the_rows_asked_for() -> None:
    made = _predictions(10)
    some = made.select(np.array([7, 2]))
    assert some.columns["item_id"].tolist() == [b"\xff7", b"\xff2"]
    assert some.predictions["click"].tolist() == made.predictions["click"][[7, 2]].tolist()
    assert some.seen["click"].tolist() == made.seen["click"][[7, 2]].tolist()
    assert some.expert_health is None


def test_an_evaluation_is_made_once(run: _Run, caplog: pytest.LogCaptureFixture) -> None:
    first = load_evaluation(run.workdir)
    assert run.evaluated == [(run.examples, "test")]
    assert "no evaluation was saved" in caplog.text
    caplog.clear()
    again = load_evaluation(run.workdir, examples=run.examples)
    assert len(run.evaluated) == 1
    assert not caplog.records
    np.testing.assert_array_equal(again.predictions.predictions["click"], first.predictions.predictions["click"])
    assert (again.split, again.examples, again.report) == ("test", run.examples, {"split": "test", "calls": 1})
    load_evaluation(run.workdir, "validation")
    assert run.evaluated[1:] == [(run.examples, "validation")]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda run: (run.workdir / "checkpoints" / "ckpt-1.index").write_bytes(b"two"), "of an earlier training"),
        (lambda run: (run.workdir / "training.json").write_text(json.dumps({"steps": 9})), "of an earlier training"),
        (lambda run: run.make_examples(run.examples, "test", 101), "of other examples"),
        (lambda run: (run.examples / "summary.json").write_text("{ }"), "of other examples"),
        (lambda run: _saved(run, "origin.json").write_text(json.dumps({"examples": "x"})), "has another format"),
        (lambda run: _saved(run, "origin.json").write_text("{"), "is damaged"),
        (lambda run: _saved(run, "report.json").unlink(), "is damaged"),
        (lambda run: _saved(run, "predictions.parquet").write_bytes(b"PAR1"), "is damaged"),
        (lambda run: _saved(run, "origin.json").unlink(), "no evaluation was saved"),
    ],
)
def test_what_holds_no_more_is_made_again_with_a_word(change, reason: str, run: _Run, caplog) -> None:
    load_evaluation(run.workdir)
    load_evaluation(run.workdir, "validation")
    change(run)
    caplog.clear()
    load_evaluation(run.workdir, examples=run.examples)
    assert len(run.evaluated) == 3
    assert reason in caplog.text
    load_evaluation(run.workdir)
    assert len(run.evaluated) == 3


def _saved(run: _Run, name: str) -> Path:
    return run.workdir / "evaluations" / "test" / name


def test_other_examples_are_evaluated_on_and_equal_ones_are_not(run: _Run) -> None:
    load_evaluation(run.workdir)
    copy = run.examples.with_name("copy")
    shutil.copytree(run.examples, copy)
    load_evaluation(run.workdir, examples=copy)
    assert len(run.evaluated) == 1
    newer = run.examples.with_name("newer")
    run.make_examples(newer, "test", 333)
    assert load_evaluation(run.workdir, examples=newer).examples == newer
    # From then on these are the ones that it was evaluated on.
    assert load_evaluation(run.workdir).examples == newer
    assert run.evaluated == [(run.examples, "test"), (newer, "test")]


def test_an_evaluation_outlives_its_examples(run: _Run) -> None:
    load_evaluation(run.workdir)
    shutil.rmtree(run.examples)
    load_evaluation(run.workdir)
    assert len(run.evaluated) == 1


def test_without_a_training_or_examples_there_is_none(run: _Run) -> None:
    (run.workdir / "training.json").write_text("{}")
    with pytest.raises(InputError, match=r"^The folder of examples must be given \(--examples\): .*workdir' alone\.$"):
        load_evaluation(run.workdir)
    (run.workdir / "training.json").unlink()
    with pytest.raises(InputError, match=r"^The workdir must hold a finished training, .* Received: '.*workdir'\.$"):
        load_evaluation(run.workdir)


def test_a_folder_is_whole_or_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"

    def write(text: str, fails: bool) -> None:
        with writing_whole(out) as folder:
            (folder / text).write_text(text)
            if fails:
                raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        write("a", fails=True)
    assert not out.exists()
    write("b", fails=False)
    with pytest.raises(RuntimeError, match="no"):
        write("c", fails=True)
    assert [path.name for path in out.iterdir()] == ["b"]
    write("d", fails=False)
    assert [path.name for path in out.iterdir()] == ["d"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]

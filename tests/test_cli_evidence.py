"""`compare` and `score-weights` as users meet them, on a small trained workdir."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
import yaml
from click.testing import CliRunner, Result

from mmoe_ranker.cli import cli
from mmoe_ranker.config_loading import dump_config, load_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.workdir import Workdir
from tests.conftest import TinyWorld

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two_runs(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The small training, and the same with weights that its last layers lost: they answer the same for everyone."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("trained", "spoilt"):
        shutil.copytree(tiny_world.workdir, folder / name, ignore=shutil.ignore_patterns("evaluations"))
    ranker = Workdir.open(folder / "spoilt").load_ranker()
    for variable in ranker.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    for file in (folder / "spoilt" / "checkpoints").iterdir():
        file.unlink()
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(ranker=ranker), str(folder / "spoilt" / "checkpoints"), 1)
    manager.save()
    return folder / "trained", folder / "spoilt"


def _invoke(*arguments: object) -> Result:
    """The command in this process, which has TensorFlow loaded already."""
    return CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)


def test_compare_evaluates_once_and_needs_no_tensorflow_then(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = _invoke("compare", *two_runs, "--json", tmp_path / "first.json")
    assert done.exit_code == 0
    document = json.loads((tmp_path / "first.json").read_text())
    # Answers that are the same for everyone order nothing.
    assert document["verdicts"]["click"]["b"] == pytest.approx(0.5)
    assert document["verdicts"]["click"]["verdict"] == "worse"
    for workdir in two_runs:
        assert (workdir / "evaluations" / "test" / "origin.json").is_file()
    code = (
        "import sys; from mmoe_ranker.cli import cli; cli.main(sys.argv[1:], standalone_mode=False); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    again = subprocess.run(
        [sys.executable, "-c", code, "compare", *map(str, two_runs), "--json", tmp_path / "second.json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert again.stderr == ""
    assert again.stdout == done.stdout
    assert (tmp_path / "second.json").read_bytes() == (tmp_path / "first.json").read_bytes()


def test_score_weights_leaves_what_a_config_takes(
    tiny_world: TinyWorld, two_runs: tuple[Path, Path], tmp_path: Path
) -> None:
    trained, _ = two_runs
    done = _invoke("score-weights", "--workdir", trained, "--trials", 30, "--check", "test")
    assert done.exit_code == 0
    assert "share of the order" in done.stdout
    assert "Gains in NDCG@10 on test" in done.stdout
    out = trained / "score_weights"
    with (out / "weights.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 31
    assert (out / "weights.png").read_bytes().startswith(b"\x89PNG")
    document = json.loads((out / "score_weights.json").read_text())
    assert set(document["points"]) == {"validation", "test"}
    for name, point in document["points"]["test"].items():
        block = yaml.safe_load((out / f"{name}.yaml").read_text())
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(dump_config(tiny_world.config)) | block))
        terms = load_config(tmp_path / "config.yaml").combined_score.terms
        assert {name: term.weight for name, term in terms.items()} == {name: point["weights"][name] for name in terms}


def test_mistakes_are_said_in_a_sentence(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    trained, spoilt = two_runs
    (tmp_path / "mine").write_text("")
    for arguments, sentence in (
        (
            ("score-weights", "--workdir", trained, "--check", "validation"),
            r"^`--check` must be another split than `--split`\. Received: 'validation' for both\.$",
        ),
        (
            ("score-weights", "--workdir", trained, "--out", tmp_path),
            r"^The output must be a new or empty folder, or one that `mmoe-ranker score-weights` wrote\. Received: '/",
        ),
        (("compare", trained, tmp_path), r"^The workdir must hold a finished training, .* Received: '/"),
        (
            ("compare", trained, spoilt, "--judge-by", "click"),
            r"^`--judge-by` must read OBJECTIVE=METRIC, each objective once\. Received: 'click'\.$",
        ),
    ):
        with pytest.raises(InputError, match=sentence):
            _invoke(*arguments)


def test_a_report_on_damaged_examples_says_so_and_has_the_rest(tiny_world: TinyWorld, tmp_path: Path) -> None:
    shutil.copytree(tiny_world.workdir, tmp_path / "workdir", ignore=shutil.ignore_patterns("evaluations"))
    shutil.copytree(tiny_world.examples, tmp_path / "examples")
    (part,) = (tmp_path / "examples" / "test").iterdir()
    part.write_bytes(part.read_bytes()[:2000])
    done = _invoke("report", "--workdir", tmp_path / "workdir", "--examples", tmp_path / "examples")
    assert done.exit_code == 0
    sentence = "A file of the `test` split is damaged; make it again. Received: "
    assert f"The page has no evaluation: {sentence}" in done.output
    html = (tmp_path / "workdir" / "report.html").read_text(encoding="utf-8")
    assert "split is damaged; make it again. Received: " in html
    assert 'id="training"' in html
    assert 'id="config"' in html


def test_an_interval_has_tails_that_draws_can_reach() -> None:
    for command in (("compare", ".", "."), ("score-weights", "--workdir", ".")):
        done = _invoke(*command, "--level", "0.9999")
        assert done.exit_code == 2
        assert "0.9999 is not in the range 0<x<=0.999" in done.output

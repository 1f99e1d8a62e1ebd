"""What the page says, without a browser: every section, escaped, and a sentence where something is missing."""

from __future__ import annotations

import html.parser
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mmoe_ranker import metrics
from mmoe_ranker.cli import cli
from mmoe_ranker.errors import InputError
from tests.report.conftest import Written
from tests.report.worlds import HOSTILE, LENGTH, evaluation_in, report_config, report_predictions, with_labels

_SECTIONS = (
    *("summary", "metrics", "slices", "calibration", "position", "gates", "weights", "training", "data", "config"),
)


class _Elements(html.parser.HTMLParser):
    """The elements of a page, their attributes, and its text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text += data.replace("\N{NO-BREAK SPACE}", " ")

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_has_every_section_and_a_link_to_each(written: Written) -> None:
    page = _Elements(written.html)
    assert tuple(section["id"] for section in page.of("section")) == _SECTIONS
    assert {link["href"] for link in page.of("a")} == {f"#{name}" for name in _SECTIONS}


def test_names_from_the_logs_are_text(written: Written) -> None:
    page = _Elements(written.html)
    assert HOSTILE in page.text  # in a table of slices, and in the legend of a figure
    assert page.of("script") == [{"type": "application/json", "id": "explorer-data"}, {}]


def test_needs_nothing_beside_it(written: Written) -> None:
    page = _Elements(written.html)
    for tag in ("link", "iframe", "object", "img"):
        assert not page.of(tag)
    assert not [attributes for _, attributes in page.elements if "src" in attributes]
    assert len(written.html) < 3_000_000


def test_ids_are_unique_and_figures_have_labels(written: Written) -> None:
    page = _Elements(written.html)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    figures = [one for one in page.of("svg") if one.get("role") == "img"]
    assert len(figures) >= 8
    assert all(one.get("aria-label") or one.get("aria-labelledby") for one in figures)
    assert len(page.of("figcaption")) == len(page.of("figure"))


def test_the_headline_is_the_auc(written: Written) -> None:
    predictions = written.evaluation.predictions
    auc = metrics.auc(predictions.labels["click"], predictions.predictions["click"])
    assert f"<dt>AUC of click</dt><dd>{auc:.3f} " in written.html


def test_groups_that_counted_stand_beside_the_interval(written: Written) -> None:
    labels = written.evaluation.predictions.labels["click"].reshape(-1, LENGTH)
    requests = (labels.min(axis=1) < labels.max(axis=1)).sum()  # those that have both classes
    low, high = written.evaluation.report["intervals"]["objectives"]["click"]["group_auc"]["request_id"]
    assert f"{low:.4f} to {high:.4f}\n{requests} groups" in written.html


def test_dead_letters_and_missing_features_are_findings(written: Written) -> None:
    text = _Elements(written.html).text
    assert "1.8 % of the impressions became dead letters" in text
    assert "The feature duration is missing in 50.0 % of the examples." in text
    assert "impressions[].position must be an integer" in text


def test_the_same_evaluation_gives_the_same_page(written: Written, tmp_path: Path) -> None:
    assert Written(tmp_path, written.evaluation, written.validation).html == written.html


def test_weights_are_sought_on_the_validation_split(written: Written) -> None:
    text = _Elements(written.html).text
    assert "requests of the validation split that have a positive label" in text
    assert ">Best for click</button>" in written.html


def test_no_weights_are_sought_on_the_test_split(tmp_path: Path) -> None:
    page = Written(tmp_path, evaluation_in(tmp_path / "world", report_config(), report_predictions())).html
    text = _Elements(page).text
    assert "The explorer is not of the validation split: The split must hold examples." in text
    assert "No weights are sought and no trade is drawn" in text
    assert "requests of the test split that have a positive label" in text
    assert 'id="slider-0"' in page
    assert "data-weights=" not in page.split("<script")[0]
    assert 'id="pareto"' not in page
    assert "settings of the weights" not in text


def test_one_class_is_said(tmp_path: Path) -> None:
    predictions = report_predictions()
    labels = {name: np.zeros(len(predictions)) for name in ("click", "like", "dismiss")}
    labels["watch_time"] = np.full(len(predictions), np.nan)
    page = _Elements(
        Written(tmp_path, evaluation_in(tmp_path / "world", report_config(), with_labels(predictions, **labels))).html
    )
    assert tuple(section["id"] for section in page.of("section")) == _SECTIONS
    assert "click has no AUC: its 1,080 labels have mean 0.0000." in page.text
    assert "watch_time has no XAUC: no impression has its label." in page.text
    assert (
        "There is no weight explorer: no request of the test split has a positive label, and so no NDCG." in page.text
    )


def test_predictions_that_are_not_numbers_are_said(tmp_path: Path) -> None:
    predictions = report_predictions()
    predictions.predictions["click"][7] = np.nan
    page = _Elements(Written(tmp_path, evaluation_in(tmp_path / "world", report_config(), predictions)).html)
    assert tuple(section["id"] for section in page.of("section")) == _SECTIONS
    assert "click has no metrics" in page.text
    assert "There is no weight explorer: predictions must be finite" in page.text


def test_a_sampled_evaluation_is_said(tmp_path: Path) -> None:
    evaluation = evaluation_in(tmp_path / "world", report_config(), report_predictions())
    evaluation.report["sampled"] = {"impressions": 5_000_000, "share": 0.25, "by": "request_id"}
    text = _Elements(Written(tmp_path, evaluation).html).text
    assert "are of all 5,000,000 impressions of the test split, the rest of a sample of 25.0 %" in text


def test_no_impression_at_all_is_said(tmp_path: Path) -> None:
    whole = report_predictions()
    nothing = whole.select(np.arange(0))
    page = _Elements(Written(tmp_path, evaluation_in(tmp_path / "world", report_config(), nothing)).html)
    assert "There is no impression to evaluate." in page.text
    assert "Position bias was not measured" in page.text


def test_a_model_without_gates_and_without_bias(tmp_path: Path) -> None:
    raw = report_config().model_dump(mode="json")["model"] | {
        "sharing": {"kind": "shared_bottom", "units": [8]},
        "bias": {"kind": "none"},
    }
    predictions = report_predictions()
    predictions = type(predictions)(predictions.predictions, predictions.labels, predictions.columns)
    evaluation = evaluation_in(tmp_path / "world", report_config(model=raw), predictions)
    evaluation.report["learned_bias"] = []
    page = _Elements(Written(tmp_path, evaluation).html)
    assert "There are no gates: the model shares by shared_bottom, which mixes no experts." in page.text
    assert "There is no learned bias" in page.text
    assert "There are no predictions with the position seen" in page.text


def test_no_summary_and_no_logs_are_said(written: Written, tmp_path: Path) -> None:
    assert "There are no training curves: the workdir holds no logs of TensorBoard" in _Elements(written.html).text
    evaluation = evaluation_in(tmp_path / "world", report_config(), report_predictions())
    (evaluation.examples / "summary.json").unlink()
    page = _Elements(Written(tmp_path, evaluation).html)
    assert (
        f"There is no data summary: the examples hold no summary.json. Received: '{evaluation.examples}'." in page.text
    )


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = evaluation_in(tmp_path / "world", report_config(), report_predictions()).workdir
    file = workdir / "report.html"
    file.write_text("old", encoding="utf-8")
    before = sorted(workdir.iterdir())
    monkeypatch.setattr("mmoe_ranker.report.render", lambda *_: "new \udcff")
    with pytest.raises(UnicodeEncodeError):
        CliRunner().invoke(cli, ["report", "--workdir", str(workdir)], catch_exceptions=False)
    assert file.read_text(encoding="utf-8") == "old"
    assert sorted(workdir.iterdir()) == before


def test_the_folder_of_the_page_must_exist(tmp_path: Path) -> None:
    arguments = ["report", "--workdir", str(tmp_path), "--out", str(tmp_path / "none/report.html")]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, InputError)
    assert "The folder of `--out` must exist. Received:" in str(result.exception)


def test_a_split_that_cannot_be_evaluated_leaves_a_page_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = evaluation_in(tmp_path / "world", report_config(), report_predictions()).workdir

    def refuse(*_: object) -> None:
        raise InputError("The split must hold examples. Received: none in 'test'.")

    monkeypatch.setattr("mmoe_ranker.report.load_evaluation", refuse)
    result = CliRunner().invoke(cli, ["report", "--workdir", str(workdir)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "The page has no evaluation: The split must hold examples. Received: none in 'test'." in result.output
    page = _Elements((workdir / "report.html").read_text(encoding="utf-8"))
    assert [section["id"] for section in page.of("section")] == ["summary", "training", "data", "config"]
    assert "There is no evaluation: The split must hold examples." in page.text


def test_a_workdir_without_training_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["report", "--workdir", str(tmp_path)])
    assert "The workdir must hold a finished training" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_an_installed_package_holds_the_page(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run([*command, "build_py", "--build-lib", str(tmp_path / "lib")], cwd=root, check=True)
    built = {path.name for path in (tmp_path / "lib/mmoe_ranker/report").iterdir()}
    assert {path.name for path in (root / "mmoe_ranker/report").iterdir() if path.is_file()} <= built

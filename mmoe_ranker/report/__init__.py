"""The report: one HTML file on one training and its evaluation, that opens from disk without a network.

`write_report` gathers what a workdir and its examples hold; each `*_section` module turns a part of it into sentences,
tables and figures (`document`, `figures`); `page` puts them into one file with its style and its scripts. What is
missing is said in a sentence where it would stand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmoe_ranker.config_loading import dump_config, load_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.position_bias.report import position_bias_report
from mmoe_ranker.report.calibration_section import calibration_section
from mmoe_ranker.report.data_section import data_findings, data_section
from mmoe_ranker.report.document import Finding, Section
from mmoe_ranker.report.explorer_section import explorer_section
from mmoe_ranker.report.gates_section import gates_section
from mmoe_ranker.report.metrics_section import metrics_section, slices_section
from mmoe_ranker.report.page import render
from mmoe_ranker.report.position_section import position_section
from mmoe_ranker.report.summary_section import summary_section
from mmoe_ranker.report.training_section import read_curves, training_section
from mmoe_ranker.saved_evaluation import CONFIG, RESULT, SUMMARY, SavedEvaluation, load_evaluation
from mmoe_ranker.whole_files import writing_whole_file

__all__ = ["write_report"]


def write_report(workdir: Path, split: str, examples: Path | None, out: Path) -> str | None:
    """Writes the page, whole or not at all; of a split that cannot be evaluated, what there is beside it.

    Args:
      workdir: of a finished training.
      split: `train`, `validation` or `test`.
      examples: folder of examples; by default the one that was evaluated on, or else that trained.
      out: the HTML file; its folder is there.

    Returns:
      The sentence on why there is no evaluation in the page, or None.

    Raises:
      InputError: the workdir holds no finished training.
    """
    result = _json(workdir / RESULT)
    try:
        evaluation, problem = load_evaluation(workdir, split, examples), None
    except InputError as error:
        if result is None:
            raise
        evaluation, problem = None, str(error)
    result, curves = result or {}, read_curves(workdir)
    config = load_config(workdir / CONFIG)
    folder = evaluation.examples if evaluation else examples or Path(result.get("examples", ""))
    summary = _json(folder / SUMMARY)
    if evaluation is not None:
        sections = _evaluated(evaluation, examples, result, summary)
    else:
        findings = [Finding(f"There is no evaluation: {problem}", True), *(data_findings(summary) if summary else [])]
        sections = [summary_section(None, config, split, result, summary, findings)]
    sections += [
        training_section(result, curves, config),
        data_section(summary, f"There is no data summary: the examples hold no {SUMMARY}. Received: {str(folder)!r}."),
        Section("config", "Config", ["The config that trained, every key with its value."], text=dump_config(config)),
    ]
    with writing_whole_file(out) as file:
        file.write_text(render(config.name, f"Report on the {split} split", sections), encoding="utf-8")
    return problem


def _evaluated(
    evaluation: SavedEvaluation, examples: Path | None, result: dict[str, Any], summary: dict[str, Any] | None
) -> list[Section]:
    """The sections on the evaluation."""
    config, report, split = evaluation.config, evaluation.report, evaluation.split
    try:
        position = position_bias_report(evaluation.predictions, config, report.get("learned_bias"))
        why = ""
    except InputError as error:
        position, why = None, f"Position bias was not measured: {error}"
    sections = [
        metrics_section(report, config, split),
        slices_section(report),
        calibration_section(report),
        position_section(position, why),
        gates_section(report, result.get("experts"), config),
        _weights(evaluation, examples),
    ]
    # The first of a section says most; of the others, those that somebody should look at.
    findings = [
        finding
        for section in sections
        for place, finding in enumerate(section.findings)
        if finding.attention or not place
    ]
    findings += data_findings(summary) if summary else []
    return [summary_section(report, config, split, result, summary, findings), *sections]


def _weights(evaluation: SavedEvaluation, examples: Path | None) -> Section:
    """The weight explorer, on the validation split where there is one: weights chosen on a test split spoil it."""
    why = ""
    if evaluation.split != "validation":
        try:
            evaluation = load_evaluation(evaluation.workdir, "validation", examples)
        except InputError as error:
            why = f"The explorer is not of the validation split: {error}"
    return explorer_section(evaluation.predictions, evaluation.config, evaluation.split, why)


def _json(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

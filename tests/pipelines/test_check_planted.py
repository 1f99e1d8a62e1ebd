"""One fault at a time in a log without any: `check` finds this fault, says how large it is, and finds nothing else."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.checking import feature_findings
from pipelines.checking.finding import Finding
from tests.pipelines import planted_in_features, planted_in_feedback, planted_in_requests
from tests.pipelines.check_logs import Log

PLANTED = planted_in_features.FAULTS | planted_in_feedback.FAULTS | planted_in_requests.FAULTS


def test_a_clean_log_has_no_finding():
    assert Log().check().findings == ()


def test_splits_by_user_are_no_drift_of_the_user():
    log = Log()
    log.config["split"] = {"by": "user_id", "validation": 0.2, "test": 0.2}
    del log.feature("user_id")["buckets"]
    log.feature("user_id")["vocabulary"] = "auto"
    report = log.check()
    assert report.figures["features"]["user_id"]["unknown"]["test"] == 1.0
    assert not [one for one in report.findings if one.about == "user_id" or one.severity == "error"]


def _expect(plant: Callable[[Log], None], *wanted: tuple[str, str, str]) -> dict[tuple[str, str], Finding]:
    log = Log()
    plant(log)
    found = log.check().findings
    assert sorted((one.severity, one.code, one.about) for one in found) == sorted(wanted), found
    assert not {one.code for one in found} - _codes()
    return {(one.code, one.about): one for one in found}


def _codes() -> set[str]:
    """Every code that the sources give a finding."""
    codes = set()
    for file in Path(feature_findings.__file__).parent.glob("*_findings.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Finding":
                code = node.args[1]
                lost = isinstance(code, ast.JoinedStr)
                codes |= {"events_orphan", "events_late", "events_early"} if lost else {ast.literal_eval(code)}
    return codes


def test_every_finding_is_planted_somewhere():
    planted = {code for fault in PLANTED.values() for _, code, _ in fault.findings}
    # Of refused records, and of millions of values: in test_check_job.
    assert _codes() - planted == {"dead_letters", "vocabulary_large"}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_and_nothing_else(name: str):
    fault = PLANTED[name]
    found = _expect(fault.plant, *fault.findings)
    assert any(fault.figure in one.sentence for one in found.values()), list(found.values())
    assert all(one.suggestion.endswith((".", "?")) for one in found.values())

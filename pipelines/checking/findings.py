"""All findings of `check`: a pure function of the config and the figures."""

from __future__ import annotations

from typing import Any

from mmoe_ranker.config import Config
from pipelines.checking.feature_findings import feature_findings
from pipelines.checking.finding import SEVERITIES, Finding
from pipelines.checking.log_findings import log_findings
from pipelines.checking.objective_findings import objective_findings
from pipelines.checking.position_findings import position_findings


def findings(config: Config, figures: dict[str, Any]) -> tuple[Finding, ...]:
    """What is worth saying, the gravest first; else in order of logs, objectives, features, positions.

    Args:
      config: what the logs are held against.
      figures: of `figures.figures_of`.
    """
    found = list(log_findings(config, figures))
    # Without a training split, all that would be said of labels and features follows from that.
    if figures["splits"]["train"]["impressions"]:
        for about in (objective_findings, feature_findings, position_findings):
            found += about(config, figures)
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))

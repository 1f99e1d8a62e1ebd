"""The command that looks at logs before anyone trains: `check`."""

from __future__ import annotations

from pathlib import Path

import click

from mmoe_ranker.cli.options import (
    check_json_path,
    config_option,
    globs_by_table,
    json_option,
    set_option,
    table_option,
    write_json,
)
from mmoe_ranker.cli.terminal import elapsed, fail
from mmoe_ranker.config_loading import load_config


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@config_option
@click.option("--impressions", required=True, metavar="GLOB", help="Ranked-list logs: JSON lines or Parquet.")
@click.option("--feedback", required=True, metavar="GLOB", help="Feedback logs: JSON lines or Parquet.")
@table_option
@json_option
@set_option
@click.pass_context
def check(
    context: click.Context,
    config_path: str,
    impressions: str,
    feedback: str,
    tables: tuple[str, ...],
    json_path: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Hold the logs against the config before training; exit status 2 on what would spoil it. Takes Beam options."""
    config = load_config(config_path, overrides)
    check_json_path(json_path)
    from pipelines.checking.job import run
    from pipelines.checking.text import format_check

    with elapsed("check"):
        report = run(config, impressions, feedback, context.args, globs_by_table(tables))
    write_json(report.as_json(), json_path)
    click.echo(format_check(report.figures, report.findings))
    errors = [finding for finding in report.findings if finding.severity == "error"]
    if errors:
        named = ", ".join(f"{finding.code} ({finding.about})" for finding in errors)
        fail(f"{len(errors)} finding(s) would spoil training: {named}.", 2)

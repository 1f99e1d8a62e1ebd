"""The command `score`: an exported model over examples or logs."""

from __future__ import annotations

from typing import Any

import click

from mmoe_ranker.cli.options import score_weights_option
from mmoe_ranker.cli.terminal import elapsed
from mmoe_ranker.config_loading import load_config


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option("--models", required=True, metavar="DIR", help="Folder of versions, as `export` writes it.")
@click.option("--version", type=click.IntRange(min=0), help="Of the model; the newest by default.")
@click.option("--examples", metavar="DIR", help="Folder of examples to score.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help="Of the examples; test by default.")
@click.option("--impressions", metavar="GLOB", help="Instead: ranked-list logs to score, JSON lines or Parquet.")
@click.option("--config", "config_path", metavar="FILE", help="YAML file, or a preset's name, of the logs.")
@click.option("--out", required=True, metavar="DIR", help="Folder of scores to write.")
@click.option("--format", "form", type=click.Choice(["parquet", "jsonl"]), default="parquet", show_default=True)
@score_weights_option
@click.pass_context
def score(
    context: click.Context,
    models: str,
    version: int | None,
    examples: str | None,
    split: str | None,
    impressions: str | None,
    config_path: str | None,
    out: str,
    form: Any,
    score_weights: dict[str, float],
) -> None:
    """Score examples or logs with an exported model, with Beam; takes every Beam option, as `examples` does."""
    from pipelines.scoring.job import score_examples, score_logs

    with elapsed("score"):
        if examples is not None and impressions is None and config_path is None:
            summary = score_examples(models, examples, split or "test", out, version, form, score_weights, context.args)
            counts = summary["examples"]
        elif impressions is not None and config_path is not None and examples is None and split is None:
            config = load_config(config_path)
            summary = score_logs(models, config, impressions, out, version, form, score_weights, context.args)
            counts = summary["impressions"]
        else:
            raise click.UsageError("Give either --examples, with or without --split, or --impressions with --config.")
    click.echo(f"Scored {counts['scored']:,} impressions with version {summary['model']['version']} into {out}.")

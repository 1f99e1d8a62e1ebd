"""Commands that make data: `simulate`, `convert`, `examples`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from mmoe_ranker.cli.options import FOLDER, config_option, globs_by_table, set_option, table_option
from mmoe_ranker.cli.terminal import elapsed
from mmoe_ranker.config_loading import load_config


@click.command()
@click.option("--out", type=FOLDER, required=True, help="Folder for the logs; must not exist.")
@click.option("--requests", type=click.IntRange(min=1), default=20_000, show_default=True, help="Ranked lists to log.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--alignment", type=float, default=None, help="How far the logging ranker follows relevance, from 0.")
@click.option("--agenda", type=float, default=None, help="Strength of the logging ranker's own agenda, 0 for none.")
def simulate(out: Path, requests: int, seed: int, alignment: float | None, agenda: float | None) -> None:
    """Write the logs of a simulated world, and its truth in a folder apart."""
    from mmoe_ranker.simulation import WorldConfig, write_logs
    from mmoe_ranker.simulation import simulate as simulate_world

    knobs = {name: value for name, value in (("alignment", alignment), ("agenda", agenda)) if value is not None}
    world = dataclasses.replace(WorldConfig(), **knobs)  # type: ignore[arg-type]
    write_logs(simulate_world(requests, seed, world), out)
    click.echo(f"Wrote the logs of {requests:,} requests to {out}.")


@click.command()
@click.option("--data", type=FOLDER, required=True, help="Raw folder of a public data set.")
@click.option("--out", type=FOLDER, required=True, help="Folder for the logs; must not exist.")
def convert(data: Path, out: Path) -> None:
    """Turn a public data set into logs; prints the name of its preset config."""
    from pipelines.datasets import detect

    dataset = detect(data)
    dataset.convert(data, out)
    click.echo(f"{dataset.name} is the preset for the logs in {out}.")


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@config_option
@click.option("--impressions", required=True, metavar="GLOB", help="Ranked-list logs: JSON lines or Parquet.")
@click.option("--feedback", required=True, metavar="GLOB", help="Feedback logs: JSON lines or Parquet.")
@table_option
@click.option("--out", required=True, metavar="DIR", help="Folder of examples to write.")
@set_option
@click.pass_context
def examples(
    context: click.Context,
    config_path: str,
    impressions: str,
    feedback: str,
    tables: tuple[str, ...],
    out: str,
    overrides: tuple[str, ...],
) -> None:
    """Join the logs into tf.Examples with Beam; takes every Beam option, such as --runner DataflowRunner."""
    config = load_config(config_path, overrides)
    from pipelines.impressions import run

    with elapsed("examples"):
        summary = run(config, impressions, feedback, out, context.args, globs_by_table(tables))
    for split, counts in summary["splits"].items():
        click.echo(f"{split}: {counts['examples']:,} examples")
    click.echo(f"Wrote {out}; what was read, joined and set aside is in {out}/summary.json.")

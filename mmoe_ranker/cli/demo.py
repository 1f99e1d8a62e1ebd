"""The command that does all of it: `demo`."""

from __future__ import annotations

from pathlib import Path

import click

from mmoe_ranker.cli.options import FOLDER


@click.command()
@click.option("--out", type=FOLDER, default=Path("build/demo"), show_default=True, help="Folder for everything made.")
@click.option("--data", type=FOLDER, default=None, help="Folder of a public data set, instead of simulated logs.")
@click.option("--requests", type=click.IntRange(min=1), default=20_000, show_default=True, help="Simulated lists.")
@click.option("--seed", type=int, default=1, show_default=True)
def demo(out: Path, data: Path | None, requests: int, seed: int) -> None:
    """Do all of it in turn: logs, examples, train, evaluate, export, serve, rank."""
    from mmoe_ranker.demo import run_demo

    run_demo(out, data, requests, seed)

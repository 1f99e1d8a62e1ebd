"""Makes the suite's model, sends malformed requests, swaps under load: `python -m tests.conformance --help`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tests.conformance.fuzz import fuzz
from tests.conformance.load import MOST_GROWTH, load
from tests.conformance.target import NAME, VERSION, Target, write_model


@click.group()
def cli() -> None:
    """What the conformance suite needs beside pytest."""


@cli.command("model")
@click.argument("models", type=click.Path(path_type=Path, file_okay=False))
def write(models: Path) -> None:
    """Write the model that a server has to serve under the name half_plus_two."""
    if (models / str(VERSION)).exists():
        raise click.UsageError(f"MODELS must not have a version {VERSION} yet. Received: {models}.")
    click.echo(f"Serve {write_model(models).parent.absolute()} under the name {NAME}.")


@cli.command("fuzz")
@click.argument("target", metavar="HOST:PORT")
@click.option("--count", type=click.IntRange(min=1), default=100_000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def send(target: str, count: int, seed: int) -> None:
    """Send malformed requests and compare every answer; exit status 1 if one is wrong."""
    report = fuzz(Target(target), count, seed)
    click.echo(report)
    for wrong in report.wrong[:20]:
        click.echo(wrong, err=True)
    sys.exit(1 if report.wrong else 0)


@cli.command("load")
@click.argument("version", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True)
@click.option("--swap-seconds", type=click.FloatRange(min=1), default=20.0, show_default=True)
def ask(version: Path, minutes: float, swap_seconds: float) -> None:
    """Ask this package's server while copies of an exported VERSION are swapped, each third and fourth one broken.

    Exit status 1 if a request failed, a version went otherwise than it had to, or memory grew by more than a tenth
    from the middle third of the time to the last.
    """
    report = load(version, 60 * minutes, swap_seconds)
    click.echo(report)
    for wrong in [*report.failures[:20], *report.problems]:
        click.echo(wrong, err=True)
    sys.exit(1 if report.failures or report.problems or report.growth > MOST_GROWTH else 0)


if __name__ == "__main__":
    cli()

"""Options that several commands take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mmoe_ranker.errors import InputError
from mmoe_ranker.whole_files import writing_whole_file

FOLDER = click.Path(path_type=Path, file_okay=False)

config_option = click.option("--config", "config_path", required=True, help="YAML file, or a preset's name.")
set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config key.")
json_option = click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write all of it here too."
)
table_option = click.option(
    "--table", "tables", multiple=True, metavar="NAME=GLOB", help="A table of the config: JSON lines or Parquet."
)

allow_breaking_option = click.option(
    "--allow-breaking", is_flag=True, help="Let signatures change so that callers of the version before would fail."
)


def _weights_by_objective(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for text in ",".join(texts).split(",") if texts else ():
        name, _, value = text.strip().partition("=")
        try:
            weight = float(value)
        except ValueError:
            raise click.BadParameter(
                f"must be a term and its weight, such as click=0.5. Received: {text!r}.", context, option
            ) from None
        if name in weights:
            raise click.BadParameter(f"must give each term's weight once. Received: {name!r} twice.", context, option)
        weights[name] = weight
    return weights


score_weights_option = click.option(
    "--score-weights",
    multiple=True,
    callback=_weights_by_objective,
    metavar="TERM=W[,TERM=W...]",
    help="Weights of the combined score, instead of the exported.",
)


def globs_by_table(tables: Sequence[str]) -> dict[str, str]:
    """The globs that `--table` gives, by the name of the table.

    Raises:
      InputError: one is not NAME=GLOB, or of a name that was given before.
    """
    return by_name(tables, "`--table` must read NAME=GLOB, each name once")


def by_name(given: Sequence[str], rule: str) -> dict[str, str]:
    """The values that an option of NAME=VALUE gives, by name.

    Args:
      given: as often as the option stands on the command line.
      rule: begins the sentence for a mistake.

    Raises:
      InputError: one is not NAME=VALUE, or of a name that was given before.
    """
    values: dict[str, str] = {}
    for one in given:
        name, _, value = one.partition("=")
        if not name or not value or name in values:
            raise InputError(f"{rule}. Received: {one!r}.")
        values[name] = value
    return values


def check_json_path(path: Path | None) -> None:
    """Checks before the work that its result can be written.

    Raises:
      InputError: the folder is not there.
    """
    if path is not None and not path.parent.is_dir():
        raise InputError(f"The folder of `--json` must exist. Received: {str(path)!r}.")


def write_json(document: Any, path: Path | None) -> None:
    """Writes the document where `--json` says, whole or not at all; nowhere without it."""
    if path is not None:
        with writing_whole_file(path) as file:
            file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

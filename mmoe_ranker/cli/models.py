"""Commands on the model: `train`, `describe`, `tune`, `evaluate`, `export`."""

from __future__ import annotations

from pathlib import Path

import click

from mmoe_ranker.cli.options import (
    FOLDER,
    allow_breaking_option,
    check_json_path,
    config_option,
    json_option,
    set_option,
    write_json,
)
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.tensorflow_loading import load_tensorflow


@click.command()
@config_option
@click.option("--examples", "examples_path", type=FOLDER, required=True)
@click.option("--workdir", type=FOLDER, required=True, help="Folder for checkpoints, logs and the result.")
@click.option(
    "--from", "start_from", type=FOLDER, help="Workdir of a finished training to go on from, on newer examples."
)
@set_option
def train(
    config_path: str, examples_path: Path, workdir: Path, start_from: Path | None, overrides: tuple[str, ...]
) -> None:
    """Train a ranker; run again after a kill, it goes on; --from takes yesterday's training on."""
    config = load_config(config_path, overrides)
    load_tensorflow(look_for_devices=config.training.distribution.kind in ("none", "mirrored"))
    from mmoe_ranker.training import train as train_ranker

    done_before = (workdir / "training.json").is_file()
    result = train_ranker(config, examples_path, workdir, start_from)
    if done_before:
        click.echo(f"Nothing to do: {workdir} holds this training, of {result['steps']:,} steps, finished.")
        return
    click.echo(f"Trained {result['steps']:,} steps ({result['examples_per_second']:,.0f} examples/s) in {workdir}.")


@click.command()
@config_option
@click.option("--examples", "examples_path", type=FOLDER, help="Folder of examples, for what is counted on them.")
@set_option
@json_option
def describe(config_path: str, examples_path: Path | None, overrides: tuple[str, ...], json_path: Path | None) -> None:
    """Print parameters and multiplications per example of a model, layer by layer."""
    config = load_config(config_path, overrides)
    check_json_path(json_path)
    load_tensorflow()
    from mmoe_ranker.config_matching import check_built_with
    from mmoe_ranker.describe import describe as describe_model
    from mmoe_ranker.describe import format_description
    from mmoe_ranker.statistics import Statistics

    statistics = None
    if examples_path is not None:
        statistics = Statistics.load(examples_path)
        check_built_with(config, load_config(examples_path / "config.yaml"), examples_path)
    description = describe_model(config, statistics)
    write_json(description.as_json(), json_path)
    click.echo(format_description(description))


@click.command()
@config_option
@click.option("--examples", "examples_path", type=FOLDER, required=True)
@click.option("--study", type=FOLDER, required=True, help="Folder for the trials and what they found.")
@click.option("--search", "search_path", type=click.Path(path_type=Path), required=True, help="YAML: what varies.")
@click.option(
    "--trials", type=click.IntRange(min=1), default=20, show_default=True, help="In all, earlier runs included."
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of what is proposed.")
@set_option
def tune(
    config_path: str,
    examples_path: Path,
    study: Path,
    search_path: Path,
    trials: int,
    seed: int,
    overrides: tuple[str, ...],
) -> None:
    """Search config keys with Optuna for the best validation metrics; run again after a kill, it goes on."""
    from mmoe_ranker.tuning_search import load_search

    config, search = load_config(config_path, overrides), load_search(search_path)
    load_tensorflow()
    from mmoe_ranker.tuning import tune as tune_config
    from mmoe_ranker.tuning_report import write_report

    click.echo(write_report(tune_config(config, examples_path, study, search, trials, seed), config, search, study))
    click.echo(f"Wrote trials.csv, the best config and plots to {study}.")


@click.command()
@click.option("--workdir", type=FOLDER, required=True)
@click.option("--examples", "examples_path", type=FOLDER, required=True)
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@json_option
def evaluate(workdir: Path, examples_path: Path, split: str, json_path: Path | None) -> None:
    """Print the metrics of a trained ranker on a split, and keep the predictions in the workdir."""
    load_tensorflow()
    from mmoe_ranker.evaluation import evaluate_workdir
    from mmoe_ranker.evaluation_text import format_report

    check_json_path(json_path)
    report = evaluate_workdir(workdir, examples_path, split)
    write_json(report, json_path)
    click.echo(format_report(report))


@click.command()
@click.option("--workdir", type=FOLDER, required=True)
@click.option("--out", type=FOLDER, required=True, help="Folder of models; the export becomes its next version.")
@click.option("--warmup-log", metavar="GLOB", help="Ranked-list logs: warm up with requests of the sizes in them.")
@allow_breaking_option
def export(workdir: Path, out: Path, warmup_log: str | None, allow_breaking: bool) -> None:
    """Publish the trained ranker as a SavedModel for TF Serving, if it passes all checks of `verify`."""
    load_tensorflow()
    from mmoe_ranker.export import export as export_model
    from serving.logged_requests import add_warm_up
    from serving.verifying.verification import gate

    def warm_up_and_gate(version: Path, previous: Path | None) -> None:
        if warmup_log is not None:
            click.echo(f"Added {add_warm_up(version, warmup_log)} logged requests to the warm-up.")
        gate(version, previous, allow_breaking)

    click.echo(f"Published {export_model(workdir, out, warm_up_and_gate)}.")

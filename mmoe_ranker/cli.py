"""The command line: `mmoe-ranker COMMAND ...`.

Exit status: 0 done; 2 wrong use or bad input, with one sentence on standard error; 1 anything else. Each command
imports what it needs when it runs, so that `--help` is quick and `rank` needs no TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import click
from tqdm import tqdm

from mmoe_ranker import __version__
from mmoe_ranker.cli_errors import sentence_for
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.errors import InputError

_FOLDER = click.Path(path_type=Path, file_okay=False)


def main() -> None:
    """The console script: runs a command and turns what can go wrong into an exit status and a sentence."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        status = cli.main(standalone_mode=False)
    except InputError as error:
        _fail(str(error), 2)
    except click.exceptions.Abort:
        _fail("Stopped by the user.", 1)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" See `{context.command_path} --help`." if context else ""
        _fail(error.format_message() + hint, 2)
    except BrokenPipeError:
        # Whoever read the output has gone, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # to be raised again, unless the system has a sentence for it
        sentence = sentence_for(error)
        if sentence is None:
            raise
        _fail(*sentence)
    else:
        # Click hands back the status of `--help` and of a context's exit, and the value of a command.
        sys.exit(status if isinstance(status, int) else 0)


def _fail(sentence: str, status: int) -> NoReturn:
    click.echo(f"mmoe-ranker: {sentence}", err=True)
    sys.exit(status)


def _load_tensorflow(look_for_devices: bool = True) -> None:
    """Imports TensorFlow without the banner that it writes past its own log level: errors here are one sentence."""
    standard_error = os.dup(2)
    with tempfile.TemporaryFile() as banner:
        os.dup2(banner.fileno(), 2)
        try:
            import tensorflow as tf

            # Looks for devices now, with its messages; a process of a cluster has to name the others before that.
            if look_for_devices:
                tf.constant(0)
        except BaseException:
            banner.seek(0)
            os.write(standard_error, banner.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


@contextlib.contextmanager
def _elapsed(step: str) -> Iterator[None]:
    """Shows on a terminal that a step, which cannot say how far it is, is still at work."""
    done = threading.Event()

    def tick() -> None:
        with tqdm(desc=step, bar_format="{desc}: {elapsed}", leave=False, disable=None) as clock:
            while not done.wait(0.5):
                clock.refresh()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="mmoe-ranker")
def cli() -> None:
    """Multitask ranking from logs to a ranked list: simulate, examples, train, evaluate, export, serve, rank."""
    # Libraries may speak of errors; warnings are for our own parts to give, and they are about the user's data.
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("mmoe_ranker", "pipelines", "serving"):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


_config_option = click.option("--config", "config_path", required=True, help="YAML file, or a preset's name.")
_set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config key.")
_json_option = click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write all of it here too."
)


@cli.command()
@click.option("--out", type=_FOLDER, required=True, help="Folder for the logs; must not exist.")
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


@cli.command()
@click.option("--data", type=_FOLDER, required=True, help="Raw folder of a public data set.")
@click.option("--out", type=_FOLDER, required=True, help="Folder for the logs; must not exist.")
def convert(data: Path, out: Path) -> None:
    """Turn a public data set into logs; prints the name of its preset config."""
    from pipelines.datasets import detect

    dataset = detect(data)
    dataset.convert(data, out)
    click.echo(f"{dataset.name} is the preset for the logs in {out}.")


@cli.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@_config_option
@click.option("--impressions", required=True, metavar="GLOB", help="Ranked-list logs: JSON lines or Parquet.")
@click.option("--feedback", required=True, metavar="GLOB", help="Feedback logs: JSON lines or Parquet.")
@click.option("--out", required=True, metavar="DIR", help="Folder of examples to write.")
@_set_option
@click.pass_context
def examples(
    context: click.Context, config_path: str, impressions: str, feedback: str, out: str, overrides: tuple[str, ...]
) -> None:
    """Join the logs into tf.Examples with Beam; takes every Beam option, such as --runner DataflowRunner."""
    config = load_config(config_path, overrides)
    from pipelines.impressions import run

    with _elapsed("examples"):
        summary = run(config, impressions, feedback, out, context.args)
    for split, counts in summary["splits"].items():
        click.echo(f"{split}: {counts['examples']:,} examples")
    click.echo(f"Wrote {out}; what was read, joined and set aside is in {out}/summary.json.")


@cli.command()
@_config_option
@click.option("--examples", "examples_path", type=_FOLDER, required=True)
@click.option("--workdir", type=_FOLDER, required=True, help="Folder for checkpoints, logs and the result.")
@click.option(
    "--from", "start_from", type=_FOLDER, help="Workdir of a finished training to go on from, on newer examples."
)
@_set_option
def train(
    config_path: str, examples_path: Path, workdir: Path, start_from: Path | None, overrides: tuple[str, ...]
) -> None:
    """Train a ranker; run again after a kill, it goes on; --from takes yesterday's training on."""
    config = load_config(config_path, overrides)
    _load_tensorflow(look_for_devices=config.training.distribution.kind in ("none", "mirrored"))
    from mmoe_ranker.training import train as train_ranker

    done_before = (workdir / "training.json").is_file()
    result = train_ranker(config, examples_path, workdir, start_from)
    if done_before:
        click.echo(f"Nothing to do: {workdir} holds this training, of {result['steps']:,} steps, finished.")
        return
    click.echo(f"Trained {result['steps']:,} steps ({result['examples_per_second']:,.0f} examples/s) in {workdir}.")


@cli.command()
@_config_option
@click.option("--examples", "examples_path", type=_FOLDER, help="Folder of examples, for what is counted on them.")
@_set_option
@_json_option
def describe(config_path: str, examples_path: Path | None, overrides: tuple[str, ...], json_path: Path | None) -> None:
    """Print parameters and multiplications per example of a model, layer by layer."""
    config = load_config(config_path, overrides)
    _check_json(json_path)
    _load_tensorflow()
    from mmoe_ranker.config_matching import check_built_with
    from mmoe_ranker.describe import describe as describe_model
    from mmoe_ranker.describe import format_description
    from mmoe_ranker.statistics import Statistics

    statistics = None
    if examples_path is not None:
        statistics = Statistics.load(examples_path)
        check_built_with(config, load_config(examples_path / "config.yaml"), examples_path)
    description = describe_model(config, statistics)
    _write_json(description.as_json(), json_path)
    click.echo(format_description(description))


@cli.command()
@_config_option
@click.option("--examples", "examples_path", type=_FOLDER, required=True)
@click.option("--study", type=_FOLDER, required=True, help="Folder for the trials and what they found.")
@click.option("--search", "search_path", type=click.Path(path_type=Path), required=True, help="YAML: what varies.")
@click.option(
    "--trials", type=click.IntRange(min=1), default=20, show_default=True, help="In all, earlier runs included."
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of what is proposed.")
@_set_option
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
    _load_tensorflow()
    from mmoe_ranker.tuning import tune as tune_config
    from mmoe_ranker.tuning_report import write_report

    click.echo(write_report(tune_config(config, examples_path, study, search, trials, seed), config, search, study))
    click.echo(f"Wrote trials.csv, the best config and plots to {study}.")


@cli.command()
@click.option("--workdir", type=_FOLDER, required=True)
@click.option("--examples", "examples_path", type=_FOLDER, required=True)
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True)
@_json_option
def evaluate(workdir: Path, examples_path: Path, split: str, json_path: Path | None) -> None:
    """Print the metrics of a trained ranker on a split."""
    _load_tensorflow()
    from mmoe_ranker.evaluation import evaluate_workdir
    from mmoe_ranker.evaluation_text import format_report

    _check_json(json_path)
    report = evaluate_workdir(workdir, examples_path, split)
    _write_json(report, json_path)
    click.echo(format_report(report))


@cli.command()
@click.option("--workdir", type=_FOLDER, required=True)
@click.option("--out", type=_FOLDER, required=True, help="Folder of models; the export becomes its next version.")
def export(workdir: Path, out: Path) -> None:
    """Publish the trained ranker as a SavedModel for TF Serving."""
    _load_tensorflow()
    from mmoe_ranker.export import export as export_model

    click.echo(f"Published {export_model(workdir, out)}.")


@cli.command()
@click.option("--models", type=_FOLDER, required=True, help="Folder of versions, as `export` writes it.")
@click.option("--name", default="ranker", show_default=True, help="Model name that requests use.")
@click.option("--port", type=click.IntRange(0, 65535), default=8500, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; loopback by default.")
def serve(models: Path, name: str, port: int, host: str) -> None:
    """Serve the newest version over TF Serving's gRPC protocol, until stopped."""
    # The server needs none of it, but the protos of tensorflow-serving-api import it.
    _load_tensorflow()
    from serving.server import ModelServer

    server = ModelServer(models, name=name, port=port, host=host)
    server.start()
    click.echo(f"Serving {name} from {models} at {host}:{server.port}.")
    server.wait()


@cli.command()
@click.option("--target", required=True, metavar="HOST:PORT")
@click.option("--name", default="ranker", show_default=True)
@click.option("--request", "source", required=True, metavar="FILE|-", help="JSON: context and candidates.")
@click.option("--timeout", type=click.FloatRange(min=0.001), default=5.0, show_default=True, help="Seconds.")
def rank(target: str, name: str, source: str, timeout: float) -> None:
    """Rank the candidates of a request; prints JSON, best first."""
    from serving.client import RankingClient, RankingError

    request = _read_request(source)
    with RankingClient(target, name=name, timeout=timeout) as client:
        try:
            ranking = client.rank(request)
        except RankingError as error:
            _fail(str(error), 1)
    click.echo(json.dumps(ranking))


def _check_json(path: Path | None) -> None:
    if path is not None and not path.parent.is_dir():
        raise InputError(f"The folder of `--json` must exist. Received: {str(path)!r}.")


def _write_json(document: Any, path: Path | None) -> None:
    if path is not None:
        beside = path.with_name(f".{path.name}.tmp")
        beside.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        beside.replace(path)


def _read_request(source: str) -> Any:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise InputError(
            f"`--request` must be a readable file, or - ({error.strerror}). Received: {source!r}."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"The request must be JSON. Received: {error}.") from None


@cli.command()
@click.option("--out", type=_FOLDER, default=Path("build/demo"), show_default=True, help="Folder for everything made.")
@click.option("--data", type=_FOLDER, default=None, help="Folder of a public data set, instead of simulated logs.")
@click.option("--requests", type=click.IntRange(min=1), default=20_000, show_default=True, help="Simulated lists.")
@click.option("--seed", type=int, default=1, show_default=True)
def demo(out: Path, data: Path | None, requests: int, seed: int) -> None:
    """Do all of it in turn: logs, examples, train, evaluate, export, serve, rank."""
    from mmoe_ranker.demo import run_demo

    run_demo(out, data, requests, seed)

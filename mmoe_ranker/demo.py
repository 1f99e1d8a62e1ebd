"""The demo: every command in turn, each as a process of its own, just as a user would run them by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import click

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.examples import ITEM_ID, META_FIELDS, REQUEST_ID, decode_examples, feature_field

_STEPS = 8
_CANDIDATES = 10


def run_demo(out: Path, data: Path | None, requests: int, seed: int) -> None:
    """Runs all commands and prints the evaluation table and a ranked list.

    Args:
      out: folder for everything made, new or empty.
      data: folder of a public data set, or None to simulate.
      requests: simulated ranked lists.
      seed: of the simulation and the training.

    Raises:
      InputError: `out` holds something.
      SystemExit: a command failed, with its exit status; it has said why.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"`--out` must be a new or empty folder. Received: {str(out)!r}, which holds something.")
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    logs, examples, workdir, models = out / "logs", out / "examples", out / "workdir", out / "models"
    if data is None:
        preset, pattern = "watch_next", "jsonl"
        _run(1, ["simulate", "--out", logs, "--requests", requests, "--seed", seed])
    else:
        pattern = "parquet"
        preset = _run(1, ["convert", "--data", data, "--out", logs]).split()[0]
    impressions, feedback = logs / f"impressions*.{pattern}", logs / f"feedback*.{pattern}"
    _run(2, ["examples", "--config", preset, "--impressions", impressions, "--feedback", feedback, "--out", examples])
    training = ["--config", preset, "--examples", examples, "--workdir", workdir, "--set", f"training.seed={seed}"]
    _run(3, ["train", *training])
    report = out / "evaluation.json"
    table = _run(4, ["evaluate", "--workdir", workdir, "--examples", examples, "--json", report])
    page = out / "report.html"
    _run(5, ["report", "--workdir", workdir, "--out", page])
    _run(6, ["export", "--workdir", workdir, "--out", models])
    request = out / "request.json"
    config = load_config(workdir / "config.yaml")
    request.write_text(json.dumps(request_from_examples(config, examples), indent=1) + "\n", encoding="utf-8")
    ranking = _serve_and_rank(models, request)
    (out / "ranking.json").write_text(ranking, encoding="utf-8")
    click.echo(f"\nEvaluation on the test split ({report})\n\n{table}")
    click.echo(f"One request, ranked over gRPC ({request})\n")
    for place, candidate in enumerate(json.loads(ranking)["ranking"], start=1):
        fields = (
            f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}" for key, value in candidate.items()
        )
        click.echo(f"{place:3d}.  " + "  ".join(fields))
    click.echo(f"\nDone in {time.perf_counter() - started:.0f} s; everything is in {out}, to be looked at in {page}.")


def request_from_examples(config: Config, examples: Path) -> dict[str, Any]:
    """A request as `rank` reads it, made of the first impressions of the test split.

    Args:
      config: names the features.
      examples: folder of examples.

    Returns:
      `{"context": {...}, "candidates": [{...}, ...]}`: the context of the first impression, and the items of its
      request, followed by those of later ones where the request has fewer than ten.
    """
    from mmoe_ranker.dataset import serialized_examples

    fields = [feature_field(config, feature) for feature in config.served_features]
    records = (record.numpy() for record in serialized_examples(examples, "test"))
    columns = decode_examples(_enough(records), [*fields, *META_FIELDS])
    first_request = columns[REQUEST_ID][0]
    rows = sorted(range(len(columns[ITEM_ID])), key=lambda row: columns[REQUEST_ID][row] != first_request)
    distinct = {columns[ITEM_ID][row]: row for row in reversed(rows)}
    chosen = sorted(distinct.values(), key=rows.index)[:_CANDIDATES]
    context = {feature.name: columns[feature.name][rows[0]] for feature in config.side("context")}
    names = [feature.name for feature in config.side("candidate")]
    candidates = [{config.item_key: columns[ITEM_ID][row]} | {n: columns[n][row] for n in names} for row in chosen]
    return {"context": context, "candidates": candidates}


def _enough(records: Iterable[bytes]) -> list[bytes]:
    return list(islice(records, 20 * _CANDIDATES))


def _command(arguments: list[Any]) -> list[str]:
    return [sys.executable, "-m", "mmoe_ranker", *map(str, arguments)]


def _run(step: int, arguments: list[Any]) -> str:
    click.echo(f"[{step}/{_STEPS}] mmoe-ranker {' '.join(map(str, arguments))}")
    started = time.perf_counter()
    done = subprocess.run(_command(arguments), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        click.echo(f"The demo stopped at `{arguments[0]}`, for the reason above.", err=True)
        sys.exit(done.returncode)
    click.echo(f"      {time.perf_counter() - started:.0f} s")
    return done.stdout


def _serve_and_rank(models: Path, request: Path) -> str:
    arguments = ["serve", "--models", models, "--port", 0]
    click.echo(f"[7/{_STEPS}] mmoe-ranker {' '.join(map(str, arguments))}")
    with subprocess.Popen(_command(arguments), stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                click.echo("The demo stopped at `serve`, for the reason above.", err=True)
                sys.exit(server.wait())
            target = line.split()[-1].rstrip(".")
            return _run(8, ["rank", "--target", target, "--request", request])
        finally:
            server.terminate()

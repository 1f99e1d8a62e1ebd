"""Commands on the exported model: `serve`, `rank`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from mmoe_ranker.cli.options import FOLDER
from mmoe_ranker.cli.terminal import fail
from mmoe_ranker.errors import InputError
from mmoe_ranker.tensorflow_loading import load_tensorflow


@click.command()
@click.option("--models", type=FOLDER, required=True, help="Folder of versions, as `export` writes it.")
@click.option("--name", default="ranker", show_default=True, help="Model name that requests use.")
@click.option("--port", type=click.IntRange(0, 65535), default=8500, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; loopback by default.")
def serve(models: Path, name: str, port: int, host: str) -> None:
    """Serve the newest version over TF Serving's gRPC protocol, until stopped."""
    # The server needs none of it, but the protos of tensorflow-serving-api import it.
    load_tensorflow()
    from serving.server import ModelServer

    server = ModelServer(models, name=name, port=port, host=host)
    server.start()
    click.echo(f"Serving {name} from {models} at {host}:{server.port}.")
    server.wait()


@click.command()
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
            fail(str(error), 1)
    click.echo(json.dumps(ranking))


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

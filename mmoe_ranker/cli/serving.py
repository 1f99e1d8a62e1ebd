"""Commands on the exported model: `serve`, `rank`."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from mmoe_ranker.cli.options import FOLDER, score_weights_option
from mmoe_ranker.cli.terminal import fail
from mmoe_ranker.errors import InputError
from mmoe_ranker.tensorflow_loading import load_tensorflow

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.option("--models", type=FOLDER, required=True, help="Folder of versions, as `export` writes it.")
@click.option("--name", default="ranker", show_default=True, help="Model name that requests use.")
@click.option("--port", type=click.IntRange(0, 65535), default=8500, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; loopback by default.")
@click.option("--poll-seconds", type=click.FloatRange(min=0), default=1.0, show_default=True, help="0 looks once.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Show Prometheus metrics on this port.")
@click.option("--tls-key", type=_FILE, help="PEM file of the server's private key.")
@click.option("--tls-cert", type=_FILE, help="PEM file of its certificate.")
@click.option("--tls-client-ca", type=_FILE, help="PEM file: clients must have a certificate of this authority.")
@click.option("--max-request-bytes", type=click.IntRange(1, 2**31 - 1), default=2**31 - 1, show_default=True)
def serve(
    models: Path,
    name: str,
    port: int,
    host: str,
    poll_seconds: float,
    metrics_port: int | None,
    tls_key: Path | None,
    tls_cert: Path | None,
    tls_client_ca: Path | None,
    max_request_bytes: int,
) -> None:
    """Serve the newest version over TF Serving's gRPC protocol, until stopped."""
    if (tls_key is None) != (tls_cert is None) or (tls_client_ca is not None and tls_cert is None):
        given = [f"--tls-{what}" for what, path in _named(tls_key, tls_cert, tls_client_ca) if path is not None]
        raise InputError(
            f"`--tls-key` and `--tls-cert` are given together, with or without `--tls-client-ca`. "
            f"Received: {' and '.join(given)} alone."
        )
    # The server needs none of it, but the protos of tensorflow-serving-api import it.
    load_tensorflow()
    from serving.server import ModelServer
    from serving.tls import server_credentials

    server = ModelServer(
        models,
        name=name,
        port=port,
        host=host,
        poll_seconds=poll_seconds,
        metrics_port=metrics_port,
        credentials=server_credentials(tls_key, tls_cert, tls_client_ca) if tls_key and tls_cert else None,
        max_request_bytes=max_request_bytes,
    )
    server.start()

    def announce() -> None:
        if metrics_port is not None:
            click.echo(f"Metrics at http://{host}:{server.metrics_port}/monitoring/prometheus/metrics")
        click.echo(f"Serving {name} from {models} at {host}:{server.port}.")

    server.wait(announce)


def _named(*paths: Path | None) -> list[tuple[str, Path | None]]:
    return list(zip(("key", "cert", "client-ca"), paths, strict=True))


@click.command()
@click.option("--target", required=True, metavar="HOST:PORT")
@click.option("--name", default="ranker", show_default=True)
@click.option("--request", "source", required=True, metavar="FILE|-", help="JSON: context and candidates.")
@click.option("--timeout", type=click.FloatRange(min=0.001), default=5.0, show_default=True, help="Seconds.")
@score_weights_option
@click.option("--explain", is_flag=True, help="Add what each objective contributed to the (log) score.")
@click.option("--tls-ca", type=_FILE, help="Encrypt; PEM file of the authority that signed the server's certificate.")
@click.option("--tls-key", type=_FILE, help="PEM file of this client's private key, if the server asks for one.")
@click.option("--tls-cert", type=_FILE, help="PEM file of its certificate.")
@click.option("--log", "log_path", type=FOLDER, help="Folder: log the ranked list there, and print its request id.")
def rank(
    target: str,
    name: str,
    source: str,
    timeout: float,
    score_weights: dict[str, float],
    explain: bool,
    tls_ca: Path | None,
    tls_key: Path | None,
    tls_cert: Path | None,
    log_path: Path | None,
) -> None:
    """Rank the candidates of a request; prints JSON, best first."""
    if (tls_key is None) != (tls_cert is None) or (tls_key is not None and tls_ca is None):
        given = [f"--tls-{what}" for what, path in zip(("key", "cert"), (tls_key, tls_cert), strict=True) if path]
        raise InputError(
            f"`--tls-key` and `--tls-cert` are given together, and with `--tls-ca`. Received: {' and '.join(given)} "
            f"{'with' if tls_ca else 'without'} `--tls-ca`."
        )
    from serving.client import RankingClient, RankingError
    from serving.ranked_list_log import RankedListLog

    credentials = None
    if tls_ca is not None:
        from serving.tls import channel_credentials

        credentials = channel_credentials(tls_ca, tls_key, tls_cert)
    request = _read_request(source)
    with (
        nullcontext() if log_path is None else RankedListLog(log_path) as log,
        RankingClient(target, name=name, timeout=timeout, credentials=credentials, log=log) as client,
    ):
        try:
            ranking = client.rank(request, score_weights, explain)
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

"""TLS from PEM files that openssl made, with and without certificates of clients."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from mmoe_ranker.cli import cli
from mmoe_ranker.errors import InputError
from serving.client import RankingClient
from serving.server import ModelServer
from serving.tls import channel_credentials, server_credentials
from tests.serving.conftest import MODEL, Stubs, predict_request
from tests.serving.ranker_requests import REQUEST

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes certificates, is absent")


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files NAME.key and NAME.cert: an authority `ca`, `server` and `client` signed by it, and a `stranger`."""
    folder = tmp_path_factory.mktemp("pem")
    elliptic = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", 2)
    for name in ("ca", "stranger"):
        openssl(
            *("req", "-x509", *elliptic, "-subj", f"/CN={name}"),
            *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.cert"),
        )
    for name in ("server", "client"):
        openssl(
            *("req", "-x509", *elliptic, "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-CA", folder / "ca.cert", "-CAkey", folder / "ca.key"),
            *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.cert"),
        )
    return folder


def y(server: ModelServer, credentials: grpc.ChannelCredentials | None) -> float:
    address = f"127.0.0.1:{server.port}"
    with grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address) as channel:
        answer = Stubs(channel).prediction.Predict(predict_request(x=[2.0]), timeout=10)
        return answer.outputs["y"].float_val[0]


def grpc_credentials(pem: Path, client: str = "") -> grpc.ChannelCredentials:
    own = [(pem / f"{client}.{kind}").read_bytes() for kind in ("key", "cert")] if client else []
    return grpc.ssl_channel_credentials((pem / "ca.cert").read_bytes(), *own)


def refused(server: ModelServer, credentials: grpc.ChannelCredentials | None) -> bool:
    with pytest.raises(grpc.RpcError) as caught:
        y(server, credentials)
    return caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_server_certificate(half_plus_two, pem):
    credentials = server_credentials(pem / "server.key", pem / "server.cert")
    with ModelServer(half_plus_two, name=MODEL, port=0, credentials=credentials) as server:
        assert y(server, grpc_credentials(pem)) == 3.0
        assert refused(server, None)
        stranger = grpc.ssl_channel_credentials((pem / "stranger.cert").read_bytes())
        assert refused(server, stranger)


def test_client_certificate(half_plus_two, pem):
    credentials = server_credentials(pem / "server.key", pem / "server.cert", pem / "ca.cert")
    with ModelServer(half_plus_two, name=MODEL, port=0, credentials=credentials) as server:
        assert y(server, grpc_credentials(pem, "client")) == 3.0
        assert refused(server, grpc_credentials(pem))
        assert refused(server, grpc_credentials(pem, "stranger"))


@pytest.fixture(scope="module")
def ranker(exports: Path, pem: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A server that asks for a client's certificate."""
    folder = tmp_path_factory.mktemp("tls")
    shutil.copytree(exports / "ranker", folder / "1")
    credentials = server_credentials(pem / "server.key", pem / "server.cert", pem / "ca.cert")
    with ModelServer(folder, port=0, credentials=credentials) as server:
        yield server


def test_ranking_client(ranker, pem):
    target = f"127.0.0.1:{ranker.port}"
    own = (pem / "client.key", pem / "client.cert")
    with RankingClient(target, credentials=channel_credentials(pem / "ca.cert", *own)) as client:
        assert len(client.rank(REQUEST)["ranking"]) == 3
    for wrong in [(pem / "ca.cert",), (pem / "stranger.cert", *own)]:
        with (
            RankingClient(target, credentials=channel_credentials(*wrong), timeout=20) as client,
            pytest.raises(InputError, match=r"No model server answers at the target .* Received: 127"),
        ):
            client.rank(REQUEST)


def test_rank_command(ranker, pem, tmp_path):
    (tmp_path / "request.json").write_text(json.dumps(REQUEST))
    rank = ["rank", "--target", f"127.0.0.1:{ranker.port}", "--request", str(tmp_path / "request.json")]
    files = ["--tls-ca", pem / "ca.cert", "--tls-key", pem / "client.key", "--tls-cert", pem / "client.cert"]
    result = CliRunner().invoke(
        cli, [*rank, *map(str, files), "--score-weights", "click=0.5", "--score-weights=like=2"]
    )
    assert result.exit_code == 0, result.output
    with RankingClient(rank[2], credentials=channel_credentials(*map(Path, files[1::2]))) as client:
        assert json.loads(result.output) == client.rank(REQUEST, {"click": 0.5, "like": 2.0})
    alone = CliRunner().invoke(cli, [*rank, *map(str, files[:2])])
    assert "No model server answers" in str(alone.exception)


@pytest.mark.parametrize(
    ("given", "received"),
    [
        (["key"], "--tls-key without `--tls-ca`"),
        (["ca", "cert"], "--tls-cert with `--tls-ca`"),
        (["key", "cert"], "--tls-key and --tls-cert without `--tls-ca`"),
    ],
)
def test_options_of_rank_that_belong_together(pem, given, received):
    files = {"ca": "ca.cert", "key": "client.key", "cert": "client.cert"}
    arguments = [part for what in given for part in (f"--tls-{what}", str(pem / files[what]))]
    result = CliRunner().invoke(cli, ["rank", "--target", "127.0.0.1:1", "--request", "-", *arguments], input="{}")
    assert isinstance(result.exception, InputError)
    assert str(result.exception).endswith(f"and with `--tls-ca`. Received: {received}.")


def test_files_of_a_client_that_do_not_fit(pem, tmp_path):
    (tmp_path / "no.pem").write_text("no PEM")
    with pytest.raises(InputError, match=r"The CA must be a readable PEM file of certificates .*Received: .*no\.pem"):
        channel_credentials(tmp_path / "no.pem")
    with pytest.raises(InputError, match=r"files of one pair.*Received: .*stranger\.key and .*client\.cert"):
        channel_credentials(pem / "ca.cert", pem / "stranger.key", pem / "client.cert")


@pytest.mark.parametrize("alone", ["key", "cert"])
def test_key_and_certificate_of_a_client_belong_together(pem, alone):
    with pytest.raises(
        InputError, match=rf"`key` and `cert` of a client are given together, .*: .*client\.{alone} alone"
    ):
        channel_credentials(pem / "ca.cert", **{alone: pem / f"client.{alone}"})


def test_key_of_another_pair(pem):
    with pytest.raises(InputError, match=r"must be readable PEM files of one pair.*Received: .*stranger\.key and "):
        server_credentials(pem / "stranger.key", pem / "server.cert")


def test_no_pem(pem, tmp_path):
    (tmp_path / "no.pem").write_text("no PEM")
    with pytest.raises(InputError, match=r"must be readable PEM files of one pair"):
        server_credentials(tmp_path / "no.pem", pem / "server.cert")
    with pytest.raises(InputError, match=r"The client CA must be a readable PEM file.*Received: .*no\.pem"):
        server_credentials(pem / "server.key", pem / "server.cert", tmp_path / "no.pem")


def test_key_with_a_password_is_refused_without_asking_for_it(pem, tmp_path):
    locked = tmp_path / "locked.key"
    openssl("ec", "-in", pem / "server.key", "-aes256", "-passout", "pass:secret", "-out", locked)
    with pytest.raises(InputError, match="the key without a password"):
        server_credentials(locked, pem / "server.cert")


@pytest.mark.parametrize("given", [["key"], ["cert"], ["client-ca"], ["key", "client-ca"]])
def test_options_that_belong_together(pem, given):
    files = {"key": "server.key", "cert": "server.cert", "client-ca": "ca.cert"}
    arguments = [part for what in given for part in (f"--tls-{what}", str(pem / files[what]))]
    result = CliRunner().invoke(cli, ["serve", "--models", str(pem), *arguments])
    assert isinstance(result.exception, InputError | SystemExit)
    received = " and ".join(f"--tls-{what}" for what in given)
    assert f"Received: {received} alone." in str(result.exception) + result.output

"""TLS for server and client, from PEM files.

TF Serving's `--ssl_config_file` holds the contents of the same files as `server_key`, `server_cert` and `custom_ca`;
naming a client CA here is its `client_verify: true`: a client without a certificate of that authority is turned away.
"""

from __future__ import annotations

import pathlib
import ssl

import grpc

from mmoe_ranker.errors import InputError


def server_credentials(
    key: pathlib.Path, cert: pathlib.Path, client_ca: pathlib.Path | None = None
) -> grpc.ServerCredentials:
    """Reads and checks the files; a file that is replaced later is read at the next start.

    Args:
        key: The server's private key, without a password.
        cert: Its certificate, followed by those of the authorities between, if any.
        client_ca: Certificates of the authorities that sign clients' certificates; None asks clients for none.

    Raises:
        InputError: a file cannot be read, is no PEM, or key and certificate are of different pairs.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _check_pair(context, key, cert)
    if client_ca is not None:
        _check_authority(context, client_ca, "client CA")
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), cert.read_bytes())],
        root_certificates=client_ca.read_bytes() if client_ca else None,
        require_client_auth=client_ca is not None,
    )


def channel_credentials(
    ca: pathlib.Path, key: pathlib.Path | None = None, cert: pathlib.Path | None = None
) -> grpc.ChannelCredentials:
    """Reads and checks the files of a client.

    Args:
        ca: Certificates of the authorities that may have signed the server's certificate. That must be of the name or
            address by which the client calls the server.
        key: The client's own private key, without a password, where the server asks for a certificate.
        cert: The client's certificate, followed by those of the authorities between, if any; beside `key`.

    Raises:
        InputError: a file cannot be read, is no PEM, or key and certificate are of different pairs or not both given.
    """
    if (key is None) != (cert is None):
        raise InputError(f"`key` and `cert` of a client are given together, or neither. Received: {key or cert} alone.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _check_authority(context, ca, "CA")
    if key is None or cert is None:
        return grpc.ssl_channel_credentials(ca.read_bytes())
    _check_pair(context, key, cert)
    return grpc.ssl_channel_credentials(ca.read_bytes(), key.read_bytes(), cert.read_bytes())


def _check_pair(context: ssl.SSLContext, key: pathlib.Path, cert: pathlib.Path) -> None:
    try:
        context.load_cert_chain(cert, key, password="")  # without one, OpenSSL would ask on the terminal
    except (OSError, ValueError) as error:
        raise InputError(
            f"The TLS key and certificate must be readable PEM files of one pair, the key without a password ({error})."
            f" Received: {key} and {cert}"
        ) from error


def _check_authority(context: ssl.SSLContext, file: pathlib.Path, name: str) -> None:
    try:
        context.load_verify_locations(file)
    except OSError as error:
        raise InputError(
            f"The {name} must be a readable PEM file of certificates ({error}). Received: {file}"
        ) from error

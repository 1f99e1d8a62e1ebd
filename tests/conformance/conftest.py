"""One server for the whole suite: the one at CONFORMANCE_TARGET, or this package's own on a model made for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.server import ModelServer
from tests.conformance.target import NAME, Target, write_model
from tests.serving.conftest import Stubs


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    given = Target.from_environment()
    if given is not None:
        yield given
        return
    models = tmp_path_factory.mktemp("conformance")
    write_model(models)
    with ModelServer(models, name=NAME, port=0, poll_seconds=0.1, metrics_port=0) as server:
        yield Target(f"127.0.0.1:{server.port}", models, f"127.0.0.1:{server.metrics_port}")


@pytest.fixture(scope="session")
def stubs(target: Target) -> Iterator[Stubs]:
    with target.channel() as channel:
        yield Stubs(channel)

"""Versions put into a server's folder, what the server says of them, and waiting until it does."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import time

from tensorflow_serving.apis import get_model_status_pb2

from serving.server import ModelServer
from serving.versions import State
from tests.serving.conftest import MODEL, Stubs, open_channel, predict_request

POLL = 0.05


@contextlib.contextmanager
def serving(folder: pathlib.Path):
    with ModelServer(folder, name=MODEL, port=0, poll_seconds=POLL) as server, open_channel(server) as channel:
        yield Stubs(channel)


def publish(source: pathlib.Path, target: pathlib.Path) -> None:
    beside = target.with_name(f"tmp-{target.name}")
    shutil.copytree(source, beside)
    beside.rename(target)


def answer(stubs: Stubs, version: int | None = None) -> tuple[int, float]:
    """The version that answered and y of x = 2: 3 from `two`, 4 from `three`."""
    request = predict_request(x=[2.0])
    if version is not None:
        request.model_spec.version.value = version
    response = stubs.prediction.Predict(request)
    return response.model_spec.version.value, response.outputs["y"].float_val[0]


def states(stubs: Stubs) -> dict[int, tuple[str, int, str]]:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = MODEL
    return {
        status.version: (State(status.state).name, status.status.error_code, status.status.error_message)
        for status in stubs.model.GetModelStatus(request).model_version_status
    }


def until(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)

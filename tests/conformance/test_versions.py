"""Versions come and go below the server's folder, as its clients see it; each test leaves version 123 alone again."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, prediction_log_pb2

from tests.conformance.target import NAME, VERSION, Target, write_model
from tests.serving.conftest import Stubs, predict_request
from tests.serving.published_versions import answer, until

AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE
END = get_model_status_pb2.ModelVersionStatus.END


@pytest.fixture
def models(target: Target, stubs: Stubs) -> Iterator[Path]:
    if target.models is None:
        pytest.skip("the folder that the target serves is not given (MODELS)")
    yield target.models
    for folder in target.models.iterdir():
        if folder.name != str(VERSION):
            shutil.rmtree(folder)
    until(lambda: answer(stubs) == (VERSION, 3.0))


@pytest.fixture(scope="module")
def successor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = x / 2 + 3, to be published by a copy."""
    return write_model(tmp_path_factory.mktemp("successor"), offset=3.0)


def statuses(stubs: Stubs) -> list[tuple[int, int, int]]:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = NAME
    found = stubs.model.GetModelStatus(request).model_version_status
    return [(status.version, status.state, status.status.error_code) for status in found]


def publish(source: Path, models: Path, name: str) -> None:
    shutil.copytree(source, models / f".{name}")
    (models / f".{name}").rename(models / name)


@contextlib.contextmanager
def asking(stubs: Stubs) -> Iterator[list[object]]:
    """Asks without a pause meanwhile; whatever is not an answer is in the list."""
    failures: list[object] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                answer(stubs)
            except grpc.RpcError as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_new_version_takes_over_and_goes_without_a_failed_request(stubs, models, successor):
    with asking(stubs) as failures:
        publish(successor, models, "124")
        until(lambda: answer(stubs) == (124, 4.0))
        assert answer(stubs, 124) == (124, 4.0)
        until(lambda: statuses(stubs)[-2:] == [(124, AVAILABLE, 0), (123, END, 0)])
        with pytest.raises(grpc.RpcError, match=rf"Servable not found for request: Specific\({NAME}, 123\)"):
            answer(stubs, 123)
        shutil.rmtree(models / "124")
        until(lambda: answer(stubs) == (123, 3.0))
    assert not failures


def cut_graph(version: Path) -> None:
    graph = version / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:100])


def lose_variables(version: Path) -> None:
    (version / "variables" / "variables.data-00000-of-00001").unlink()


def spoil_warm_up_file(version: Path) -> None:
    file = version / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    file.write_bytes(b"this is no TFRecord file")


def record_wrong_warm_up_request(version: Path) -> None:
    spoil_warm_up_file(version)
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(predict_request("no such signature", x=[2.0]))
    with tf.io.TFRecordWriter(str(version / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())


@pytest.mark.parametrize(
    ("version", "damage"),
    [(130, cut_graph), (140, lose_variables), (150, spoil_warm_up_file), (160, record_wrong_warm_up_request)],
)
def test_version_that_does_not_load_is_never_served(stubs, models, successor, version, damage):
    broken = models / ".broken"
    shutil.copytree(successor, broken)
    damage(broken)
    with asking(stubs) as failures:
        broken.rename(models / str(version))
        until(lambda: version in [status[0] for status in statuses(stubs)])
        time.sleep(0.5)
        (state,) = (status[1] for status in statuses(stubs) if status[0] == version)
        assert state != AVAILABLE  # a real server is still trying: six times, a minute apart
        assert answer(stubs) == (123, 3.0)
        with pytest.raises(grpc.RpcError, match=rf"Servable not found for request: Specific\({NAME}, {version}\)"):
            answer(stubs, version)
        publish(successor, models, str(version + 1))  # and a good one after it is served
        until(lambda: answer(stubs) == (version + 1, 4.0))
    assert not failures


def test_only_names_that_are_numbers_are_versions(stubs, models, successor):
    publish(successor, models, "127.bad")
    publish(successor, models, "latest")
    publish(successor, models, "000128")
    until(lambda: answer(stubs) == (128, 4.0))
    assert (128, AVAILABLE, 0) in statuses(stubs)
    listed = [version for version, _, _ in statuses(stubs)]
    assert listed == sorted(listed, reverse=True)

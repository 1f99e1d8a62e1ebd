"""Versions in integer folders: which one is served, how it is replaced, and what happens to a broken one."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import threading
import time

import grpc
import numpy as np
import pytest
from tensorflow_serving.apis import get_model_status_pb2

from mmoe_ranker.errors import InputError
from serving.server import ModelServer
from serving.session import SavedModel
from serving.status import StatusError
from serving.versions import ModelVersions, State
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


def until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)


def test_highest_integer_folder_is_served(exports, tmp_path):
    shutil.copytree(exports / "two", tmp_path / "9")
    shutil.copytree(exports / "three", tmp_path / "00010")  # leading zeros are passed over
    for name in ("tmp-11", "x12", "13.old", "-14"):
        shutil.copytree(exports / "two", tmp_path / name)
    (tmp_path / "99").write_text("a file is no version")
    with serving(tmp_path) as stubs:
        assert answer(stubs) == (10, 4.0)
        assert states(stubs) == {10: ("AVAILABLE", 0, "")}


def test_new_version_replaces_the_old_without_a_failed_request(exports, tmp_path):
    shutil.copytree(exports / "two", tmp_path / "1")
    with serving(tmp_path) as stubs:
        answers, failures, done = [], [], threading.Event()

        def ask() -> None:
            while not done.is_set():
                try:
                    answers.append(answer(stubs))
                except grpc.RpcError as error:
                    failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        publish(exports / "three", tmp_path / "2")
        until(lambda: answers[-1:] == [(2, 4.0)])
        publish(exports / "two", tmp_path / "3")
        until(lambda: answers[-1:] == [(3, 3.0)])
        done.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert set(answers) == {(1, 3.0), (2, 4.0), (3, 3.0)}
        until(lambda: states(stubs)[2][0] == "END")
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = MODEL
        listed = [status.version for status in stubs.model.GetModelStatus(request).model_version_status]
        assert listed == [3, 2, 1]
        assert states(stubs) == {3: ("AVAILABLE", 0, ""), 2: ("END", 0, ""), 1: ("END", 0, "")}
        with pytest.raises(grpc.RpcError, match=r"Servable not found for request: Specific\(half_plus_two, 1\)"):
            answer(stubs, version=1)


@pytest.mark.parametrize("lacking", ["variables.index", "variables.data-00000-of-00001"])
def test_broken_version_is_reported_and_never_served(exports, tmp_path, lacking):
    shutil.copytree(exports / "two", tmp_path / "1")
    with serving(tmp_path) as stubs:
        broken = tmp_path / "tmp-2"
        shutil.copytree(exports / "three", broken)
        (broken / "variables" / lacking).unlink()
        broken.rename(tmp_path / "2")
        until(lambda: states(stubs).get(2, ("",))[0] == "END")
        _, code, message = states(stubs)[2]
        assert code != 0
        assert "variables" in message
        assert answer(stubs) == (1, 3.0)
        with pytest.raises(grpc.RpcError) as caught:
            answer(stubs, version=2)
        assert caught.value.details() == f"Servable not found for request: Specific({MODEL}, 2)"
        # Not tried again while it lies there; a later version is.
        time.sleep(4 * POLL)
        assert states(stubs)[2][0] == "END"
        publish(exports / "three", tmp_path / "3")
        until(lambda: answer(stubs) == (3, 4.0))


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "no graph"])
def test_corrupt_saved_model_is_reported(exports, tmp_path, damage):
    shutil.copytree(exports / "two", tmp_path / "1")
    shutil.copytree(exports / "three", tmp_path / "tmp")
    graph = tmp_path / "tmp" / "saved_model.pb"
    content = graph.read_bytes()
    if damage == "no graph":
        graph.unlink()
    else:
        graph.write_bytes({"cut": content[: len(content) // 2], "garbage": b"\x07" * 500, "empty": b""}[damage])
    with serving(tmp_path) as stubs:
        (tmp_path / "tmp").rename(tmp_path / "2")
        until(lambda: states(stubs).get(2, ("",))[0] == "END")
        assert states(stubs)[2][1] != 0
        assert answer(stubs) == (1, 3.0)


def test_taking_the_latest_version_away_goes_back_to_the_one_before(exports, tmp_path):
    shutil.copytree(exports / "two", tmp_path / "1")
    shutil.copytree(exports / "three", tmp_path / "2")
    with serving(tmp_path) as stubs:
        assert answer(stubs) == (2, 4.0)
        (tmp_path / "2").rename(tmp_path / "old-2")
        until(lambda: answer(stubs) == (1, 3.0))
        (tmp_path / "old-2").rename(tmp_path / "2")
        until(lambda: answer(stubs) == (2, 4.0))


def test_failed_version_that_was_taken_away_is_tried_again_when_it_comes_back(exports, tmp_path):
    shutil.copytree(exports / "two", tmp_path / "1")
    with serving(tmp_path) as stubs:
        (tmp_path / "2").mkdir()
        until(lambda: states(stubs).get(2, ("",))[0] == "END")
        (tmp_path / "2").rmdir()
        time.sleep(6 * POLL)
        publish(exports / "three", tmp_path / "2")
        until(lambda: answer(stubs) == (2, 4.0))
        assert states(stubs)[2] == ("AVAILABLE", 0, "")


def test_without_any_version_left_nothing_is_served_until_one_comes(exports, tmp_path):
    shutil.copytree(exports / "two", tmp_path / "1")
    with serving(tmp_path) as stubs:
        (tmp_path / "1").rename(tmp_path / "gone")
        until(lambda: states(stubs)[1][0] == "END")
        with pytest.raises(grpc.RpcError, match=r"Servable not found for request: Latest\(half_plus_two\)"):
            answer(stubs)
        publish(exports / "three", tmp_path / "2")
        until(lambda: states(stubs).get(2, ("",))[0] == "AVAILABLE")
        assert answer(stubs) == (2, 4.0)


def test_base_folder_that_is_away_for_a_moment_changes_nothing(exports, tmp_path):
    base = tmp_path / "models"
    shutil.copytree(exports / "two", base / "1")
    with serving(base) as stubs:
        base.rename(tmp_path / "away")
        time.sleep(4 * POLL)
        assert answer(stubs) == (1, 3.0)
        shutil.copytree(exports / "three", tmp_path / "away" / "2")
        (tmp_path / "away").rename(base)
        until(lambda: answer(stubs) == (2, 4.0))


def test_old_version_is_freed_only_after_its_last_request(exports, tmp_path):
    shutil.copytree(exports / "two", tmp_path / "1")
    with serving(tmp_path) as stubs:
        # about a second of loop on version 1, while version 2 takes over
        slow = stubs.prediction.Predict.future(predict_request("slow", steps=np.int64(300_000)))
        time.sleep(0.1)
        publish(exports / "three", tmp_path / "2")
        until(lambda: answer(stubs) == (2, 4.0))
        if not slow.done():
            assert states(stubs)[1][0] == "UNLOADING"
        assert slow.result().outputs["steps"].int64_val[0] == 300_000
        assert slow.result().model_spec.version.value == 1
        until(lambda: states(stubs)[1][0] == "END")


def test_lease_keeps_a_retired_version_open(exports, tmp_path):
    shutil.copytree(exports / "two", tmp_path / "1")
    versions = ModelVersions(MODEL, tmp_path, POLL)
    versions.start()
    try:
        with versions.lease(MODEL) as servable:
            publish(exports / "three", tmp_path / "2")
            until(lambda: [status.state for status in versions.statuses()] == [State.AVAILABLE, State.UNLOADING])
            time.sleep(4 * POLL)
            assert servable.model.run("constant", {})["answer"].int_val == [42]
        until(lambda: [status.state for status in versions.statuses()] == [State.AVAILABLE, State.END])
    finally:
        versions.stop()


class SlowLoading:
    """Version 2's load takes until `release`; `closed` counts the models of it that were freed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loading, self.release, self.closed = threading.Event(), threading.Event(), 0
        load = SavedModel.load

        def slow(folder: pathlib.Path) -> SavedModel:
            model = load(folder)
            if folder.name == "2":
                close = model.close
                monkeypatch.setattr(model, "close", lambda: (close(), self._count()))
                self.loading.set()
                assert self.release.wait(30)
            return model

        monkeypatch.setattr(SavedModel, "load", slow)

    def _count(self) -> None:
        self.closed += 1


def test_stop_does_not_wait_for_a_load_without_an_end(exports, tmp_path, monkeypatch):
    monkeypatch.setattr("serving.versions._LOAD_SECONDS", 0.2)
    slow = SlowLoading(monkeypatch)
    shutil.copytree(exports / "two", tmp_path / "1")
    versions = ModelVersions(MODEL, tmp_path, POLL)
    versions.start()
    try:
        publish(exports / "three", tmp_path / "2")
        assert slow.loading.wait(20)
        began = time.monotonic()
        stopping = threading.Thread(target=versions.stop)
        stopping.start()
        stopping.join(10)
        assert not stopping.is_alive()
        assert time.monotonic() - began < 5
        assert [(status.version, status.state) for status in versions.statuses()] == [
            (2, State.LOADING),
            (1, State.END),
        ]
        assert slow.closed == 0  # its thread still uses it
    finally:
        slow.release.set()
    until(lambda: [status.state for status in versions.statuses()] == [State.END, State.END])
    assert slow.closed == 1
    with pytest.raises(StatusError, match="Servable not found"), versions.lease(MODEL):
        pass


def test_version_whose_load_ends_while_the_server_stops_does_not_take_over(exports, tmp_path, monkeypatch):
    slow = SlowLoading(monkeypatch)
    shutil.copytree(exports / "two", tmp_path / "1")
    versions = ModelVersions(MODEL, tmp_path, POLL)
    versions.start()
    with versions.lease(MODEL):
        publish(exports / "three", tmp_path / "2")
        assert slow.loading.wait(20)
        versions.stop_polling()
        slow.release.set()
        until(lambda: slow.closed == 1)
        with versions.lease(MODEL) as servable:  # requests under way have their version to the end
            assert servable.version == 1
    versions.stop()
    assert [status.state for status in versions.statuses()] == [State.END, State.END]
    assert slow.closed == 1


def test_poll_of_0_looks_once(exports, tmp_path):
    shutil.copytree(exports / "two", tmp_path / "1")
    versions = ModelVersions(MODEL, tmp_path, poll_seconds=0)
    versions.start()
    publish(exports / "three", tmp_path / "2")
    time.sleep(0.3)
    assert [status.version for status in versions.statuses()] == [1]
    versions.stop()


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"must be a folder with one sub-folder a version.*Received: .*nowhere$"):
        ModelServer(tmp_path / "nowhere", port=0).start()


def test_folder_without_versions(tmp_path):
    (tmp_path / "latest").mkdir()
    with pytest.raises(InputError, match=r"must hold at least one version.*Received: "):
        ModelServer(tmp_path, port=0).start()


def test_first_version_that_does_not_load(tmp_path):
    (tmp_path / "3").mkdir()
    with pytest.raises(InputError) as caught:
        ModelServer(tmp_path, name=MODEL, port=0).start()
    assert str(caught.value).startswith(
        "Failed to start server. Error: 1 servable(s) did not become available: "
        f"{{{{{{name: {MODEL} version: 3}} due to error: NOT_FOUND: Could not find SavedModel .pb"
    )
    assert str(caught.value).endswith(f"Received: {tmp_path}")

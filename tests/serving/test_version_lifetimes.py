"""When a version is freed: after its last request, and when the server stops while another loads."""

from __future__ import annotations

import pathlib
import shutil
import threading
import time

import numpy as np
import pytest

from serving.session import SavedModel
from serving.status import StatusError
from serving.versions import ModelVersions, State
from tests.serving.conftest import MODEL, predict_request
from tests.serving.published_versions import POLL, answer, publish, serving, states, until


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

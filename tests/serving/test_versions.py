"""Versions in integer folders: which one is served, and how it is replaced."""

from __future__ import annotations

import shutil
import threading
import time

import grpc
import pytest
from tensorflow_serving.apis import get_model_status_pb2

from serving.versions import ModelVersions
from tests.serving.conftest import MODEL
from tests.serving.published_versions import POLL, answer, publish, serving, states, until


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


def test_taking_the_latest_version_away_goes_back_to_the_one_before(exports, tmp_path):
    shutil.copytree(exports / "two", tmp_path / "1")
    shutil.copytree(exports / "three", tmp_path / "2")
    with serving(tmp_path) as stubs:
        assert answer(stubs) == (2, 4.0)
        (tmp_path / "2").rename(tmp_path / "old-2")
        until(lambda: answer(stubs) == (1, 3.0))
        (tmp_path / "old-2").rename(tmp_path / "2")
        until(lambda: answer(stubs) == (2, 4.0))


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


def test_poll_of_0_looks_once(exports, tmp_path):
    shutil.copytree(exports / "two", tmp_path / "1")
    versions = ModelVersions(MODEL, tmp_path, poll_seconds=0)
    versions.start()
    publish(exports / "three", tmp_path / "2")
    time.sleep(0.3)
    assert [status.version for status in versions.statuses()] == [1]
    versions.stop()

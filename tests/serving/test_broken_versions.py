"""Versions that do not load, and folders without any: reported, never served, tried again when they come back."""

from __future__ import annotations

import shutil
import time

import grpc
import pytest

from mmoe_ranker.errors import InputError
from serving.server import ModelServer
from tests.serving.conftest import MODEL
from tests.serving.published_versions import POLL, answer, publish, serving, states, until


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

"""A publish that is killed leaves the versions as they were: the last complete one is served, and so is the next."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmoe_ranker.export import export
from serving.server import ModelServer
from serving.verifying.verification import gate
from tests.conftest import TinyWorld
from tests.serving.conftest import Stubs, open_channel, predict_request


def served_version(models: Path) -> int:
    """The version that a server answers with which is started now."""
    with ModelServer(models, port=0) as server, open_channel(server) as channel:
        return Stubs(channel).prediction.Predict(predict_request("contract", "ranker")).model_spec.version.value


@pytest.mark.slow
def test_last_complete_version_is_served_after_a_kill(tiny_world: TinyWorld, tmp_path: Path) -> None:
    models = tmp_path / "models"
    complete = int(shutil.copytree(tiny_world.version, models / tiny_world.version.name).name)
    arguments = ["export", "--workdir", str(tiny_world.workdir), "--out", str(models)]
    command = [sys.executable, "-m", "mmoe_ranker", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as publisher:
        # The variables are written first, the graph after them, and the whole is checked before it is renamed.
        while not list(models.glob(".export-*/variables/*")):
            assert publisher.poll() is None, "the export ended before it could be killed"
            time.sleep(0.001)
        publisher.kill()
    assert list(models.glob(".export-*")), "the publisher cleaned up, so it was not killed in the middle"
    assert [folder.name for folder in models.iterdir() if folder.name.isdecimal()] == [str(complete)]
    assert served_version(models) == complete
    following = int(export(tiny_world.workdir, models, gate).name)
    assert following > complete
    assert served_version(models) == following
    assert not list(models.glob(".export-*")), "what the killed export left is still there"

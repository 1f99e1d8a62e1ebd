"""Training from shards: it learns, it goes on after a kill as if there had been none, it refuses what it must."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import dump_config, load_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.report.training_log import training_metrics
from mmoe_ranker.training import train
from mmoe_ranker.workdir import CHECKPOINTS, RESULT, Workdir
from tests.conftest import TinyWorld


def _weights(workdir: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(workdir / CHECKPOINTS)))
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("VARIABLE_VALUE")]
    # Keras' metrics restart with each run; they are no part of the model.
    return {name: reader.get_tensor(name) for name in names if "metric" not in name and "save_counter" not in name}


def test_learns_and_says_so(tiny_world: TinyWorld) -> None:
    metrics = tiny_world.result["metrics"]
    assert metrics["click_auc"] > 0.6
    assert tiny_world.result["steps"] == 2 * -(-tiny_world.summary["splits"]["train"]["examples"] // 256)
    assert Workdir.open(tiny_world.workdir).result == tiny_world.result
    # For TensorBoard the 20th step of each of two passes of 25, and no step between.
    steps, aucs = training_metrics(tiny_world.workdir / "logs")["click_auc"]
    assert steps.tolist() == [20, 40]
    assert aucs[1] > aucs[0]


def test_the_same_seed_gives_the_same_model(tiny_world: TinyWorld, tmp_path: Path) -> None:
    # Whatever was drawn before, by Keras too, which keeps a generator of its own.
    tf.keras.utils.set_random_seed(12)
    tf.keras.initializers.GlorotUniform()([2, 2])
    train(tiny_world.config, tiny_world.examples, tmp_path / "again")
    expected, received = _weights(tiny_world.workdir), _weights(tmp_path / "again")
    assert expected.keys() == received.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(received[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_finished_training_is_not_repeated(tiny_world: TinyWorld) -> None:
    started = time.perf_counter()
    assert train(tiny_world.config, tiny_world.examples, tiny_world.workdir) == tiny_world.result
    assert time.perf_counter() - started < 2


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_at_the_same_model(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = tiny_world.config.model_copy(
        update={"training": tiny_world.config.training.model_copy(update={"checkpoint_steps": 7})}
    )
    file, workdir = tmp_path / "config.yaml", tmp_path / "workdir"
    file.write_text(dump_config(config), encoding="utf-8")
    assert load_config(file) == config
    command = [sys.executable, "-m", "mmoe_ranker", "train", "--config", str(file)]
    command += ["--examples", str(tiny_world.examples), "--workdir", str(workdir)]
    kills = 0
    for _ in range(2):
        before = tf.train.latest_checkpoint(str(workdir / CHECKPOINTS))
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and tf.train.latest_checkpoint(str(workdir / CHECKPOINTS)) == before:
                time.sleep(0.01)
            time.sleep(0.02)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
    assert kills == 2
    assert not (workdir / RESULT).exists()
    subprocess.run(command, check=True, capture_output=True)
    expected, received = _weights(tiny_world.workdir), _weights(workdir)
    for name, values in expected.items():
        np.testing.assert_allclose(received[name], values, rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_workdir_of_another_config_is_refused(tiny_world: TinyWorld, tmp_path: Path) -> None:
    other = tiny_world.config.model_copy(update={"name": "other"})
    with pytest.raises(InputError, match=r"of the very same config.*Received: '.*', of other config\.$"):
        train(other, tiny_world.examples, tiny_world.workdir)
    copy = tmp_path / "examples"
    shutil.copytree(tiny_world.examples, copy)
    (copy / "summary.json").write_text("{}")
    with pytest.raises(InputError, match=r"of the very same examples.*Received: '.*', of other examples\.$"):
        train(tiny_world.config, copy, tiny_world.workdir)
    with pytest.raises(InputError, match="must be a new or empty folder"):
        train(tiny_world.config, tiny_world.examples, tiny_world.examples)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"must be a new or empty folder\. Received: '"):
        train(tiny_world.config, tiny_world.examples, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_missing_examples_leave_no_workdir(tiny_world: TinyWorld, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be complete"):
        train(tiny_world.config, tmp_path / "none", tmp_path / "workdir")
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_stops(tiny_world: TinyWorld, tmp_path: Path) -> None:
    raw = yaml.safe_load(dump_config(tiny_world.config))
    raw["training"]["optimizer"] = {"name": "sgd", "learning_rate": 1e30}
    config = Config.model_validate(raw)
    with pytest.raises(
        InputError, match=r"loss must stay finite.*Received: `\w+` (nan|inf) at step \d+ of the pass\.$"
    ):
        train(config, tiny_world.examples, tmp_path / "workdir")
    assert not (tmp_path / "workdir" / RESULT).exists()


def test_a_damaged_checkpoint_is_said(tiny_world: TinyWorld, tmp_path: Path) -> None:
    shutil.copytree(tiny_world.workdir, tmp_path / "workdir")
    for file in (tmp_path / "workdir" / CHECKPOINTS).glob("*.data-*"):
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"checkpoint must be whole.*Received: "):
        Workdir.open(tmp_path / "workdir").load_ranker()


def test_an_unfinished_workdir_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a finished training.*training.json in it\. Received: '"):
        Workdir.open(tmp_path)


assert os.name == "posix", "SIGKILL is how the test kills"

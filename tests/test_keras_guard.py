"""The guard for Keras 2, each case in a process of its own, because it works at import."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=False
    )


def test_unset_is_set() -> None:
    done = _python("import os, mmoe_ranker; print(os.environ['TF_USE_LEGACY_KERAS'])")
    assert done.stdout.strip() == "1"


def test_import_is_light() -> None:
    done = _python("import sys, mmoe_ranker; print('tensorflow' in sys.modules, 'numpy' in sys.modules)")
    assert done.stdout.split() == ["False", "False"]


def test_set_to_0_fails_with_what_to_do() -> None:
    done = _python("import mmoe_ranker", TF_USE_LEGACY_KERAS="0")
    assert done.returncode != 0
    assert "must be 1 or unset" in done.stderr
    assert done.stderr.rstrip().endswith("Received: '0'.")


@pytest.mark.slow
def test_keras_3_already_loaded_fails_with_what_to_do() -> None:
    done = _python("import tensorflow as tf; tf.keras.layers; import mmoe_ranker")
    assert done.returncode != 0
    assert "tf.keras must be Keras 2" in done.stderr
    assert "Received: Keras 3" in done.stderr


@pytest.mark.slow
def test_tensorflow_imported_before_works() -> None:
    done = _python("import tensorflow as tf, mmoe_ranker; print(tf.keras.Model.__module__)")
    assert done.stdout.startswith("tf_keras."), done.stderr

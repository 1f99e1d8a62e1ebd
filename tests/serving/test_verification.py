"""`verify` as a process of its own, the gate of `export`, which versions are meant, and other C++ libraries."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from mmoe_ranker.cli.verify import verify as verify_command
from mmoe_ranker.errors import InputError
from mmoe_ranker.export import export
from serving.verifying import isolated, libraries, verification
from serving.verifying.checking import check
from serving.verifying.finding import Finding, Status
from serving.verifying.libraries import library_of, versions_of
from serving.verifying.verification import gate, verify, versions_to_compare
from tests.conftest import TinyWorld
from tests.serving.scorers import CONTRACT, Scorer, publish


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1, and version 2, which has another item key."""
    folder = tmp_path_factory.mktemp("models")
    publish(folder / "1")
    publish(folder / "2", Scorer(contract=CONTRACT | {"item_key": "item_id"}))
    (folder / ".export-abc").mkdir()
    (folder / "latest").mkdir()
    return folder


def test_the_process_knows_neither_tensorflows_python_nor_the_models_code(models: Path) -> None:
    found = {finding.name: finding for finding in verify(models / "1", None)}
    assert {finding.status for name, finding in found.items() if name != "compatibility"} == {"ok"}, found
    assert found["compatibility"].status == "skipped"
    assert list(found)[-1] == "isolation"


@pytest.mark.parametrize("module", ["tensorflow", "tensorflow.core.framework", "keras", "mmoe_ranker.errors"])
def test_what_is_forbidden_cannot_be_imported(module: str) -> None:
    script = (
        "import pathlib, sys, importlib.util\n"
        "sys.path.insert(0, str(pathlib.Path(sys.argv[1]).parent))\n"
        "import isolated\n"
        "sys.meta_path.insert(0, isolated.Refusal(pathlib.Path('/the/place')))\n"
        "print(importlib.util.find_spec('tensorflow').origin)\n"
        f"import {module}"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, isolated.__file__], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout.strip() == "/the/place/__init__.py", "TensorFlow is known by its place"
    assert done.stderr.splitlines()[-1].endswith("must not be imported where an export is verified")


def test_an_op_that_calls_python_is_not_helped_by_a_process_that_has_python(tmp_path: Path) -> None:
    def plant(click: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.numpy_function(np.abs, [click], tf.float32), tf.shape(click))

    version = publish(tmp_path / "1", Scorer(plant))
    failed = {finding.name: finding.sentence for finding in verify(version, None) if finding.status == "failed"}
    assert failed["python_functions"] == "The graph calls Python, through the op PyFunc, which no server can."
    assert failed["kernels"] == "The op PyFunc has no kernel for a processor."
    assert "No OpKernel was registered to support Op 'PyFunc'" in failed["signature (rank)"]
    # In this process, which has imported TensorFlow, there is a kernel: the reason for another one.
    assert {finding.status for finding in check(version) if finding.check in ("kernels", "signature")} == {"ok"}


def test_a_version_that_crashes_the_library_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def plant(click: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="the end")]):
            return tf.identity(click)

    version = publish(tmp_path / "1", Scorer(plant))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    *_, last = verify(version, None)
    assert list(scratch.iterdir()) == []
    assert (last.name, last.status) == ("isolation", "failed")
    assert "The process that checks ended by SIGABRT after the check `signature (contract)`" in last.sentence


def test_a_check_that_never_ends_is_a_finding(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = tmp_path / "waiting.py"
    waiting.write_text(
        "import json, sys, time\n"
        "print(json.dumps(dict(check='loads', about='', status='ok', sentence='It loads.')))\n"
        "print('{\"check\": \"signa', end='', flush=True)\n"
        "print('Reading.', file=sys.stderr, flush=True)\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(isolated, "__file__", str(waiting))
    monkeypatch.setattr(verification, "_LIMIT_SECONDS", 4.0)
    started = time.monotonic()
    assert verify(models / "1", None) == [
        Finding("loads", "", "ok", "It loads."),
        Finding(
            *("isolation", "", "failed"),
            "The process that checks had not ended after 4 s, and was killed, after the check `loads`; it said: "
            "Reading.",
        ),
    ]
    assert time.monotonic() - started < 60.0


def test_what_ops_print_is_no_finding(tmp_path: Path) -> None:
    def plant(click: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([tf.print("clicks", click, output_stream=sys.stdout)]):
            return tf.identity(click)

    found = verify(publish(tmp_path / "1", Scorer(plant)), None)
    assert "failed" not in {finding.status for finding in found}


def test_a_library_that_is_none(models: Path, tmp_path: Path) -> None:
    found = verify(models / "1", None, tensorflow=tmp_path)
    assert [finding.status for finding in found] == ["failed", "ok"]
    assert found[0].sentence.startswith("TensorFlow's C++ library cannot be used: none of libtensorflow_cc.so.2")


def test_the_gate_names_the_check(models: Path) -> None:
    gate(models / "2", models / "1", allow_breaking=True)
    with pytest.raises(InputError) as refused:
        gate(models / "2", models / "1")
    assert str(refused.value) == (
        "An export must pass all checks before it is published, and failed `compatibility` (`--allow-breaking` lets it "
        "pass). Received: Breaks who calls version 1: the item key was `video_id` and is `item_id`."
    )


@pytest.mark.slow
def test_an_export_that_breaks_callers_is_not_published(tiny_world: TinyWorld, tmp_path: Path) -> None:
    publish(tmp_path / "1")
    with pytest.raises(InputError, match=r"failed `compatibility` .* `hour` was int64 and is string"):
        export(tiny_world.workdir, tmp_path, gate)
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]


def test_which_version_is_meant(models: Path, tmp_path: Path) -> None:
    assert versions_to_compare(models, None) == (models / "2", models / "1")
    assert versions_to_compare(models, 1) == (models / "1", None)
    assert versions_to_compare(models / "2", None) == (models / "2", models / "1")
    assert versions_to_compare(Path(shutil.copytree(models / "1", tmp_path / "built")), None)[1] is None
    (tmp_path / "stable").symlink_to(models / "2")
    assert versions_to_compare(tmp_path / "stable", None) == (tmp_path / "stable", models / "1")
    for folder, number, message in (
        (models, 3, r"`--version` must be one of 1, 2. Received: 3."),
        (models / "2", 2, "`--version` goes with a folder of versions. Received: '.*2', a version itself."),
        (models / "latest", None, "MODEL_DIR must be a folder of versions, each named by an integer, or one of them."),
        (models / "absent", None, "MODEL_DIR must be a folder of versions"),
    ):
        with pytest.raises(InputError, match=message):
            versions_to_compare(folder, number)


def test_which_libraries_are_meant() -> None:
    assert versions_of("") == []
    assert versions_of("2.19, 2.20.0") == ["2.19", "2.20.0"]
    major, minor = map(int, tf.__version__.split(".")[:2])
    assert versions_of("previous") == [f"{major}.{minor - 1}", f"{major}.{minor - 2}"]
    for text in ("2", "1.15", "2.19;2.20", "2.19,", "latest", "previous,2.19"):
        with pytest.raises(
            InputError, match=r"must be `previous`, or name versions such as 2.20 or 2.19.1.*Received: '"
        ):
            versions_of(text)


def test_the_versions_before_none() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "packages_distributions", dict)
        with pytest.raises(InputError, match=r"TensorFlow must be installed .*Received: no package `tensorflow`\."):
            versions_of("previous")


def test_a_library_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "no_index").as_uri())
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(InputError, match=r"TensorFlow 2.20 must be one that pip can download .*Received: tensorflow"):
        library_of("2.20")
    assert list((tmp_path / "cache" / "mmoe_ranker").iterdir()) == []


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ("ok", "Nothing failed, but it was not run on TensorFlow 2.20."),
        ("failed", "1 check(s) failed: loads."),
    ],
)
def test_the_command_keeps_what_it_found_where_a_library_cannot_be_fetched(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Status, sentence: str
) -> None:
    def refuse(version: str) -> Path:
        raise InputError(f"TensorFlow {version} must be one that pip can download. Received: none.")

    monkeypatch.setattr(verification, "verify", lambda *_, **__: [Finding("loads", "", found, "As it is.")])
    monkeypatch.setattr(libraries, "library_of", refuse)
    report = tmp_path / "report.json"
    arguments = [str(models), "--tensorflow-versions", "2.20", "--json", str(report)]
    done = CliRunner().invoke(verify_command, arguments)
    assert (done.exit_code, done.stderr) == (2, f"mmoe-ranker: {sentence}\n")
    assert f"  {found:8}loads: As it is.\n" in done.stdout
    assert "  skipped library: TensorFlow 2.20 must be one that pip can download." in done.stdout
    assert json.loads(report.read_text(encoding="utf-8"))["findings"] == [
        {"tensorflow": "installed", "check": "loads", "about": "", "status": found, "sentence": "As it is."},
        {
            **{"tensorflow": "2.20", "check": "library", "about": "", "status": "skipped"},
            "sentence": "TensorFlow 2.20 must be one that pip can download. Received: none.",
        },
    ]


@pytest.mark.slow
def test_the_libraries_of_the_two_versions_before(tiny_world: TinyWorld, tmp_path: Path) -> None:
    for version in versions_of("previous"):
        try:
            library = library_of(version)
        except InputError as error:
            if not _reaches_an_index(tmp_path):
                pytest.skip(f"older TensorFlow libraries come from PyPI, which cannot be reached: {error}")
            raise
        found = verify(tiny_world.version, None, tensorflow=library)
        assert {finding.status for finding in found} == {"ok"}, found
        (loads,) = (finding for finding in found if finding.check == "loads")
        assert loads.sentence.startswith(f"TensorFlow {version}.")


def _reaches_an_index(folder: Path) -> bool:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), "six"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_the_command(models: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "mmoe_ranker", "verify", str(models), "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "mmoe-ranker: 1 check(s) failed: compatibility.\n"
    assert "  failed  compatibility: Breaks who calls version 1: the item key was" in done.stdout
    written = json.loads(report.read_text(encoding="utf-8"))
    assert written["version"] == str(models / "2")
    statuses = {finding["check"]: finding["status"] for finding in written["findings"]}
    assert statuses.pop("compatibility") == "failed"
    assert set(statuses.values()) == {"ok"}
    done = subprocess.run([*command, "--allow-breaking"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

"""What `verify` finds in a graph and its files: ops, kernels, paths, what does not load; in a good version nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.serving.scorers import (
    Scorer,
    publish,
)
from tests.serving.spoilt_versions import failed, findings, planted, rewrite

ALL_CHECKS = {
    *("ops", "kernels", "python_functions", "must_compile", "relocatable", "bias_inputs", "input_types", "defaults"),
    *("compatibility", "loads", "signature (contract)", "signature (rank)", "training_answers (rank)", "warm_up"),
}


def test_a_good_version_passes_every_check(good_version: Path, version: Path) -> None:
    found = findings(version, good_version)
    assert set(found) == ALL_CHECKS
    assert {finding.status for finding in found.values()} == {"ok"}, found
    assert found["signature (rank)"].sentence.endswith("0, 1, 2, 65, 300 rows, recorded beside it.")
    assert found["compatibility"].sentence == "The signatures are those of version 1."


def test_only_what_runs_is_checked_on_another_library(version: Path) -> None:
    assert ALL_CHECKS - set(findings(version, runs_only=True)) == {
        *("python_functions", "must_compile", "relocatable", "bias_inputs", "input_types", "defaults", "compatibility"),
    }


def test_a_function_that_must_be_compiled(tmp_path: Path) -> None:
    compiled = tf.function(tf.abs, jit_compile=True)
    found = planted(tmp_path, plant=lambda click: tf.cond(tf.size(click) < 0, lambda: compiled(click), lambda: click))
    assert "must be compiled by XLA, which TF Serving has switched off" in found["must_compile"]


def test_ops_that_no_processor_computes_even_where_no_request_reaches_them(tmp_path: Path) -> None:
    def plant(click: tf.Tensor) -> tf.Tensor:
        def other() -> tf.Tensor:
            on_tpu = tf.cast(tf.raw_ops.GlobalIterId(), tf.float32)
            return on_tpu + tf.cast(tf.raw_ops.Rint(x=tf.cast(click, tf.float16)), tf.float32)

        return tf.cond(tf.size(click) < 0, other, lambda: click)

    found = planted(tmp_path, plant=plant)
    assert "The op GlobalIterId has no kernel for a processor" in found["kernels"]
    assert "The op Rint has no kernel for a processor with the types that it has in" in found["kernels"]


def test_an_op_that_the_library_does_not_know(version: Path) -> None:
    def rename(saved_model: saved_model_pb2.SavedModel) -> None:
        for function in saved_model.meta_graphs[0].graph_def.library.function:
            for node in function.node_def:
                if node.op == "Pow":
                    node.op = "CustomPow"

    rewrite(version, rename)
    found = failed(version)
    assert found["ops"] == "The op CustomPow is not registered in the C++ library."
    assert "Op type not registered 'CustomPow'" in found["loads"]
    assert set(found) == {"ops", "loads"}, "a version that does not load cannot be asked"


def test_a_constant_that_holds_a_path(tmp_path: Path) -> None:
    file = tmp_path / "vocabulary.txt"
    file.write_text("phone\n")

    def plant(click: tf.Tensor) -> tf.Tensor:
        return click + 0.0 * tf.cast(tf.strings.length(tf.io.read_file(str(file))), tf.float32)

    found = planted(tmp_path, plant=plant)
    assert set(found) == {"relocatable"}, "it runs, as long as the file is there"
    assert found["relocatable"].endswith(f"holds a path outside of the version's folder, {file}.")


def test_values_that_only_look_like_paths_and_assets_are_none(tmp_path: Path) -> None:
    file = tmp_path / "vocabulary.txt"
    file.write_text("phone\n")
    lines = tf.lookup.TextFileInitializer(
        str(file), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    table = tf.lookup.StaticHashTable(lines, -1)

    def plant(click: tf.Tensor) -> tf.Tensor:
        like_paths = tf.constant(["/m/04rlf", "/", "/home", "a://b"])
        found = table.lookup(tf.constant("phone")) * tf.size(like_paths, tf.int64)
        return click + tf.cast(found, tf.float32)

    scorer = Scorer(plant)
    scorer.table = table  # what a module does not hold is not saved
    version = publish(tmp_path / "1", scorer)
    assert (version / "assets" / "vocabulary.txt").exists()
    file.unlink()
    assert failed(version) == {}


def test_addresses_are_values_in_a_vocabulary_and_lead_out_where_they_stand_alone(tmp_path: Path) -> None:
    addresses = ["gs://bucket/cats.mp4", "s3://bucket/dogs.mp4", "file:///cats.mp4"]
    vocabulary = tf.lookup.KeyValueTensorInitializer(tf.constant(addresses), tf.range(3, dtype=tf.int64))
    one = tf.lookup.KeyValueTensorInitializer(tf.constant(addresses[:1]), tf.zeros(1, tf.int64))
    tables = [tf.lookup.StaticHashTable(each, -1) for each in (vocabulary, one)]

    def plant(click: tf.Tensor) -> tf.Tensor:
        known = [table.lookup(tf.constant("phone")) for table in tables]
        return click + 0.0 * tf.cast(tf.add_n(known), tf.float32)

    scorer = Scorer(plant)
    scorer.tables = tables  # what a module does not hold is not saved
    assert failed(publish(tmp_path / "1", scorer)) == {}

    def read(click: tf.Tensor) -> tf.Tensor:
        return tf.cond(
            tf.size(click) < 0, lambda: click + tf.strings.to_number(tf.io.read_file(addresses[0])), lambda: click
        )

    found = planted(tmp_path / "alone", plant=read)
    assert set(found) == {"relocatable"}
    assert found["relocatable"].endswith("holds a path outside of the version's folder, gs://bucket/cats.mp4.")


def test_a_link_and_an_asset_that_lead_out(version: Path, tmp_path: Path) -> None:
    outside = shutil.move(version / "variables" / "variables.index", tmp_path / "elsewhere.index")
    (version / "variables" / "variables.index").symlink_to(outside)
    rewrite(version, lambda saved_model: _add_asset(saved_model, "../vocabulary.txt"))
    sentence = failed(version)["relocatable"]
    assert "variables/variables.index is a link that leads out of the version's folder" in sentence
    assert "An asset lies outside of the version's folder, ../vocabulary.txt" in sentence


def _add_asset(saved_model: saved_model_pb2.SavedModel, filename: str) -> None:
    saved_model.meta_graphs[0].asset_file_def.add(filename=filename).tensor_info.name = "Const:0"


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda version: (version / "saved_model.pb").unlink(), "saved_model.pb cannot be read: No such file"),
        (lambda version: (version / "saved_model.pb").write_bytes(b"\xff"), "saved_model.pb is no SavedModel"),
        (lambda version: (version / "saved_model.pb").write_bytes(b""), "holds no graph with the tag `serve`"),
        (lambda version: (version / "variables" / "variables.index").unlink(), "Could not find the variables"),
        (
            lambda version: (version / "variables" / "variables.data-00000-of-00001").write_bytes(b""),
            "OUT_OF_RANGE: Read less",
        ),
    ],
)
def test_a_version_that_does_not_load(version: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    spoil(version)
    found = failed(version)
    assert set(found) == {"loads"}
    assert sentence in found["loads"]

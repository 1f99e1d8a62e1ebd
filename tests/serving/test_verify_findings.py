"""Each finding of `verify`, planted in a SavedModel and found; and none in one that is as it should be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from serving.verifying.checking import check
from serving.verifying.finding import Finding
from tests.serving.scorers import (
    CONTRACT,
    DURATIONS,
    HOUR,
    Scorer,
    expected_answers,
    prediction_log,
    publish,
    write_records,
)

WARM_UP, ANSWERS = "tf_serving_warmup_requests", "training_model_answers"
ALL_CHECKS = {
    *("ops", "kernels", "python_functions", "must_compile", "relocatable", "bias_inputs", "input_types", "defaults"),
    *("compatibility", "loads", "signature (contract)", "signature (rank)", "training_answers (rank)", "warm_up"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("scorer") / "1")


@pytest.fixture
def version(good: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(good, tmp_path / "2"))


def findings(version: Path, previous: Path | None = None, **options: bool) -> dict[str, Finding]:
    return {finding.name: finding for finding in check(version, previous, **options)}


def failed(version: Path) -> dict[str, str]:
    """The sentences of the failed findings by name."""
    return {name: found.sentence for name, found in findings(version).items() if found.status == "failed"}


def planted(folder: Path, **arguments: object) -> dict[str, str]:
    return failed(publish(folder / "1", Scorer(**arguments)))  # type: ignore[arg-type]


def rewrite(version: Path, change: Callable[[saved_model_pb2.SavedModel], None]) -> None:
    file = version / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(saved_model)
    file.write_bytes(saved_model.SerializeToString())


def test_a_good_version_passes_every_check(good: Path, version: Path) -> None:
    found = findings(version, good)
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


def test_a_bias_feature_among_the_inputs_and_of_a_wrong_type(tmp_path: Path) -> None:
    found = planted(tmp_path, second=("position", tf.float64))
    assert found["bias_inputs"] == "The bias feature `position` is an input of `rank`."
    assert found["input_types"] == "The input `position` of `rank` is double, and must be float, int64 or string."
    # What was recorded for `duration` fits no more.
    assert "input size does not match signature" in found["warm_up"] or "not found in request" in found["warm_up"]
    assert "training_answers (rank)" in found


def test_a_bias_feature_that_is_read_from_examples(tmp_path: Path) -> None:
    def plant(click: tf.Tensor) -> tf.Tensor:
        layout = {"position": tf.io.FixedLenFeature([], tf.int64, 0), "hour": tf.io.FixedLenFeature([], tf.int64, 0)}
        parsed = tf.io.parse_example(tf.fill(tf.shape(click), b""), layout)
        return click + tf.cast(parsed["position"], tf.float32)

    assert planted(tmp_path, plant=plant) == {
        "bias_inputs": "The bias feature `position` is read from serialized examples."
    }


def test_a_version_that_does_not_say_what_a_bias_is(tmp_path: Path) -> None:
    found = findings(Scorer(contract=None).save(tmp_path / "1"))
    assert {name for name, finding in found.items() if finding.status == "skipped"} == {
        *("bias_inputs", "compatibility", "training_answers", "warm_up"),
    }
    assert found["signature (rank)"].sentence == "`rank` answers requests of 0, 1, 2, 65, 300 rows, made of its types."


def test_weights_without_a_default(tmp_path: Path) -> None:
    found = planted(tmp_path, weights=None)
    assert "`score_weights` of `rank` has no default" in found["defaults"]


def test_weights_of_another_number_than_the_objectives(tmp_path: Path) -> None:
    found = planted(tmp_path, weights=[1.0, 0.5, 0.1])
    assert "`score_weights` of `rank` does not hold one weight for each objective" in found["defaults"]


def test_a_default_of_another_type_and_of_no_input(version: Path) -> None:
    def spoil(saved_model: saved_model_pb2.SavedModel) -> None:
        defaults = saved_model.meta_graphs[0].signature_def["rank"].defaults
        defaults["score_weights"].CopyFrom(tf.make_tensor_proto([1, 2]))
        defaults["age"].CopyFrom(tf.make_tensor_proto([1.0]))

    rewrite(version, spoil)
    sentence = failed(version)["defaults"]
    assert "The default `age` of `rank` is of no input" in sentence
    assert "The default of `score_weights` of `rank` is not of the input's type and shape" in sentence


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


def _refuse_many(click: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.debugging.assert_less(tf.size(click), 65, message="too many")]):
        return tf.identity(click)


def _pair(click: tf.Tensor) -> tf.Tensor:
    return tf.concat([click, click], 0)


def _divide(click: tf.Tensor) -> tf.Tensor:
    return click / 0.0


@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (_refuse_many, "`rank` fails for 65 rows of values recorded beside it: INVALID_ARGUMENT: "),
        (_divide, "The output `click` is not finite on recorded values"),
        (_pair, "The output `click` has the shape [2] instead of [1] for 1 rows"),
    ],
)
def test_a_signature_that_answers_wrongly(
    tmp_path: Path, plant: Callable[[tf.Tensor], tf.Tensor], sentence: str
) -> None:
    assert sentence in planted(tmp_path, plant=plant)["signature (rank)"]


def test_outputs_that_are_not_what_the_signature_says(version: Path) -> None:
    def spoil(saved_model: saved_model_pb2.SavedModel) -> None:
        outputs = saved_model.meta_graphs[0].signature_def["rank"].outputs
        # The order taken for the scores, and the other way round, as an export might that mixes up names.
        names = outputs["ranking"].name, outputs["combined_score"].name
        outputs["combined_score"].name, outputs["ranking"].name = names
        outputs["like"].tensor_shape.dim.add(size=2)

    rewrite(version, spoil)
    sentence = failed(version)["signature (rank)"]
    assert "The output `combined_score` is of another type than the signature says" in sentence
    assert "The output `like` has the shape [0] instead of [0, 2] for 0 rows" in sentence


def test_a_ranking_that_is_no_order_of_the_scores(version: Path) -> None:
    def spoil(saved_model: saved_model_pb2.SavedModel) -> None:
        outputs = saved_model.meta_graphs[0].signature_def["rank"].outputs
        outputs["combined_score"].name = outputs["like"].name

    rewrite(version, spoil)
    found = failed(version)
    assert "`ranking` does not order the candidates by `combined_score`, best first" in found["signature (rank)"]
    assert "`combined_score` of `rank` differs from the training model's" in found["training_answers (rank)"]


def test_an_order_of_small_scores_that_is_none(tmp_path: Path) -> None:
    # Clicks in the order of another score, all of them smaller than what scores near 1 may differ by.
    version = publish(tmp_path / "1", Scorer(lambda click: click * 1e-7))

    def spoil(saved_model: saved_model_pb2.SavedModel) -> None:
        outputs = saved_model.meta_graphs[0].signature_def["rank"].outputs
        outputs["combined_score"].name = outputs["click"].name

    assert "signature (rank)" not in failed(version)
    rewrite(version, spoil)
    assert "`ranking` does not order the candidates by `combined_score`" in failed(version)["signature (rank)"]


def _clicks(*factors: float) -> Callable[[tf.Tensor], tf.Tensor]:
    """Scales the clicks of the recorded request, candidate by candidate, and no others."""
    return lambda click: tf.cond(tf.size(click) == len(factors), lambda: click * tf.constant(factors), lambda: click)


@pytest.mark.parametrize(
    ("form", "factors", "told", "differs"),
    [
        ("weighted_product", [2e-5] * 4, [1.0] * 4, False),
        ("weighted_product", [2e-5] * 4, [0.0] * 4, True),
        ("weighted_product", [2e-5] * 4, [1.0, 1.0, 1.0, 0.5], True),
        ("weighted_product", [2e-5] * 4, [1.0, 1.0, 1.0, 0.9995], False),
        # One small score among large ones.
        ("weighted_product", [1.0, 1.0, 1.0, 4.4e-6], [1.0, 1.0, 1.0, 0.5], True),
        # Of a sum it is what summands left that cancel.
        ("weighted_sum", [1.0, 1.0, 1.0, 4.4e-6], [1.0, 1.0, 1.0, 0.5], False),
        ("weighted_sum", [2e-5] * 4, [1.0, 1.0, 1.0, 0.5], True),
        # Less than a processor may make 0.
        ("weighted_product", [1e-39] * 4, [0.0] * 4, False),
    ],
)
def test_small_scores_are_held_against_themselves(
    tmp_path: Path, form: str, factors: list[float], told: list[float], differs: bool
) -> None:
    scorer = Scorer(_clicks(*factors), contract=CONTRACT | {"combined_score": {"form": form}})
    version = publish(tmp_path / "1", scorer)
    answers = expected_answers()
    answers["click"] = [click * factor for click, factor in zip(answers["click"], factors, strict=True)]
    scores = zip(answers["combined_score"], factors, told, strict=True)
    answers["combined_score"] = [score * factor * wrong for score, factor, wrong in scores]
    write_records(version, ANSWERS, [prediction_log(answers, hour=HOUR, duration=DURATIONS)])
    found = failed(version)
    assert set(found) == ({"training_answers (rank)"} if differs else set())
    if differs:
        sentence = found["training_answers (rank)"]
        assert sentence.startswith("`combined_score` of `rank` differs from the training model's by ")
        assert sentence.endswith(", and may by 0.001 (relative).")


def test_answers_that_are_not_the_training_models(version: Path) -> None:
    answers = expected_answers()
    answers["like"][2] += 3e-5
    write_records(version, ANSWERS, [prediction_log(answers, hour=HOUR, duration=DURATIONS)])
    assert failed(version) == {
        "training_answers (rank)": (
            "`like` of `rank` differs from the training model's by 3e-05, and may by 1e-05 (relative above 1)."
        )
    }


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([], "holds no answer to compare with"),
        ([b"\xff"], "cannot be read"),
        ([prediction_log({"rating": [1.0]}, hour=HOUR, duration=DURATIONS)], "`rank` does not answer `rating`"),
        ([prediction_log({"click": [1.0]}, signature="gone")], "cannot answer what the training model answered"),
        ([prediction_log({"click": [1.0]}, hour=HOUR, duration=DURATIONS)], "differs from the training model's by inf"),
    ],
    ids=["none", "garbage", "of no output", "of no signature", "too few"],
)
def test_answers_that_say_nothing(version: Path, records: list[bytes], sentence: str) -> None:
    write_records(version, ANSWERS, records)
    (found,) = failed(version).values()
    assert sentence in found


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (prediction_log(hour=HOUR, age=DURATIONS), "input alias: duration"),
        (
            prediction_log(hour=HOUR, duration=np.float64(DURATIONS)),
            "Expects arg[0] to be float but double is provided",
        ),
        (b"\xff", "Failed to parse warmup record"),
    ],
    ids=["wrong name", "wrong type", "garbage"],
)
def test_warm_up_records_that_keep_a_server_from_loading(version: Path, record: bytes, sentence: str) -> None:
    write_records(version, WARM_UP, [prediction_log(hour=HOUR, duration=DURATIONS), record])
    found = failed(version)
    assert set(found) == {"warm_up"}
    assert sentence in found["warm_up"]


def test_signatures_that_no_record_warms_are_named(version: Path) -> None:
    write_records(version, WARM_UP, [prediction_log(signature="contract")])
    assert findings(version)["warm_up"].sentence == "All 1 warm-up records run, and none of them warms rank."


def test_a_change_of_the_contract_of_a_real_version(good: Path, tmp_path: Path) -> None:
    changed = CONTRACT | {"item_key": "item_id", "combined_score": {"form": "weighted_sum"}}
    version = publish(tmp_path / "2", Scorer(contract=changed))
    found = findings(version, good)["compatibility"]
    assert found.status == "failed"
    assert found.sentence == (
        "Breaks who calls version 1: the item key was `video_id` and is `item_id`. "
        "Compatible with version 1: the combined score has changed."
    )
    assert findings(version, good, allow_breaking=True)["compatibility"].status == "ok"


def test_a_version_before_that_cannot_be_read_is_no_reason_to_fail(version: Path, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    found = findings(version, tmp_path / "1")["compatibility"]
    assert found.status == "skipped"
    assert found.sentence == "Of the version before, 1, saved_model.pb cannot be read: No such file or directory."

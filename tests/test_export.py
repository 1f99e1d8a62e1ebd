"""The export: signatures, equality with the trained model, checks in the graph, atomic publishing, warm-up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from mmoe_ranker.combined_score import CombinedScore
from mmoe_ranker.dataset import parse_examples, served_features
from mmoe_ranker.errors import InputError
from mmoe_ranker.examples import example_layout
from mmoe_ranker.export import ANSWERS, _folder_beside, _publish, export, rank_inputs
from mmoe_ranker.workdir import Workdir
from serving.verifying.verification import gate
from tests.conftest import TinyWorld

RANKING_SIGNATURES = ("serving_default", "rank", "serving_examples")


@pytest.fixture(scope="module")
def loaded(tiny_world: TinyWorld) -> Any:
    return tf.saved_model.load(str(tiny_world.version))


@pytest.fixture(scope="module")
def raw(tiny_world: TinyWorld) -> dict[str, tf.Tensor]:
    return served_features(tiny_world.config, Workdir.open(tiny_world.workdir).sample()[:30])


@pytest.fixture(scope="module")
def signature_defs(tiny_world: TinyWorld) -> Any:
    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((tiny_world.version / "saved_model.pb").read_bytes())
    return saved_model.meta_graphs[0].signature_def


def test_no_signature_takes_a_bias_feature(signature_defs: Any, tiny_world: TinyWorld) -> None:
    served = {feature.name for feature in tiny_world.config.served_features}
    assert set(signature_defs["serving_default"].inputs) == served
    assert set(signature_defs["rank"].inputs) == served | {"score_weights"}
    assert set(signature_defs["serving_examples"].inputs) == {"examples"}
    assert "position" not in served


def test_shapes_and_outputs(signature_defs: Any, tiny_world: TinyWorld) -> None:
    outputs = {*tiny_world.config.objective_names, "combined_score"}
    assert set(signature_defs["serving_default"].outputs) == set(signature_defs["serving_examples"].outputs) == outputs
    assert set(signature_defs["rank"].outputs) == outputs | {"ranking"}
    for feature in tiny_world.config.served_features:
        first = {
            name: signature_defs[name].inputs[feature.name].tensor_shape.dim[0].size
            for name in ("serving_default", "rank")
        }
        assert first == {"serving_default": -1, "rank": 1 if feature.side == "context" else -1}


def test_default_weights_are_in_the_signature(signature_defs: Any, tiny_world: TinyWorld) -> None:
    default = tf.make_ndarray(signature_defs["rank"].defaults["score_weights"])
    terms = tiny_world.config.combined_score.terms
    expected = [terms[name].weight if name in terms else 0.0 for name in tiny_world.config.objective_names]
    np.testing.assert_allclose(default, expected)


def test_position_in_the_example_makes_no_difference(loaded: Any, tiny_world: TinyWorld) -> None:
    record = Workdir.open(tiny_world.workdir).sample()[0]
    example = tf.train.Example.FromString(record)
    moved = []
    for position in (1, 7, 20):
        example.features.feature["position"].int64_list.value[:] = [position]
        moved.append(example.SerializeToString())
    score = loaded.signatures["serving_examples"](examples=tf.constant(moved))["combined_score"].numpy()
    assert len(set(score.tolist())) == 1


def test_answers_equal_the_trained_model_with_position_missing(
    loaded: Any, raw: dict[str, tf.Tensor], tiny_world: TinyWorld
) -> None:
    ranker = Workdir.open(tiny_world.workdir).load_ranker()
    expected = ranker(ranker.feature_rows(raw))
    answer = loaded.signatures["serving_default"](**raw)
    predictions = {}
    for name in tiny_world.config.objective_names:
        np.testing.assert_allclose(answer[name], expected[name], rtol=1e-5, atol=1e-5)
        predictions[name] = answer[name].numpy()
    combined = tiny_world.config.combined_score
    score = CombinedScore.from_terms(tiny_world.config.objective_names, combined.form, combined.terms)
    np.testing.assert_allclose(answer["combined_score"], score.score(predictions), rtol=1e-4)


def test_position_seen_would_have_made_a_difference(tiny_world: TinyWorld) -> None:
    ranker = Workdir.open(tiny_world.workdir).load_ranker()
    sample = Workdir.open(tiny_world.workdir).sample()[:20]
    fields = [field for field in example_layout(tiny_world.config) if field.role == "feature"]
    seen = ranker(ranker.feature_rows(parse_examples(tf.constant(sample), fields)))
    missing = ranker(ranker.feature_rows(served_features(tiny_world.config, sample)))
    assert np.abs(seen["click"].numpy() - missing["click"].numpy()).max() > 0.001


def test_rank_computes_one_context_for_all_and_takes_weights(
    loaded: Any, raw: dict[str, tf.Tensor], tiny_world: TinyWorld
) -> None:
    request = rank_inputs(tiny_world.config, raw)
    names = tiny_world.config.objective_names
    weights = np.array([2.0 if name == "like" else 0.0 for name in names], np.float32)
    answer = loaded.signatures["rank"](**request, score_weights=tf.constant(weights))
    order = answer["ranking"].numpy()
    assert sorted(order) == list(range(30))
    assert (np.diff(answer["like"].numpy()[order]) <= 0).all()
    np.testing.assert_allclose(answer["combined_score"], (answer["like"].numpy() + 0.05) ** 2, rtol=1e-4)


@pytest.mark.parametrize("signature", RANKING_SIGNATURES)
@pytest.mark.parametrize("count", [0, 1, 300])
def test_any_number_of_candidates(loaded: Any, tiny_world: TinyWorld, signature: str, count: int) -> None:
    records = (Workdir.open(tiny_world.workdir).sample() * 2)[: max(count, 1)]
    inputs: dict[str, tf.Tensor] = {"examples": tf.constant(records[:count], tf.string, shape=[count])}
    if signature != "serving_examples":
        inputs = served_features(tiny_world.config, records)
        if signature == "rank":
            inputs = rank_inputs(tiny_world.config, inputs)
        sides = {name: tiny_world.config.feature(name).side for name in inputs}
        inputs = {
            name: values if signature == "rank" and sides[name] == "context" else values[:count]
            for name, values in inputs.items()
        }
        if signature == "rank":
            inputs["score_weights"] = tf.ones([len(tiny_world.config.objective_names)])
    assert loaded.signatures[signature](**inputs)["combined_score"].shape == (count,)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("duration", lambda values: tf.fill(values.shape, np.float32("inf")), "`duration` must be finite, or NaN"),
        ("duration", lambda values: values * 0 - 2.0, "above -1 for log1p"),
        ("content", lambda values: values * np.float32("nan"), "`content` must be finite"),
        ("topic", lambda values: values[:4], "`topic` must have as many rows as"),
    ],
)
def test_the_graph_refuses_what_tf_serving_would_let_through(
    loaded: Any, raw: dict[str, tf.Tensor], tiny_world: TinyWorld, name: str, change: Any, message: str
) -> None:
    bad = raw | {name: change(raw[name])}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        loaded.signatures["serving_default"](**bad)


def test_a_missing_duration_is_served(loaded: Any, raw: dict[str, tf.Tensor]) -> None:
    answer = loaded.signatures["serving_default"](**raw | {"duration": raw["duration"] * np.float32("nan")})
    assert np.isfinite(answer["combined_score"]).all()


@pytest.mark.parametrize(("bad", "name"), [(np.nan, "click"), (-1.0, "dismiss")])
def test_weights_are_checked(
    loaded: Any, raw: dict[str, tf.Tensor], tiny_world: TinyWorld, bad: float, name: str
) -> None:
    names = tiny_world.config.objective_names
    weights = tf.constant([bad if each == name else 1.0 for each in names], tf.float32)
    with pytest.raises(tf.errors.InvalidArgumentError, match="`score_weights` must be finite, and at least 0"):
        loaded.signatures["rank"](**rank_inputs(tiny_world.config, raw), score_weights=weights)


def test_the_contract_names_the_item_key_and_what_no_request_has(loaded: Any) -> None:
    contract = json.loads(loaded.signatures["contract"]()["contract"].numpy())
    assert contract["item_key"] == "video_id"
    assert contract["objectives"][0]["name"] == "click"
    assert contract["bias_features"] == ["position"]


def test_versions_rise_and_nothing_else_is_left(tiny_world: TinyWorld, tmp_path: Path) -> None:
    shown = []

    def see(version: Path, previous: Path | None) -> None:
        assert (version / "saved_model.pb").is_file()
        assert (version / "assets.extra" / ANSWERS).is_file()
        shown.append((version.parent, previous))

    first, second = (export(tiny_world.workdir, tmp_path, see) for _ in range(2))
    assert shown == [(tmp_path, None), (tmp_path, first)]
    assert int(second.name) > int(first.name)
    assert {entry.name for entry in tmp_path.iterdir()} == {first.name, second.name}


def test_the_gate_is_given_the_version_that_a_server_would_take_and_may_refuse(
    tiny_world: TinyWorld, tmp_path: Path
) -> None:
    there = {"00007", "5", "latest", "\u0669\u0669", "99999999999"}  # one is two nines of another script
    for name in there - {"99999999999"}:
        (tmp_path / name).mkdir()
    (tmp_path / "99999999999").write_text("a note, and no version")
    shown = []

    def see(version: Path, previous: Path | None) -> None:
        shown.append(previous)
        raise InputError("An export must pass the check `loads` before it is published. Received: nothing.")

    with pytest.raises(InputError, match="`loads`"):
        export(tiny_world.workdir, tmp_path, see)
    assert shown == [tmp_path / "00007"]
    assert {entry.name for entry in tmp_path.iterdir()} == there
    # No number is taken twice, not even that of a file.
    (tmp_path / "built").mkdir()
    assert _publish(tmp_path / "built", tmp_path) == tmp_path / "100000000000"


def test_only_what_nobody_writes_any_more_is_removed(tmp_path: Path) -> None:
    abandoned = tmp_path / ".export-of_a_killed_one"
    (abandoned / "variables").mkdir(parents=True)
    with _folder_beside(tmp_path) as first:
        assert not abandoned.exists()
        with _folder_beside(tmp_path) as second:  # another process's lock is seen just like this one's
            assert first.is_dir()
            assert second.is_dir()
        assert list(tmp_path.iterdir()) == [first]
    assert list(tmp_path.iterdir()) == []


def test_the_training_models_answers_are_those_with_position_missing(loaded: Any, tiny_world: TinyWorld) -> None:
    from tensorflow_serving.apis import prediction_log_pb2

    logs = {}
    for record in tf.data.TFRecordDataset(str(tiny_world.version / "assets.extra" / ANSWERS)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log
        logs[log.request.model_spec.signature_name] = log
    assert set(logs) == set(RANKING_SIGNATURES)
    workdir = Workdir.open(tiny_world.workdir)
    ranker, sample = workdir.load_ranker(), workdir.sample()
    expected = ranker(ranker.feature_rows(served_features(tiny_world.config, sample)))
    for name in ("serving_default", "serving_examples"):
        assert set(logs[name].response.outputs) == {*tiny_world.config.objective_names, "combined_score"}
        answer = tf.make_ndarray(logs[name].response.outputs["click"])
        np.testing.assert_allclose(answer, expected["click"], atol=1e-6)
    assert logs["rank"].request.inputs["user_id"].tensor_shape.dim[0].size == 1
    inputs = {alias: tf.constant(tf.make_ndarray(tensor)) for alias, tensor in logs["rank"].request.inputs.items()}
    ones = tf.ones([len(tiny_world.config.objective_names)])
    answer = tf.make_ndarray(logs["rank"].response.outputs["click"])
    np.testing.assert_allclose(answer, loaded.signatures["rank"](**inputs, score_weights=ones)["click"], atol=1e-6)


def test_relocatable_without_the_workdir(tiny_world: TinyWorld, tmp_path: Path, raw: dict[str, tf.Tensor]) -> None:
    shutil.copytree(tiny_world.version, tmp_path / "moved")
    moved = tf.saved_model.load(str(tmp_path / "moved"))
    assert moved.signatures["serving_default"](**raw)["combined_score"].shape == (30,)


def test_warm_up_records_run_every_signature(loaded: Any, tiny_world: TinyWorld) -> None:
    from tensorflow_serving.apis import prediction_log_pb2

    seen = set()
    file = tiny_world.version / "assets.extra" / "tf_serving_warmup_requests"
    for record in tf.data.TFRecordDataset(str(file)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        seen.add(request.model_spec.signature_name)
        inputs = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
        if request.model_spec.signature_name == "rank":
            inputs["score_weights"] = tf.ones([len(tiny_world.config.objective_names)])
        loaded.signatures[request.model_spec.signature_name](**inputs)
    assert seen == {*RANKING_SIGNATURES, "contract"}


def test_models_must_be_a_folder(tiny_world: TinyWorld, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="folder of models must be a folder"):
        export(tiny_world.workdir, tmp_path / "file", gate)

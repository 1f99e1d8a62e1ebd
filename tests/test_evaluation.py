"""The report on a split: each number against one worked out here from the same predictions."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.evaluation import evaluate_workdir, learned_bias, predict
from mmoe_ranker.evaluation_metrics import evaluate
from mmoe_ranker.evaluation_rows import slice_names
from mmoe_ranker.evaluation_text import format_report
from mmoe_ranker.examples import decode_examples, example_layout
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.saved_evaluation import load_evaluation
from mmoe_ranker.workdir import Workdir
from tests.conftest import TinyWorld


def _predictions(count: int = 400, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    click = (rng.random(count) < 0.3).astype(float)
    watch = np.where(click == 1, rng.random(count) * 60, np.nan)
    labels = {"click": click, "watch_time": watch, "like": np.zeros(count), "dismiss": np.full(count, np.nan)}
    predictions = {name: rng.random(count) * 0.9 + 0.05 for name in labels}
    predictions["watch_time"] *= 60
    columns = {
        "request_id": np.repeat([f"r{index}".encode() for index in range(count // 10)], 10),
        "item_id": np.array([f"v{index}".encode() for index in range(count)]),
        "position": np.tile(np.arange(1, 11), count // 10),
        "device": rng.choice([b"phone", b"tv", b""], count),
        "user_id": rng.choice([b"u1", b"u2"], count),
        "video_id": rng.choice([b"v1", b"v2"], count),
    }
    return Predictions(predictions, labels, columns)


def test_numbers_are_those_of_the_rows(config: Config) -> None:
    data = _predictions()
    report = evaluate(data, config)
    click, predicted = data.labels["click"], data.predictions["click"]
    overall = report["objectives"]["click"]
    assert report["impressions"] == 400
    assert report["requests"] == 40
    assert overall["labelled"] == 400
    assert overall["mean_label"] == pytest.approx(click.mean())
    assert overall["auc"] == pytest.approx(roc_auc_score(click, predicted))
    assert overall["log_loss"] == pytest.approx(log_loss(click, predicted))
    assert overall["calibration"] == pytest.approx(predicted.sum() / click.sum())
    watched = click == 1
    error = data.predictions["watch_time"][watched] - data.labels["watch_time"][watched]
    assert report["objectives"]["watch_time"]["rmse"] == pytest.approx(math.sqrt(np.mean(error**2)))
    assert report["objectives"]["watch_time"]["labelled"] == watched.sum()
    for device in (b"phone", b"tv", b""):
        rows = data.columns["device"] == device
        sliced = report["slices"]["device"][device.decode() or "(missing)"]["click"]
        assert sliced["impressions"] == rows.sum()
        assert sliced["auc"] == pytest.approx(roc_auc_score(click[rows], predicted[rows]))
    assert set(report["slices"]["position"]) == {str(position) for position in range(1, 11)}


def test_without_gates_there_is_no_section_of_them(config: Config) -> None:
    report = evaluate(_predictions(), config)
    assert "gates" not in report
    assert "experts" not in format_report(report)


def test_auc_within_position_weighs_positions_by_rows(config: Config) -> None:
    data = _predictions()
    values, weights = [], []
    for position in range(1, 11):
        rows = data.columns["position"] == position
        values.append(roc_auc_score(data.labels["click"][rows], data.predictions["click"][rows]))
        weights.append(rows.sum())
    within = evaluate(data, config)["objectives"]["click"]["auc_within"]["position"]
    assert within["value"] == pytest.approx(np.average(values, weights=weights))
    assert within["groups_counted"] == 10


def test_combined_score_uses_the_weights_of_the_config(config: Config) -> None:
    data = _predictions()
    p = data.predictions
    score = p["click"] * (p["watch_time"] + 1) ** 0.5 * (p["like"] + 0.05) ** 0.3 * (1 - p["dismiss"]) ** 2
    gains = []
    for start in range(0, 400, 10):
        labels = data.labels["click"][start : start + 10]
        if labels.any():
            order = np.argsort(-score[start : start + 10])
            discount = 1 / np.log2(np.arange(2, 12))
            gains.append((labels[order] * discount).sum() / (np.sort(labels)[::-1] * discount).sum())
    metric = evaluate(data, config)["combined_score"]["ndcg@10"]["click"]
    assert metric["value"] == pytest.approx(np.mean(gains))
    assert metric["groups_counted"] == len(gains)


def test_unknown_groups_are_no_group_and_minus_one_is_an_id(config: Config) -> None:
    data = _predictions()
    data.columns["device"][:5] = b"-1"
    data.columns["position"][0] = -1
    report = evaluate(data, config)
    assert report["slices"]["device"]["-1"]["click"]["impressions"] == 5
    assert report["slices"]["device"]["(missing)"]["click"]["impressions"] == (data.columns["device"] == b"").sum()
    assert report["slices"]["position"]["(missing)"]["click"]["impressions"] == 1
    assert report["objectives"]["click"]["auc_within"]["position"]["groups_total"] == 10


def test_negative_labels_have_no_ndcg(config: Config) -> None:
    data = _predictions()
    data.labels["watch_time"][0] = -3.0
    report = evaluate(data, config)
    assert report["objectives"]["watch_time"]["ndcg@10"]["value"] is None
    assert report["objectives"]["watch_time"]["rmse"] > 0


def test_what_is_not_defined_is_null_and_printed_as_a_dash(config: Config) -> None:
    report = evaluate(_predictions(), config)
    assert report["objectives"]["like"]["auc"] is None
    assert report["objectives"]["dismiss"]["labelled"] == 0
    assert report["objectives"]["dismiss"]["mean_label"] is None
    text = format_report(json.loads(json.dumps(report)))
    assert "NaN" not in json.dumps(report)
    text = re.sub(r" \[[^]]*\]", "", text)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()[2:20] if line.split()}
    # Columns: click, watch_time, like, dismiss. There is no AUC of a regression, of one class, or of no label.
    assert rows["metric"] == ["click", "watch_time", "like", "dismiss"]
    assert rows["auc"][1:] == ["-", "-"]


def test_slices_are_the_bias_features_and_those_of_the_config(config: Config) -> None:
    more = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"slices": ("user_id",)})})
    assert slice_names(more) == ["position", "device", "user_id"]


def test_predictions_stand_beside_the_labels_of_their_impressions(tiny_world: TinyWorld) -> None:
    from mmoe_ranker.dataset import serialized_examples

    ranker = Workdir.open(tiny_world.workdir).load_ranker()
    data = predict(ranker, tiny_world.examples, "test", tiny_world.config)
    records = [record.numpy() for record in serialized_examples(tiny_world.examples, "test")]
    columns = decode_examples(records, example_layout(tiny_world.config))
    assert data.columns["request_id"].tolist() == [value.encode() for value in columns["request_id"]]
    assert data.labels["click"].tolist() == columns["click_label"]
    for label, watch in zip(data.labels["watch_time"], columns["watch_time_label"], strict=True):
        assert (watch is None and math.isnan(label)) or label == pytest.approx(watch)


def test_report_of_a_workdir_holds_the_learned_bias(tiny_world: TinyWorld) -> None:
    report = evaluate_workdir(tiny_world.workdir, tiny_world.examples, "test")
    assert report["objectives"]["click"]["auc"] > 0.55
    ranker = Workdir.open(tiny_world.workdir).load_ranker()
    assert ranker.bias.tower is not None
    tables = {name: table.get_weights()[0] for name, table in ranker.bias.tower.tables.items()}
    devices = ranker.feature_rows.rows["device"]
    rows = {(row["position"], row["device"]): row["click"] for row in report["learned_bias"]}
    assert len(rows) == 22 * 4
    index = {value: row for row, value in devices.values()}
    for position, device in ((1, "phone"), (20, "tv"), (None, None)):
        row = 0 if position is None else position + 1
        expected = tables["position"][row, 0] + tables["device"][index[device], 0]
        expected += tables["position_x_device"][row * devices.num_rows + index[device], 0]
        assert rows[(position, device)] == pytest.approx(float(expected), rel=1e-5)
    assert learned_bias(ranker)[0].keys() == {"position", "device", "click", "like", "dismiss"}


def test_an_evaluation_stays_in_its_workdir(tiny_world: TinyWorld) -> None:
    report = evaluate_workdir(tiny_world.workdir, tiny_world.examples, "validation")
    saved = load_evaluation(tiny_world.workdir, "validation")
    assert saved.report == report
    assert saved.examples == tiny_world.examples.resolve()
    made = predict(Workdir.open(tiny_world.workdir).load_ranker(), tiny_world.examples, "validation", saved.config)
    for of_saved, of_made in (
        (saved.predictions.predictions, made.predictions),
        (saved.predictions.labels, made.labels),
        (saved.predictions.seen, made.seen),
        (saved.predictions.columns, made.columns),
    ):
        assert of_saved is not None
        assert of_made is not None
        assert of_saved.keys() == of_made.keys()
        for name, values in of_made.items():
            np.testing.assert_array_equal(of_saved[name], values)
    assert saved.predictions.expert_health is not None
    assert made.expert_health is not None
    np.testing.assert_array_equal(saved.predictions.expert_health.utilisation, made.expert_health.utilisation)


def test_position_seen_changes_what_the_tower_biases_and_nothing_else(tiny_world: TinyWorld) -> None:
    ranker = Workdir.open(tiny_world.workdir).load_ranker()
    made = predict(ranker, tiny_world.examples, "test", tiny_world.config)
    assert made.seen is not None
    bias = {(row["position"], row["device"]): row["click"] for row in learned_bias(ranker)}
    keys = list(zip(made.columns["position"].tolist(), made.columns["device"].tolist(), strict=True))
    moved = [bias[(position, device.decode())] - bias[(None, device.decode())] for position, device in keys]
    logits = {
        name: np.log(values["click"] / (1 - values["click"]))
        for name, values in (("seen", made.seen), ("missing", made.predictions))
    }
    np.testing.assert_allclose(logits["seen"] - logits["missing"], moved, atol=2e-5)
    np.testing.assert_array_equal(made.seen["watch_time"], made.predictions["watch_time"])


def test_an_unknown_split_is_refused(tiny_world: TinyWorld) -> None:
    with pytest.raises(InputError, match="one of train, validation, test"):
        evaluate_workdir(tiny_world.workdir, tiny_world.examples, "dev")

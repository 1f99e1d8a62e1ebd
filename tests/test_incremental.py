"""Incremental training: old values keep what they learned, new ones start from the bucket that they were in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.dataset import labelled_dataset
from mmoe_ranker.errors import InputError
from mmoe_ranker.evaluation import evaluate_workdir
from mmoe_ranker.incremental import carry_over, joint_origins, open_start, row_origins
from mmoe_ranker.layers import HashRows, VocabularyRows
from mmoe_ranker.model import Ranker
from mmoe_ranker.optimizers import compile_ranker
from mmoe_ranker.statistics import LabelStatistics, NumericStatistics, Statistics
from mmoe_ranker.training import train
from mmoe_ranker.workdir import CHECKPOINTS, RESULT, Workdir
from tests.configs import TWO_OBJECTIVES

SETTINGS = [
    *TWO_OBJECTIVES,
    "model.hidden=[32]",
    "model.sharing.units=[16]",
    "model.tower=[8]",
    "training.batch_size=32",
    "training.epochs=1",
    "evaluation.bootstrap.replicates=0",
]


class Days:
    """Three days of one simulated world; no request of the first came from a TV."""

    def __init__(self, folder: Path) -> None:
        from mmoe_ranker.simulation import simulate, write_logs
        from pipelines.impressions import run

        self.folder = folder
        self.config = load_config("watch_next", SETTINGS)
        write_logs(simulate(900, seed=5), folder / "logs")
        requests = (folder / "logs" / "impressions.jsonl").read_text().splitlines(keepends=True)
        requests.sort(key=lambda line: json.loads(line)["timestamp"])
        self.examples = []
        for day, start in enumerate(range(0, 900, 300)):
            lines = requests[start : start + 300]
            if day == 0:
                lines = [line for line in lines if json.loads(line)["context"]["device"] != "tv"]
            (folder / f"day_{day}.jsonl").write_text("".join(lines))
            self.examples.append(folder / f"examples_{day}")
            feedback = str(folder / "logs" / "feedback.jsonl")
            run(self.config, str(folder / f"day_{day}.jsonl"), feedback, str(self.examples[-1]), [])
        self.first = folder / "first"
        train(self.config, self.examples[0], self.first)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Days:
    return Days(tmp_path_factory.mktemp("days"))


def _begin(days: Days, workdir: Path, config: Config) -> tuple[Workdir, Workdir]:
    """The second day's workdir before its first step."""
    start = open_start(days.first, config)
    begun = Workdir.create(workdir, config, days.examples[1], start)
    carry_over(start, begun, 1)
    return start, begun


def _predictions(ranker: Ranker, examples: Path, config: Config) -> dict[str, np.ndarray]:
    batches = [ranker(features) for features, _ in labelled_dataset(examples, "train", config, ranker.feature_rows)]
    return {name: np.concatenate([batch[f"{name}_logit"] for batch in batches]) for name in config.objective_names}


def test_a_grown_vocabulary_keeps_its_order_and_yesterdays_moments() -> None:
    def statistics(count: int, vocabulary: tuple[str, ...], mean: float) -> Statistics:
        return Statistics(
            num_examples=count,
            numeric={"age": NumericStatistics(count, 0, mean, 1.0, 0.0, 9.0, (mean,))},
            labels={"click": LabelStatistics(count, mean / 10, 0.1)},
            vocabularies={"item": vocabulary},
        )

    old, new = statistics(10, ("b", "a"), 1.0), statistics(20, ("c", "a", "d"), 2.0)
    assert old.grown_by(new) == dataclasses.replace(old, num_examples=20, vocabularies={"item": ("b", "a", "c", "d")})


def test_a_new_value_comes_from_the_bucket_that_it_was_hashed_into() -> None:
    old, new = VocabularyRows(["b", "a"], 3), VocabularyRows(["b", "a", "c", "d"], 3)
    expected = [0, 1, 2, 3, 4, 5, *(int(old(tf.constant(value))) for value in ("c", "d"))]
    assert row_origins(old, new).tolist() == expected
    assert set(expected[-2:]) <= {1, 2, 3}
    assert row_origins(HashRows(5), HashRows(5)).tolist() == [0, 1, 2, 3, 4, 5]


def test_the_rows_of_a_cross_come_from_the_rows_of_its_features() -> None:
    first, second, third = np.array([0, 1, 2, 1]), np.array([0, 1]), np.array([0, 1, 1])
    old_num_rows = (3, 2, 2)
    expected = [np.ravel_multi_index((a, b, c), old_num_rows) for a in first for b in second for c in third]
    assert joint_origins([first, second, third], old_num_rows).tolist() == expected


@pytest.mark.slow
def test_before_its_first_step_it_answers_as_yesterdays(days: Days, tmp_path: Path) -> None:
    start, begun = _begin(days, tmp_path / "second", days.config)
    old, new = start.load_ranker(), begun.load_ranker()
    grown = {
        name: set(rows.vocabulary) - set(old.feature_rows.rows[name].vocabulary)
        for name, rows in new.feature_rows.rows.items()
        if isinstance(rows, VocabularyRows)
    }
    assert grown["device"] == {"tv"}
    assert len(grown["video_id"]) > 20
    for table in ("device", "video_id"):
        old_rows, new_rows = (ranker.encoder.tables[table].embeddings.shape[0] for ranker in (old, new))
        assert new_rows == old_rows + len(grown[table])
    # The second day's examples hold old values and new ones, and positions on devices that are new.
    expected = _predictions(old, days.examples[1], days.config)
    received = _predictions(new, days.examples[1], days.config)
    for name, logits in expected.items():
        np.testing.assert_array_equal(received[name], logits, err_msg=name)
    assert np.ptp(expected["click"]) > 0.1


@pytest.mark.slow
def test_slots_go_with_their_rows(days: Days, tmp_path: Path) -> None:
    start, begun = _begin(days, tmp_path / "second", days.config)
    rankers = []
    for workdir in (start, begun):
        ranker = workdir.build_ranker()
        compile_ranker(ranker, days.config.training)
        workdir.restore(ranker=ranker, optimizer=ranker.optimizer)
        rankers.append(ranker)
    old, new = rankers
    # Of the tables, of the rest, of the shallow tower.
    (old_adagrad, old_dense, old_adam), (new_adagrad, new_dense, new_adam) = (
        ranker.optimizer.optimizers for ranker in rankers
    )
    for before, after in zip(old.optimizer.optimizers, new.optimizer.optimizers, strict=True):
        assert int(after.iterations) == int(before.iterations) > 0
    # Row by row, by looking each value up in both vocabularies.
    rows = {name: [r.feature_rows.rows[name] for r in rankers] for name in ("video_id", "device")}
    accumulators = [
        adagrad.get_slot(ranker.encoder.tables["video_id"].embeddings, "accumulator").numpy()
        for ranker, adagrad in zip(rankers, (old_adagrad, new_adagrad), strict=True)
    ]
    assert np.ptp(accumulators[0]) > 0
    for value in rows["video_id"][1].vocabulary:
        before, after = (int(lookup(tf.constant(value))) for lookup in rows["video_id"])
        np.testing.assert_array_equal(accumulators[1][after], accumulators[0][before], err_msg=value)
    # The shallow tower's cross, by Adam.
    moments = [
        adam.get_slot(ranker.bias.tower.tables["position_x_device"].embeddings, "v").numpy()
        for ranker, adam in zip(rankers, (old_adam, new_adam), strict=True)
    ]
    assert np.ptp(moments[0]) > 0
    for value in rows["device"][1].vocabulary:
        before, after = (int(lookup(tf.constant(value))) for lookup in rows["device"])
        for position in range(old.feature_rows.rows["position"].num_rows):
            np.testing.assert_array_equal(
                moments[1][position * rows["device"][1].num_rows + after],
                moments[0][position * rows["device"][0].num_rows + before],
            )
    # Dense layers, whose shape has not changed.
    dense = [ranker.hidden.layers[0].kernel for ranker in rankers]
    np.testing.assert_array_equal(new_dense.get_slot(dense[1], "m"), old_dense.get_slot(dense[0], "m"))
    np.testing.assert_array_equal(dense[1], dense[0])


@pytest.mark.slow
def test_on_the_same_examples_it_is_one_more_pass(days: Days, tmp_path: Path) -> None:
    # In order of time, since each pass of one training would be shuffled otherwise.
    once, twice = (
        load_config("watch_next", [*SETTINGS, "training.shuffle_window=1", f"training.epochs={epochs}"])
        for epochs in (1, 2)
    )
    train(once, days.examples[0], tmp_path / "once")
    train(once, days.examples[0], tmp_path / "again", tmp_path / "once")
    train(twice, days.examples[0], tmp_path / "twice")
    rankers = [Workdir.open(tmp_path / name).load_ranker() for name in ("twice", "again")]
    for expected, received in zip(*(ranker.variables for ranker in rankers), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-6, err_msg=expected.name)


@pytest.mark.slow
def test_yesterday_helps_today(days: Days, tmp_path: Path) -> None:
    result = train(days.config, days.examples[1], tmp_path / "incremental", days.first)
    assert result["started_from"]["path"] == str(days.first.resolve())
    assert result == json.loads((tmp_path / "incremental" / RESULT).read_text())
    train(days.config, days.examples[1], tmp_path / "alone")
    losses = {
        name: evaluate_workdir(tmp_path / name, days.examples[2], "train")["objectives"]["click"]["log_loss"]
        for name in ("incremental", "alone")
    }
    assert losses["incremental"] < losses["alone"]


@pytest.mark.slow
def test_goes_on_with_the_same_start_alone(days: Days, tmp_path: Path) -> None:
    _, begun = _begin(days, tmp_path / "second", days.config)
    first = tf.train.latest_checkpoint(str(begun.path / CHECKPOINTS))
    # Begun and killed: the weights are there already, and are not carried over again.
    carry_over(open_start(days.first, days.config), begun, 1)
    assert tf.train.latest_checkpoint(str(begun.path / CHECKPOINTS)) == first
    with pytest.raises(InputError, match=r"was started from '.*first': go on with the same `--from`.*no `--from`\.$"):
        train(days.config, days.examples[1], begun.path)
    other = tmp_path / "other"
    train(days.config, days.examples[1], other)
    with pytest.raises(InputError, match=r"go on with the same `--from`.*Received: '.*other'\.$"):
        train(days.config, days.examples[1], begun.path, other)
    with pytest.raises(InputError, match=r"was started from nothing: .*Received: '.*first'\.$"):
        train(days.config, days.examples[1], other, days.first)


@pytest.mark.slow
def test_another_model_cannot_start_from_it(days: Days, tmp_path: Path) -> None:
    other = load_config("watch_next", [*SETTINGS, "model.tower=[9]"])
    with pytest.raises(InputError, match=r"the very `model` of the training that it starts from.*other `model`\.$"):
        train(other, days.examples[1], tmp_path / "second", days.first)
    with pytest.raises(InputError, match="finished training"):
        train(days.config, days.examples[1], tmp_path / "second", tmp_path)
    assert not (tmp_path / "second").exists()

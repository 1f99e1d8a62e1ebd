"""What `verify` finds beside the graph: the training model's answers, warm-up records, the version before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

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
from tests.serving.spoilt_versions import ANSWERS, WARM_UP, failed, findings


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


def test_a_change_of_the_contract_of_a_real_version(good_version: Path, tmp_path: Path) -> None:
    changed = CONTRACT | {"item_key": "item_id", "combined_score": {"form": "weighted_sum"}}
    version = publish(tmp_path / "2", Scorer(contract=changed))
    found = findings(version, good_version)["compatibility"]
    assert found.status == "failed"
    assert found.sentence == (
        "Breaks who calls version 1: the item key was `video_id` and is `item_id`. "
        "Compatible with version 1: the combined score has changed."
    )
    assert findings(version, good_version, allow_breaking=True)["compatibility"].status == "ok"


def test_a_version_before_that_cannot_be_read_is_no_reason_to_fail(version: Path, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    found = findings(version, tmp_path / "1")["compatibility"]
    assert found.status == "skipped"
    assert found.sentence == "Of the version before, 1, saved_model.pb cannot be read: No such file or directory."

"""What the report reads of a training: TensorBoard's files without TensorFlow, and bins that say something."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto

from mmoe_ranker.report.calibration_section import joined_bins
from mmoe_ranker.report.training_log import training_metrics
from mmoe_ranker.report.training_section import read_curves, training_section
from tests.report.worlds import report_config


def _write(file: Path, values: list[tuple[int, float]], tail: bytes = b"") -> None:
    """An event file as TensorFlow writes it, checksums left 0."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = b""
    for step, value in values:
        tensor = TensorProto(float_val=[value])
        named = [
            Summary.Value(tag="batch_click_auc", tensor=tensor),
            Summary.Value(tag="epoch_click_auc", tensor=tensor),
        ]
        record = Event(step=step, summary=Summary(value=named)).SerializeToString()
        content += struct.pack("<QI", len(record), 0) + record + struct.pack("<I", 0)
    file.write_bytes(content + tail)


def test_steps_go_on_over_passes_and_kills(tmp_path: Path) -> None:
    _write(tmp_path / "train/events.out.tfevents.100.host.1.0.v2", [(20, 0.5), (40, 0.625)], tail=b"\x99\x00\x00")
    _write(tmp_path / "train/events.out.tfevents.200.host.1.1.v2", [(20, 0.75), (40, 0.875)])
    metrics = training_metrics(tmp_path)
    assert list(metrics) == ["click_auc"]
    steps, values = metrics["click_auc"]
    assert steps.tolist() == [20, 40, 60, 80]
    assert values.tolist() == [0.5, 0.625, 0.75, 0.875]


def test_a_record_that_was_cut_off_ends_the_file(tmp_path: Path) -> None:
    file = tmp_path / "train/events.out.tfevents.100.host.1.0.v2"
    _write(file, [(20, 0.5), (40, 0.625)])
    file.write_bytes(file.read_bytes()[:-7])
    assert training_metrics(tmp_path)["click_auc"][1].tolist() == [0.5]


def test_curves_become_a_figure(tmp_path: Path) -> None:
    _write(tmp_path / "logs/train/events.out.tfevents.100.host.1.0.v2", [(20, 0.5), (40, 0.625)])
    section = training_section({"steps": 40}, read_curves(tmp_path), report_config())
    (figure,) = section.blocks[0].figures
    assert figure.title == "AUC on the training impressions"
    assert ">click<" in figure.svg
    assert section.missing == []


def test_bins_are_joined_until_they_expect_enough() -> None:
    rng = np.random.default_rng(3)
    predicted = np.sort(rng.uniform(0.001, 0.05, 20))
    observed, weights = rng.uniform(0, 0.05, 20), rng.integers(100, 300, 20).astype(float)
    joined = [np.array(column) for column in joined_bins(predicted.tolist(), observed.tolist(), weights.tolist())]
    assert 1 < len(joined[0]) < 20
    assert (joined[0] * joined[2] >= 10).all()
    assert joined[2].sum() == weights.sum()
    assert joined[0] @ joined[2] == pytest.approx(predicted @ weights)
    assert joined[1] @ joined[2] == pytest.approx(observed @ weights)


def test_few_positives_make_one_bin() -> None:
    assert joined_bins([0.01, 0.02], [0.0, 0.1], [10.0, 10.0]) == (
        [pytest.approx(0.015)],
        [pytest.approx(0.05)],
        [20.0],
    )

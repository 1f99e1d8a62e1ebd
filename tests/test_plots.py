"""Figures show the numbers that they were given, with axes that say what they are."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

mpl.use("Agg")

from mmoe_ranker import plots
from mmoe_ranker.position_bias import learned_curves, position_bias_report
from tests.position_bias.test_report import CONFIG
from tests.position_bias.worlds import simulated


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def _labelled(figure) -> None:
    for axes in figure.axes:
        assert axes.get_ylabel() or axes.get_xlabel()
    assert any(axes.get_title() for axes in figure.axes)


def test_rates_are_drawn_with_their_intervals():
    figure = plots.rate_by_position({"tv": {2: (0.2, 0.1, 0.4), 1: (0.5, 0.4, 0.6)}, "web": {1: (0.3, 0.2, 0.4)}})
    _labelled(figure)
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 0.5], [2, 0.2]])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["tv", "web"]
    band = axes.collections[0].get_paths()[0].vertices
    assert {(1.0, 0.4), (1.0, 0.6), (2.0, 0.1), (2.0, 0.4)} <= {tuple(point) for point in band.tolist()}
    assert not plots.rate_by_position({"tv": {1: 0.5}}).axes[0].collections


def test_learned_bias_is_drawn_relative_to_the_first_position_with_the_truth():
    runs = [
        [{"position": place, "device": "tv", "click": bias - place * step} for place in (1, 2)]
        for bias, step in ((5, 1.0), (2, 2.0))
    ]
    truth = {"tv": [0.8, 0.4], "web": [1.0, 1.0]}
    (axes,) = plots.learned_bias_over_seeds(learned_curves(runs, "click"), "click", truth).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1, np.exp(-1.5)])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [1, 0.5])
    np.testing.assert_allclose(axes.collections[0].get_paths()[0].vertices[:, 1].min(), np.exp(-2))
    _labelled(axes.figure)
    (one,) = plots.learned_bias(runs[0], "click").axes
    np.testing.assert_allclose(one.lines[0].get_ydata(), [1, np.exp(-1)])
    assert not one.collections


def test_a_report_of_position_bias_is_drawn_and_so_is_what_is_left_of_it():
    log = simulated(requests=400)
    report = position_bias_report(log.predictions(), CONFIG)
    figure = plots.examination(report["examination"], truth=log.examination[:20])
    _labelled(figure)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == 6
    seen = figure.axes[0].lines[labels.index("the model, position seen")]
    assert seen.get_ydata().tolist() == [row["value"] for row in report["examination"]["predicted_seen"]]
    left = plots.examination({**report["examination"], "predicted_seen": None})
    assert len(left.axes[0].lines) == 4
    figure = plots.calibration_by_position(report["calibration"])
    _labelled(figure)
    ratios = [row["ratio"] for row in report["calibration"]["missing"] if row["high"] is not None]
    assert figure.axes[0].lines[1].get_ydata().tolist() == ratios
    assert len(plots.calibration_by_position({**report["calibration"], "seen": None}).axes[0].lines) == 2


def test_gates_and_experts_are_drawn():
    gates = np.random.default_rng(0).dirichlet(np.ones(3), (5, 2))
    figure = plots.gate_utilisation(gates, ["click", "like"])
    _labelled(figure)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), gates.mean(axis=0))
    figure = plots.expert_similarity([[1.0, 0.3, None], [0.3, 1.0, None], [None, None, None]])
    _labelled(figure)
    assert [text.get_text() for text in figure.axes[0].texts].count("silent") == 5
    rows = [{"step": step, "entropy_share": [0.9, 0.8], "similarity": value} for step, value in ((10, 0.4), (20, None))]
    figure = plots.expert_history({"objectives": ["click", "like"], "history": rows})
    _labelled(figure)
    assert figure.axes[0].lines[1].get_ydata().tolist() == [0.8, 0.8]
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [0.4, np.nan])

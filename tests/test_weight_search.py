"""A search for weights: on a world in which the right weights are known, and the files that it leaves."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import yaml

from mmoe_ranker import metrics, weight_search
from mmoe_ranker.combined_score import CombinedScore
from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import dump_config, load_config, override_config, parse_config
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.request_sample import sample_requests
from mmoe_ranker.weight_plots import weight_front
from mmoe_ranker.weight_report import format_search, score_block, search_document, weights_csv, write_search
from mmoe_ranker.weight_search import BALANCED, BETTER, CURRENT, check, search_weights, weight_vectors
from tests.configs import small_config


def _world(requests: int = 300, seed: int = 0) -> Predictions:
    """Lists of 10; predictions are the true probabilities, and what is liked is what is clicked little."""
    rng = np.random.default_rng(seed)
    count = requests * 10
    click = rng.random(count) * 0.8 + 0.1
    truth = {"click": click, "like": 0.3 * (1 - click) + 0.02, "dismiss": rng.random(count) * 0.2}
    labels = {name: (rng.random(count) < p).astype(float) for name, p in truth.items()}
    watch = rng.random(count) * 60
    labels["watch_time"] = np.where(labels["click"] == 1, watch * rng.random(count), np.nan)
    order = ("click", "watch_time", "like", "dismiss")
    truth["watch_time"] = watch
    columns = {
        "request_id": np.repeat(np.array([f"r{index}".encode() for index in range(requests)], dtype=object), 10),
        "item_id": np.array([f"v{index}".encode() for index in range(count)], dtype=object),
    }
    return Predictions({name: truth[name] for name in order}, {name: labels[name] for name in order}, columns)


def _ndcg(world: Predictions, score: CombinedScore, weights: np.ndarray, label: str) -> float:
    requests = world.columns["request_id"]
    return metrics.ndcg(world.labels[label], score.score(world.predictions, weights), requests, 10).value


def test_the_points_are_what_they_are_called(config: Config) -> None:
    world = _world()
    search = search_weights(world, config, trials=80)
    assert search.signs == {"click": 1, "watch_time": 1, "like": 1, "dismiss": -1}
    assert search.weights.shape == (81, 4)
    np.testing.assert_array_equal(search.weights[0], search.score.weights)
    tried = [[_ndcg(world, search.score, row, label) for label in search.labels] for row in search.weights]
    np.testing.assert_allclose(search.ndcg, tried, atol=1e-12)
    oriented = np.array(tried) * [search.signs[name] for name in search.labels]
    for row, on_front in zip(oriented, search.front, strict=True):
        beaten = any((other >= row).all() and (other > row).any() for other in oriented)
        assert on_front == (not beaten)
    for column, name in enumerate(search.labels):
        best = _ndcg(world, search.score, search.points[f"best_{name}"].weights, name) * search.signs[name]
        assert best == pytest.approx(oriented[:, column].max())
    reach = oriented.max(axis=0) - oriented.min(axis=0)
    least = ((oriented - oriented.min(axis=0)) / reach).min(axis=1)
    balanced = [np.array_equal(row, search.points[BALANCED].weights) for row in search.weights].index(True)
    assert least[balanced] == pytest.approx(least.max())
    assert (search.points[CURRENT].weights == search.weights[0]).all()
    for name, point in search.points.items():
        for label, interval in point.gains.items():
            gain = _ndcg(world, search.score, point.weights, label) - _ndcg(
                world, search.score, search.weights[0], label
            )
            assert interval[0] == pytest.approx(gain, abs=1e-12)
            assert interval.low <= gain <= interval.high or name == CURRENT


def test_little_is_good_where_the_term_says_so(config: Config) -> None:
    terms = {"like": {"weight": -3.0}, "dismiss": {"weight": 0.001, "complement": True}}
    search = search_weights(_world(), override_config(config, {"combined_score.terms": terms}), trials=60)
    assert search.signs == {"like": -1, "dismiss": -1}
    assert search.points["best_dismiss"].gains["dismiss"].high < 0
    assert set(search.notes) == {
        "`click` has no term in the combined score: shown, not sought.",
        "`watch_time` has no term in the combined score: shown, not sought.",
    }


def test_weights_that_help_everyone_are_found(config: Config) -> None:
    # Noise in the predictions of likes, and a term that listens to little else: less of it helps all the others.
    world = _world()
    world.predictions["like"] = np.random.default_rng(9).random(3000)
    world.labels["like"][:] = 0.0
    noisy = override_config(config, {"combined_score.terms.like": {"weight": 30.0}})
    search = search_weights(world, noisy, trials=60)
    assert not search.front[0]
    point = search.points[BETTER]
    assert all(point.gains[name][0] * sign > 0 for name, sign in search.signs.items())
    oriented = search.ndcg * list(search.signs.values())
    gains = ((oriented - oriented[0]) / np.ptp(oriented, axis=0)).min(axis=1)
    row = [np.array_equal(weights, point.weights) for weights in search.weights].index(True)
    assert gains[row] == pytest.approx(gains.max())


def test_the_same_search_twice(config: Config) -> None:
    one, other = (search_weights(_world(60), config, trials=30) for _ in range(2))
    assert weights_csv(one) == weights_csv(other)
    assert search_document(one, "validation", {}) == search_document(other, "validation", {})


def test_a_term_without_weight_is_tried_around_the_spread_of_the_others(config: Config) -> None:
    silent = override_config(config, {"combined_score.terms.like.weight": 0.0})
    world = _world(60)
    search = search_weights(world, silent, trials=100)
    like = search.weights[:, 2]
    assert (like[1:] > 0).mean() > 0.8
    with_it = override_config(config, {"combined_score.terms.like.weight": float(np.median(like[like > 0]))})
    effects = search_weights(world, with_it, trials=1).effects
    others = np.mean([effects[name].spread for name in ("click", "watch_time", "dismiss")])
    assert effects["like"].spread == pytest.approx(others, rel=1.0)


def test_vectors_keep_their_sum_and_cover_the_logarithms() -> None:
    current = np.array([1.0, 0.0, 0.5, 2.0])
    vectors = weight_vectors(current, current, 500)
    assert vectors.shape == (501, 4)
    np.testing.assert_array_equal(vectors[0], current)
    np.testing.assert_allclose(vectors.sum(axis=1), 3.5, rtol=1e-3)
    assert (vectors[:, 1] == 0).all()
    assert len(np.unique(vectors, axis=0)) == 501
    assert [0.0, 0.0, 0.7, 2.8] in vectors.tolist()  # the first left out
    assert [3.5, 0.0, 0.0, 0.0] in vectors.tolist()  # and alone
    # Ratios of two weights from 1/1024 to 1024 of the current one, as likely below as above.
    ratios = np.log(vectors[7:, 0] / vectors[7:, 2] / 2) / np.log(32)
    assert -2 <= ratios.min() < -1.5
    assert 1.5 < ratios.max() <= 2
    assert abs(np.median(ratios)) < 0.1


def test_narrow_tails_take_more_draws(config: Config) -> None:
    """Of 1,000 draws the ends at 99.9 % would be the least and the greatest but one."""
    narrow, wide = (search_weights(_world(60), config, trials=5, level=level) for level in (0.999, 0.95))
    point = narrow.points["best_click"]
    requests = _world(60).columns["request_id"]
    values = [
        metrics.ndcg(_world(60).labels["like"], narrow.score.score(_world(60).predictions, row), requests, 10).values
        for row in (point.weights, None)
    ]
    difference = values[0] - values[1]
    kept = difference[~np.isnan(difference)]
    drawn = kept[np.random.default_rng(9).integers(len(kept), size=(200_000, len(kept)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.0005, 0.9995])
    found = point.gains["like"]
    assert found[1:] == pytest.approx((low, high), abs=0.06 * (high - low))
    assert metrics.replicates_for(0.999, 1000) == 10_000
    assert metrics.replicates_for(0.95, 1000) == 1000
    assert wide.points["best_click"].gains["like"].low > found.low


def test_a_request_of_too_many_impressions_is_drawn_whole() -> None:
    requests = np.repeat([b"long", b"longer"], [60, 70])
    rows, sentence = sample_requests(requests, 50)
    assert rows is not None
    assert len(rows) in (60, 70)
    assert len(set(requests[rows])) == 1
    assert sentence == "1 of 2 requests is drawn, though it has more impressions than the 50 wanted."


def test_many_requests_are_drawn_from(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_search, "MAX_IMPRESSIONS", 505)
    search = search_weights(_world(), config, trials=5)
    assert search.requests == 50
    assert search.impressions == 500
    assert search.notes[0] == "50 of 300 requests are drawn, so as to have 505 impressions at most."


def test_what_cannot_be_sought_is_said(config: Config) -> None:
    world = _world(30)
    world.labels["like"][:] = 0.0
    world.labels["watch_time"][:] = -1.0
    search = search_weights(world, config, trials=20)
    assert list(search.signs) == ["click", "dismiss"]
    assert search.notes == (
        "`watch_time` has negative labels, which are no gains: no NDCG.",
        "`like` has no positive label on these impressions: no NDCG.",
    )
    text = format_search(search, "validation")
    assert all(note in text for note in search.notes)


def test_nothing_at_all_is_said(config: Config) -> None:
    empty = Predictions(
        {name: np.empty(0) for name in config.objective_names},
        {name: np.empty(0) for name in config.objective_names},
        {"request_id": np.empty(0, dtype=object), "item_id": np.empty(0, dtype=object)},
    )
    search = search_weights(empty, config, trials=20)
    assert list(search.points) == [CURRENT]
    assert len(search.notes) == 4
    assert "0 impressions, 0 requests" in format_search(search, "validation")
    json.dumps(search_document(search, "validation", {}), allow_nan=False)


def test_the_yaml_is_a_section_of_the_config(config: Config, tmp_path) -> None:
    search = search_weights(_world(60), config, trials=30)
    for point in search.points.values():
        block = yaml.safe_load(score_block(config, search, point))
        assert list(block) == ["combined_score"]
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(dump_config(config)) | block))
        loaded = load_config(tmp_path / "config.yaml")
        score = CombinedScore.from_terms(
            loaded.objective_names, loaded.combined_score.form, loaded.combined_score.terms
        )
        assert score.weights == tuple(point.weights)
        assert (score.offsets, score.complements) == (search.score.offsets, search.score.complements)


def test_the_table_has_every_weight_and_names_the_chosen(config: Config) -> None:
    search = search_weights(_world(60), config, trials=30)
    rows = list(csv.DictReader(io.StringIO(weights_csv(search))))
    assert len(rows) == 31
    assert "current" in rows[0]["chosen"].split()
    assert [float(row["ndcg@10 click"]) for row in rows] == pytest.approx(search.ndcg[:, 0].tolist(), abs=1e-6)
    assert [row["front"] == "1" for row in rows] == search.front.tolist()
    (balanced,) = (row for row in rows if BALANCED in row["chosen"].split())
    assert [float(balanced[f"weight {name}"]) for name in config.objective_names] == search.points[
        BALANCED
    ].weights.tolist()


def test_a_search_is_checked_on_other_requests(config: Config) -> None:
    search, other = search_weights(_world(200, seed=0), config, trials=40), _world(200, seed=1)
    checked = check(search, other)
    assert list(checked) == list(search.points)
    for name, point in checked.items():
        np.testing.assert_array_equal(point.weights, search.points[name].weights)
        assert point.ndcg["click"] == pytest.approx(_ndcg(other, search.score, point.weights, "click"))
        assert point.gains["like"][0] == pytest.approx(
            _ndcg(other, search.score, point.weights, "like") - _ndcg(other, search.score, search.weights[0], "like")
        )
    document = search_document(search, "validation", {"test": checked})
    assert set(document["points"]) == {"validation", "test"}
    json.dumps(document, allow_nan=False)


def test_a_sum_is_searched_as_well() -> None:
    raw = small_config()
    raw["combined_score"] = {"form": "weighted_sum", "terms": {"click": {"weight": 1.0}, "like": {"weight": 2.0}}}
    search = search_weights(_world(60), parse_config(raw), trials=20)
    assert "mean in the score" in format_search(search, "validation")
    assert list(search.signs) == ["click", "like"]


def test_one_term_leaves_no_plot(tmp_path) -> None:
    raw = small_config()
    raw["combined_score"] = {"terms": {"click": {"weight": 1.0}}}
    config = parse_config(raw)
    search = search_weights(_world(30), config, trials=20)
    assert len(search.weights) == 1  # its order is that of clicks, whatever the weight
    written = write_search(search, config, "validation", {}, tmp_path / "out")
    assert written == ["current.yaml", "score_weights.json", "weights.csv"]
    assert written == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_the_plot_has_a_panel_a_pair_and_turns_axes_where_less_is_better(config: Config) -> None:
    search = search_weights(_world(60), config, trials=30)
    points = {name: [point.ndcg[label] for label in search.labels] for name, point in search.points.items()}
    figure = weight_front(search.ndcg, search.front, search.labels, ["dismiss"], points, "NDCG@10")
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == 6
    (of_dismiss,) = (axes for axes in panels if axes.get_ylabel() == "dismiss (less is better)")
    assert of_dismiss.yaxis_inverted()
    assert not panels[0].yaxis_inverted()

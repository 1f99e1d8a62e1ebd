"""The combined score against a plain Python loop, hand-computed values and its algebraic properties."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmoe_ranker.combined_score import FORMS, CombinedScore, combined_score, ranking_key
from mmoe_ranker.errors import InputError

NAMES = ("click", "watch", "like", "dismiss")
PROBABILITIES = st.floats(0.001, 0.999)
PREDICTIONS = hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.just(4)), elements=PROBABILITIES)


def by_name(rows, names=NAMES):
    return dict(zip(names, np.asarray(rows).T, strict=True))


@dataclass(frozen=True)
class Term:
    weight: float
    offset: float = 0.0
    complement: bool = False


@st.composite
def scores(draw, form=None):
    complements = draw(st.tuples(*[st.booleans()] * 4))
    weights = tuple(draw(st.floats(0 if complement else -3, 3)) for complement in complements)
    offsets = draw(st.tuples(*[st.floats(0, 2)] * 4))
    return CombinedScore(NAMES, form or draw(st.sampled_from(FORMS)), weights, offsets, complements)


def naive_score(predictions, score):
    rows = []
    for row in predictions:
        total = 0.0 if score.form == "weighted_sum" else 1.0
        for p, w, offset, complement in zip(row, score.weights, score.offsets, score.complements, strict=True):
            q = (1 - p if complement else p) + offset
            if score.form == "weighted_sum":
                total += w * q
            else:
                total *= max(q, 1e-6) ** w
        rows.append(total)
    return np.array(rows)


@given(PREDICTIONS, scores())
def test_equals_a_plain_loop(predictions, score):
    np.testing.assert_allclose(
        score.score(by_name(predictions)), naive_score(predictions, score), rtol=1e-9, atol=1e-12
    )


@given(PREDICTIONS, scores(), st.integers(0, 3), st.floats(0.001, 0.999))
def test_moves_with_each_prediction_in_the_direction_of_its_weight(predictions, score, index, raised_to):
    assume((raised_to > predictions[:, index]).all())
    raised = predictions.copy()
    raised[:, index] = raised_to
    direction = np.sign(score.weights[index]) * (-1 if score.complements[index] else 1)
    before, after = score.score(by_name(predictions)), score.score(by_name(raised))
    assert (direction * (after - before) >= -1e-12 * np.abs(before)).all()


def test_rises_strictly_with_a_positive_and_falls_with_a_complement():
    score = CombinedScore(("click", "dismiss"), "weighted_product", (0.5, 2.0), (0.0, 0.0), (False, True))
    base, more_click, more_dismiss = score.score({"click": [0.2, 0.21, 0.2], "dismiss": [0.3, 0.3, 0.31]})
    assert more_dismiss < base < more_click


@given(PREDICTIONS, scores(), st.integers(0, 3), st.sampled_from([0.0, 0.7, -5.0, math.inf, math.nan]))
def test_zero_weight_is_no_influence(predictions, score, index, other):
    weights = np.array(score.weights)
    weights[index] = 0.0
    changed = predictions.copy()
    changed[:, index] = other
    changed, before = by_name(changed), by_name(predictions)
    np.testing.assert_array_equal(score.score(changed, weights), score.score(before, weights))
    assert (score.contributions(changed, weights)[:, index] == 0).all()


@given(PREDICTIONS, scores("weighted_product"), st.floats(0.1, 4))
def test_order_of_a_product_survives_scaling_all_weights(predictions, score, factor):
    predictions = by_name(predictions)
    scaled_weights = factor * np.array(score.weights)
    log_scores = score.contributions(predictions).sum(axis=1)
    difference = log_scores[:, None] - log_scores[None, :]
    scaled = score.score(predictions, scaled_weights)
    clear = np.abs(difference) > 1e-9  # nearer than that, rounding may swap them
    assert (np.sign(scaled[:, None] - scaled[None, :]) == np.sign(difference))[clear].all()
    np.testing.assert_allclose(scaled, score.score(predictions) ** factor, rtol=1e-8)


@given(PROBABILITIES, st.floats(0, 3))
def test_one_term_of_weight_one_is_prediction_plus_offset(probability, offset):
    for form in FORMS:
        score = CombinedScore(("click",), form, (1.0,), (offset,), (False,))
        assert score.score({"click": [probability]})[0] == pytest.approx(probability + offset, rel=1e-12)


def test_hand_computed():
    product = CombinedScore.from_terms(
        NAMES,
        "weighted_product",
        {"click": Term(1.0), "watch": Term(0.5, offset=1.0), "dismiss": Term(2.0, complement=True)},
    )
    assert product.weights == (1.0, 0.5, 0.0, 2.0)
    assert product.offsets == (0.0, 1.0, 0.0, 0.0)
    assert product.complements == (False, False, False, True)
    # 0.2 * sqrt(3 + 1) * 0.5 ** 2 = 0.1; like has no term
    assert product.score(by_name([[0.2, 3.0, 0.9, 0.5]]))[0] == pytest.approx(0.1)
    total = CombinedScore.from_terms(NAMES, "weighted_sum", {"click": Term(2.0), "dismiss": Term(1.0, 0.5, True)})
    # 2 * 0.2 + (1 - 0.5 + 0.5)
    assert total.score(by_name([[0.2, 3.0, 0.9, 0.5]]))[0] == pytest.approx(1.4)


def test_factors_are_floored():
    score = CombinedScore(("watch",), "weighted_product", (1.0,), (0.0,), (False,))
    assert score.score({"watch": [0.0, -3.0]}) == pytest.approx([1e-6, 1e-6])


def test_a_missing_number_with_weight_shows():
    score = CombinedScore(("click",), "weighted_product", (1.0,), (0.0,), (False,))
    assert np.isnan(score.score({"click": [math.nan]})[0])


@given(PREDICTIONS, scores())
def test_contributions_sum_to_the_log_score_or_the_score(predictions, score):
    total = score.contributions(by_name(predictions)).sum(axis=1)
    expected = naive_score(predictions, score)
    if score.form == "weighted_product":
        expected = np.log(expected)
    np.testing.assert_allclose(total, expected, rtol=1e-7, atol=1e-9)


def test_contributions_by_hand():
    score = CombinedScore(("click", "dismiss"), "weighted_product", (2.0, 1.0), (0.0, 0.0), (False, True))
    expected = [[2 * math.log(0.5), math.log(0.75)]]
    np.testing.assert_allclose(score.contributions({"click": [0.5], "dismiss": [0.25]}), expected)


def test_a_dict_of_predictions_is_the_matrix_by_name():
    score = CombinedScore(("click", "like"), "weighted_product", (1.0, 0.3), (0.0, 0.05), (False, False))
    outputs = {"like": [0.1, 0.2], "gate": [[1.0], [2.0]], "click": np.float32([0.5, 0.25])}
    np.testing.assert_array_equal(score.score(outputs), score.score({"click": [0.5, 0.25], "like": [0.1, 0.2]}))


def test_weights_of_one_call():
    score = CombinedScore(("click", "like"), "weighted_product", (1.0, 0.3), (0.0, 0.0), (False, False))
    predictions = {"click": [0.5], "like": [0.1]}
    assert score.score(predictions, [0.0, 1.0])[0] == pytest.approx(0.1)
    assert score.score(predictions, {"like": 1.0})[0] == pytest.approx(0.05)
    assert score.resolve_weights({"like": 1.0}).tolist() == [1.0, 1.0]
    assert score.resolve_weights(None).tolist() == [1.0, 0.3]
    assert score.weights == (1.0, 0.3)


def test_no_candidates_have_no_scores():
    score = CombinedScore(("click",), "weighted_product", (1.0,), (0.0,), (False,))
    assert score.score({"click": []}).shape == (0,)
    assert score.contributions({"click": []}).shape == (0, 1)


def test_is_a_value():
    first = CombinedScore(("click",), "weighted_sum", [1], np.array([0.5]), [False])
    assert first == CombinedScore(("click",), "weighted_sum", (1.0,), (0.5,), (False,))
    assert hash(first) == hash(CombinedScore(("click",), "weighted_sum", (1.0,), (0.5,), (False,)))


@pytest.mark.parametrize("form", FORMS)
def test_the_graph_runs_the_same_formula(form):
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(7)
    predictions = rng.uniform(0, 1, (50, 4)).astype(np.float32)
    predictions[0, 0] = 0.0
    predictions[:, 2] = np.inf  # a prediction without weight must not reach the graph's score either
    score = CombinedScore(NAMES, form, (1.0, 0.5, 0.0, 2.0), (0.0, 1.0, 0.05, 0.0), (False, False, False, True))

    @tf.function
    def graph(columns, weights):
        arguments = (columns, weights, score.offsets, score.complements, score.form, tf.math)
        return combined_score(*arguments), ranking_key(*arguments)

    for weights in (score.weights, (0.2, -0.4, 0.0, 1.0)):
        outputs, keys = graph([tf.constant(column) for column in predictions.T], tf.constant(weights, tf.float32))
        assert outputs.dtype == tf.float32
        expected = score.score(by_name(predictions), weights)
        np.testing.assert_allclose(outputs.numpy(), expected, rtol=2e-5)
        np.testing.assert_allclose(np.exp(keys) if form == "weighted_product" else keys, expected, rtol=2e-5)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(PREDICTIONS, scores(), st.data())
def test_the_graph_gives_what_numpy_gives_for_any_score_and_override(predictions, score, data):
    tf = pytest.importorskip("tensorflow")
    columns = [tf.constant(column, tf.float32) for column in predictions.T]
    override = [data.draw(st.floats(0 if complement else -3, 3, width=32)) for complement in score.complements]

    # The weights as an argument, as the signature `rank` has them: another request needs no other graph.
    @tf.function
    def graph(weights):
        return combined_score(columns, weights, score.offsets, score.complements, score.form, tf.math)

    for weights in (score.weights, override):
        found = graph(tf.constant(weights, tf.float32)).numpy()
        expected = score.score(by_name(predictions.astype(np.float32)), np.float32(weights))
        # float32: an exponent of size 80 is known to 1e-5.
        size = np.abs(score.contributions(by_name(predictions), weights)).sum(axis=1)
        np.testing.assert_array_less(np.abs(found - expected), 1e-5 * (1 + size) * (np.abs(expected) + size) + 1e-12)


def test_the_key_orders_where_the_product_has_vanished():
    tiny = [np.float32([1e-5, 2e-5])] * 3
    arguments = (tiny, np.float32([9.0] * 3), (0.0,) * 3, (False,) * 3, "weighted_product")
    assert (combined_score(*arguments) == 0).all()
    key = ranking_key(*arguments)
    assert key[1] > key[0]


VALID = {
    "objectives": ("click", "dismiss"),
    "form": "weighted_product",
    "weights": (1.0, 2.0),
    "offsets": (0.0, 0.0),
    "complements": (False, True),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": ()}, r"`objectives` must name at least one.*Received: \(\)\."),
        ({"form": "sum"}, r"`form` must be one of weighted_product, weighted_sum\. Received: 'sum'\."),
        ({"weights": (1.0,)}, r"`weights` must hold one finite number.*Received: an array of shape \(1,\)\."),
        ({"weights": (1.0, math.nan)}, r"`weights` must hold one finite number.*Received: nan for 'dismiss'\."),
        ({"weights": (math.inf, 1.0)}, r"`weights` must hold one finite number.*Received: inf for 'click'\."),
        ({"weights": (1.0, -0.5)}, r"`weights` must be at least 0 where `complement`.*Received: -0\.5 for 'dismiss'\."),
        ({"weights": ("a", 1.0)}, r"`weights` must be an array of numbers\. Received: \('a', 1\.0\)\."),
        ({"offsets": (0.0,) * 3}, r"`offsets` must hold one finite number.*Received: an array of shape \(3,\)\."),
        ({"offsets": (0.0, -math.inf)}, r"`offsets` must hold one finite number.*Received: -inf for 'dismiss'\."),
        ({"complements": (True,)}, r"`complements` must hold one boolean.*Received: \(True,\)\."),
        ({"complements": (0, 1)}, r"`complements` must hold one boolean.*Received: \(0, 1\)\."),
    ],
)
def test_refuses_a_wrong_score(change, message):
    CombinedScore(**VALID)
    with pytest.raises(InputError, match=f"^{message}$"):
        CombinedScore(**(VALID | change))


def test_refuses_a_term_that_names_nothing():
    with pytest.raises(InputError, match=r"`terms` may name only the objectives click, like\. Received: 'lik'\."):
        CombinedScore.from_terms(("click", "like"), "weighted_sum", {"lik": Term(1.0)})


ONE = {"click": [0.1], "dismiss": [0.2]}


@pytest.mark.parametrize(
    ("predictions", "weights", "message"),
    [
        ({"click": [0.1]}, None, r"`predictions` must hold every objective.*Received: no 'dismiss'\."),
        ({"click": [0.1], "dismiss": [0.1, 0.2]}, None, r"`predictions` must hold arrays of one shape.*Received: .*"),
        ({"click": 0.1, "dismiss": 0.1}, None, r"`predictions` must hold arrays of one shape.*Received: .*"),
        ({"click": ["x"], "dismiss": [0.1]}, None, r"`click` must be an array of numbers\. Received: \['x'\]\."),
        (ONE, [1.0], r"`weights` must hold one finite number.*Received: an array of shape \(1,\)\."),
        (ONE, [math.nan, 1.0], r"`weights` must hold one finite number.*Received: nan for 'click'\."),
        (ONE, [1.0, -1.0], r"`weights` must be at least 0.*Received: -1\.0 for 'dismiss'\."),
        (ONE, {"dismiss": -1.0}, r"`weights` must be at least 0.*Received: -1\.0 for 'dismiss'\."),
        (ONE, {"like": 1.0}, r"`weights` may name only the objectives.*Received: 'like'\."),
    ],
)
def test_refuses_wrong_calls(predictions, weights, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        CombinedScore(**VALID).score(predictions, weights)

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from mmoe_ranker.errors import InputError
from mmoe_ranker.position_bias import all_pairs, examination_of, interventions, natural_interventions
from tests.position_bias.worlds import simulated, true_curve


def _naive_sums(rows):
    """The module's C over all items, pairs with fewer than 2 items left out, with plain loops."""
    cells = defaultdict(lambda: [0, 0.0])
    for item, context, position, outcome in rows:
        cells[item, context, position][0] += 1
        cells[item, context, position][1] += outcome
    pairs = defaultdict(list)
    for (item, context, k), (n, c) in cells.items():
        for (other_item, other_context, other), (m, _) in cells.items():
            if (item, context) == (other_item, other_context) and k != other:
                pairs[k, other].append((item, c * m / (n + m)))
    kept = {pair: found for pair, found in pairs.items() if len(found) >= 2}
    items = {k: {item for (one, _), found in kept.items() if one == k for item, _ in found} for k, _ in kept}
    stands = {
        (item, context, one)
        for one, other in kept
        for item, context, k in cells
        for k2 in (other,)
        if k == one and (item, context, k2) in cells
    }
    outcomes = {k: sum(cells[cell][1] for cell in stands if cell[2] == k) for k in items}
    return {pair: sum(value for _, value in found) for pair, found in kept.items()}, items, outcomes


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(1, 5), st.sampled_from([0.0, 1.0, 0.3]))))
def test_comparisons_equal_their_naive_double(rows):
    columns = np.array(rows, dtype=float).reshape(-1, 4).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interventions, "MIN_SHARED_ITEMS", 2)
        found = natural_interventions(columns[0], columns[2].astype(int), columns[3], columns[1])
    sums, items, outcomes = _naive_sums(rows)
    total = found.sums.sum(axis=0)
    for i, k in enumerate(found.positions.tolist()):
        assert found.items[i] == len(items.get(k, ()))
        assert found.outcomes[i] == pytest.approx(outcomes.get(k, 0.0))
        for j, other in enumerate(found.positions.tolist()):
            assert total[i, j] == pytest.approx(sums.get((k, other), 0.0))
    assert found.num_items == len(set().union(*items.values()))


def test_all_pairs_is_the_maximum_of_its_likelihood():
    rng = np.random.default_rng(0)
    sums = rng.uniform(0.5, 9.0, (5, 5)) * (1 - np.eye(5))
    sums[0, 3] = sums[3, 0] = 0.0  # not every pair is compared

    def loss(logs):
        both = logs[:, None] - np.logaddexp(logs[:, None], logs[None, :])
        return -(sums * both).sum()

    best = optimize.minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(all_pairs(sums), best - best[0], atol=1e-4)


def test_examination_is_exact_where_every_item_says_the_same():
    curve = np.array([1.0, 0.5, 0.25, 0.2])
    # 40 items at each position 100 times, with the clicks that the curve and a relevance of their own ask for.
    relevance = np.repeat(np.linspace(0.1, 0.9, 40), 4)
    items, positions = np.repeat(np.arange(40), 4), np.tile([1, 2, 3, 4], 40)
    found = natural_interventions(items, positions, relevance * curve[positions - 1])
    np.testing.assert_allclose(examination_of(found).values, curve, rtol=1e-4)


@pytest.mark.parametrize("device", [0, 1, 2])
def test_truth_is_found_where_the_ranker_does_not_know_its_users(device: int):
    log = simulated(alignment=0.0)
    log = log.rows(log.device == device)
    found = examination_of(natural_interventions(log.items, log.positions, log.clicks))
    truth = true_curve(log, device)
    assert found.num_items > 1500
    covered = (found.low <= truth) & (truth <= found.high)
    assert covered.mean() >= 0.8
    assert np.all(found.low[1:] < found.high[1:])
    assert np.abs(np.log(found.values / truth)).mean() < 0.15


def test_a_ranker_that_knows_its_users_makes_first_positions_look_better():
    log = simulated()
    log = log.rows(log.device == 0)
    found = examination_of(natural_interventions(log.items, log.positions, log.clicks))
    assert np.all(found.values[3:] < 0.95 * true_curve(log, 0)[3:])
    # What moves with the position is relevance, and predictions of it say so.
    relevance = examination_of(natural_interventions(log.items, log.positions, log.relevance))
    assert np.all(relevance.high[3:] < 0.95)


def test_an_outcome_without_effect_of_position_gives_1_everywhere_with_the_same_draws():
    log = simulated(alignment=0.0)
    flat = examination_of(natural_interventions(log.items, log.positions, np.full(len(log.items), 0.3)))
    np.testing.assert_allclose(flat.values, 1.0, rtol=1e-4)
    np.testing.assert_allclose(flat.replicates, 1.0, rtol=1e-3)
    clicks = examination_of(natural_interventions(log.items, log.positions, log.clicks))
    tenth = examination_of(natural_interventions(log.items, log.positions, log.clicks / 10))
    np.testing.assert_allclose(clicks.replicates, tenth.replicates, rtol=1e-4)


def test_positions_without_items_in_common_have_no_value():
    # Items 0 to 19 stand at 1 and 2, 20 to 39 at 5 and 6, and only 9 items at both 2 and 5.
    items = np.concatenate([np.arange(20), np.arange(20), np.arange(20, 45), np.arange(20, 45), np.arange(60, 69)])
    items = np.concatenate([items, np.arange(60, 69)])
    positions = np.repeat([1, 2, 5, 6, 2, 5], [20, 20, 25, 25, 9, 9])
    found = examination_of(natural_interventions(items, positions, np.ones(len(items))))
    np.testing.assert_allclose(found.values, [math.nan, math.nan, 1.0, 1.0])
    assert found.items.tolist() == [20, 20, 25, 25]
    assert found.num_items == 45
    np.testing.assert_allclose(found.at([6, 1, 4, 5, 0]), [1.0, math.nan, math.nan, 1.0, math.nan])


def test_a_first_position_without_a_click_has_no_curve_and_one_that_may_have_none_has_no_upper_end():
    items, positions = np.repeat(np.arange(30), 2), np.tile([1, 2], 30)
    seldom = np.where((positions == 2) | (items == 0), 1.0, 0.0)
    found = examination_of(natural_interventions(items, positions, seldom))
    assert found.values.tolist() == [1.0, pytest.approx(30, rel=1e-3)]
    assert found.high[1] == math.inf
    assert 5 < found.low[1] < 30
    never = examination_of(natural_interventions(items, positions, np.where(positions == 2, 1.0, 0.0)))
    assert np.isnan(never.values).all()
    last = examination_of(natural_interventions(items, positions, np.where(positions == 1, 1.0, 0.0)))
    assert last.values.tolist() == [1.0, 0.0]


def test_a_curve_that_begins_further_down_is_held_against_one_that_begins_above():
    examined = np.array([np.nan, 1.0, 0.5, 0.25, 0.2])  # by position, 1 the first
    items, positions = (column.ravel() for column in np.meshgrid(np.arange(40), np.arange(1, 5), indexing="ij"))
    outcomes = (0.1 + items / 100) * examined[positions]
    below = positions > 1
    whole = examination_of(natural_interventions(items, positions, outcomes))
    part = examination_of(natural_interventions(items[below], positions[below], outcomes[below]))
    asked = [4, 1, 2, 3, 7]
    np.testing.assert_allclose(part.at(asked), [0.4, np.nan, 1.0, 0.5, np.nan], rtol=1e-4)
    np.testing.assert_allclose(part.on_scale_of(whole, asked), [0.2, np.nan, 0.5, 0.25, np.nan], rtol=1e-4)
    np.testing.assert_array_equal(whole.on_scale_of(whole, asked), whole.at(asked))
    assert np.isnan(whole.on_scale_of(part, asked)).all()  # which says nothing of position 1


def test_unknown_positions_and_missing_outcomes_do_not_count():
    items, positions = np.tile(np.arange(12), 3), np.repeat([1, 2, -1], 12)
    outcomes = np.where(np.arange(36) == 3, np.nan, 1.0)
    found = examination_of(natural_interventions(items, positions, outcomes))
    assert found.positions.tolist() == [1, 2]
    assert found.num_items == 11
    nothing = examination_of(natural_interventions(items[:0], positions[:0], outcomes[:0]))
    assert nothing.num_items == len(nothing.values) == 0


def test_one_item_gives_no_interval():
    items, contexts = np.zeros(40, int), np.repeat(np.arange(20), 2)
    found = examination_of(natural_interventions(items, np.tile([1, 2], 20), np.tile([1.0, 0.5], 20), contexts))
    assert found.values[1] == pytest.approx(0.5, rel=1e-5)
    assert np.isnan(found.low).all()


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(
        InputError, match=r"^`positions` must have the shape of `outcomes`, \[1\]. Received: shape \[2\].$"
    ):
        natural_interventions([1], [1, 2], [0.0])
    with pytest.raises(InputError, match=r"^`outcomes` must be at least 0 and finite. Received: -1.$"):
        natural_interventions([1], [1], [-1.0])

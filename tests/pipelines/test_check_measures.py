"""What `check` counts: exact where small, a fair sample or a coarser grid beyond, and the same however it is merged."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.position_bias import overlap as overlaps
from mmoe_ranker.position_bias.overlap import PositionOverlap, identifiability
from pipelines.checking import tallies
from pipelines.checking.tallies import Tally, among, numbers_of, ordered_bits
from tests.pipelines.check_logs import DAYS, NUM_REQUESTS, POSITIONS, Log

VALUES = st.lists(st.one_of(st.none(), st.sampled_from([f"v{value}" for value in range(40)])), max_size=120)
FLOATS = st.lists(st.floats(width=32, allow_infinity=False), max_size=120)
SPLITTERS = st.randoms(use_true_random=False)


def _in_pieces(random, tallies_of, rows: int, size: int) -> Tally:
    """Cuts the rows into pieces and merges these in a random order, some of them first with one another."""
    order = list(range(rows))
    random.shuffle(order)
    cut = sorted(random.randint(0, rows) for _ in range(size))
    tallies = [tallies_of(order[low:high]) for low, high in zip([0, *cut], [*cut, rows], strict=True)]
    while len(tallies) > 1:
        one, other = tallies.pop(random.randrange(len(tallies))), tallies.pop(random.randrange(len(tallies)))
        tallies.append(Tally.merge([one, other]))
    return tallies[0]


def _same(one: Tally, other: Tally) -> bool:
    names = [] if one.names is None or other.names is None else [(one.names, other.names)]
    pairs = [(one.keys, other.keys), (one.counts, other.counts), (one.missing, other.missing), *names]
    return one.level == other.level and all(np.array_equal(a, b) for a, b in pairs)


@settings(deadline=None, max_examples=60)
@given(VALUES, SPLITTERS, st.sampled_from([8, 1000]))
def test_categories_are_counted_the_same_however_merged(values, random, limit):
    weights = np.stack([np.ones(len(values)), np.arange(len(values)) % 3], axis=1).astype(np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tallies, "MAX_CATEGORIES", limit)

        def tally(rows):
            return Tally.of_categories(
                pa.array([values[row] for row in rows], pa.string()), weights[rows].reshape(-1, 2)
            )

        whole = tally(range(len(values)))
        assert _same(whole, _in_pieces(random, tally, len(values), 4))
    assert len(whole.keys) <= limit
    expected: dict[str | None, np.ndarray] = defaultdict(lambda: np.zeros(2, np.int64))
    for value, weight in zip(values, weights, strict=True):
        expected[value] += weight
    assert whole.missing.tolist() == expected.pop(None, np.zeros(2)).tolist()
    found = dict(zip(whole.names.tolist(), whole.counts.tolist(), strict=True))
    if limit == 1000:
        assert (whole.level, whole.distinct, whole.relative_error) == (0, len(expected), 0.0)
        assert set(found) == set(expected)
    assert found == {value: expected[value].tolist() for value in found}


@settings(deadline=None, max_examples=60)
@given(FLOATS, SPLITTERS, st.sampled_from([8, 1000]))
def test_numbers_are_counted_the_same_however_merged(values, random, limit):
    numbers, weights = np.array(values, np.float64), np.ones((len(values), 1), np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tallies, "MAX_NUMBERS", limit)

        def tally(rows):
            rows = np.array(rows, np.int64)
            return Tally.of_numbers(numbers[rows], weights[rows])

        whole = tally(range(len(values)))
        assert _same(whole, _in_pieces(random, tally, len(values), 4))
    there = [value for value in values if not np.isnan(value)]
    assert whole.missing.tolist() == [len(values) - len(there)]
    assert whole.counts.sum() == len(there)
    assert (np.diff(whole.numbers) > 0).all()
    if limit == 1000:
        assert dict(zip(whole.numbers.tolist(), whole.counts[:, 0].tolist(), strict=True)) == Counter(there)
    else:
        # Each number is counted with the greatest one of the grid that is not above it.
        lower = Counter(np.searchsorted(whole.numbers, there, side="right").tolist())
        assert lower == Counter({place + 1: int(count) for place, (count,) in enumerate(whole.counts) if count})


def test_number_of_values_is_estimated_within_its_error():
    values, ones = [f"u{value}" for value in range(200_000)], np.ones((200_000, 1), np.int64)
    tally = Tally.of_categories(pa.array(values), ones)
    assert 0 < tally.relative_error < 0.02
    assert abs(tally.distinct - 200_000) < tally.relative_error * 200_000
    assert tallies.MAX_CATEGORIES / 2 < len(tally.keys) <= tallies.MAX_CATEGORIES


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2))
def test_bits_stand_in_the_order_of_their_numbers(values):
    keys = ordered_bits(np.array(values))
    assert numbers_of(keys).tolist() == values
    assert np.array_equal(keys[:-1] < keys[1:], np.array(values[:-1]) < np.array(values[1:]))


@given(st.lists(st.integers(0, 20)), st.lists(st.integers(0, 20)))
def test_among_is_membership(values, others):
    assert among(np.array(values, np.int64), np.array(others, np.int64)).tolist() == [one in others for one in values]


CELLS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1), st.integers(1, 4), st.booleans()), max_size=150)


@settings(deadline=None, max_examples=60)
@given(CELLS, SPLITTERS)
def test_overlap_equals_its_naive_double(cells, random):
    def overlap(rows):
        columns = [np.array([cells[row][place] for row in rows], np.int64) for place in range(4)]
        return PositionOverlap.of(columns[0].astype(np.uint64), columns[1].astype(np.uint64), columns[2], columns[3])

    cut = random.randint(0, len(cells))
    order = random.sample(range(len(cells)), len(cells))
    found = identifiability(PositionOverlap.merge([overlap(order[:cut]), overlap(order[cut:])]))
    assert found == identifiability(overlap(range(len(cells))))
    assert found["impressions"] == len(cells)
    if not cells:
        return
    of_item, of_unit = defaultdict(set), defaultdict(set)
    for item, group, position, _ in cells:
        of_item[item].add(position)
        of_unit[item, group].add(position)
    assert found["items"] == len(of_item)
    assert found["at_several_positions"] == sum(len(of_item[item]) > 1 for item, *_ in cells) / len(cells)
    within = sum(len(of_unit[item, group]) > 1 for item, group, *_ in cells) / len(cells)
    assert found["at_several_positions_within_group"] == within


def test_too_many_cells_leave_a_sample_of_whole_items(monkeypatch):
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**64, 500, dtype=np.uint64)
    items, positions = rng.integers(0, 500, 20_000), rng.integers(1, 6, 20_000)
    clicked = rng.random(20_000) < 0.2
    groups = np.zeros(20_000, np.uint64)
    monkeypatch.setattr(overlaps, "MAX_CELLS", 1000)
    whole = PositionOverlap.of(hashes[items], groups, positions, clicked)
    halves = [
        PositionOverlap.of(hashes[items[half]], groups[half], positions[half], clicked[half])
        for half in (slice(0, 7000), slice(7000, None))
    ]
    merged = PositionOverlap.merge(halves[::-1])
    for name in ("level", "items", "groups", "positions", "impressions", "clicks"):
        assert np.array_equal(getattr(whole, name), getattr(merged, name))
    assert whole.level == 2  # 2,500 cells of five each
    kept = set(whole.items.tolist())
    stays = [hashes[item] in kept for item in items]
    assert whole.impressions.sum() == sum(stays)
    assert whole.clicks.sum() == clicked[stays].sum()


def test_positions_hang_together_by_shared_items(monkeypatch):
    monkeypatch.setattr(overlaps, "MIN_SHARED_ITEMS", 2)
    # Items 1, 2 tie 1 to 2; 3, 4 tie 2 to 4; only item 5 ties 4 to 5; nothing ties 3.
    cells = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (3, 4), (4, 2), (4, 4), (5, 4), (5, 5), (6, 3), (7, 3)]
    items, positions = (np.array(column) for column in zip(*cells, strict=True))
    overlap = PositionOverlap.of(items.astype(np.uint64), np.zeros(12, np.uint64), positions, np.zeros(12, bool))
    assert identifiability(overlap)["connected"] == 9 / 12


def test_days_are_exact_where_times_are_on_a_grid(monkeypatch):
    monkeypatch.setattr(tallies, "MAX_NUMBERS", 8)
    log = Log()
    log.config["split"] = {"validation": 0.0, "test": 0.0}
    found = log.check().figures["time"]
    assert found["resolution_seconds"] > 3600
    per_day = NUM_REQUESTS // DAYS * POSITIONS
    assert [(row["day"], row["impressions"]) for row in found["days"]] == [
        (f"2022-0{month}-{day}", per_day) for month, day in ((4, 27), (4, 28), (4, 29), (4, 30), (5, "01"))
    ]

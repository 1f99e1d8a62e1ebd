"""The vectorised checks against the checks of one value: whatever whole columns say is right, single values confirm."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.config_loading import parse_config
from pipelines.canonical_columns import check_feature, lists_of, repeats, timestamps
from pipelines.record_checks import BadRecord, feature_value, timestamp_micros
from tests.configs import small_config

RAW = small_config()
RAW["features"] += [
    {"name": "slot", "side": "context", "kind": "categorical", "size": 9},
    {"name": "slots", "side": "context", "kind": "sequence", "embedding": "slot", "max_length": 3},
    {"name": "price", "side": "candidate", "kind": "numeric"},
]
CONFIG = parse_config(RAW)
NAMES = [feature.name for feature in CONFIG.features]

INTEGERS = st.integers(-(2**62), 2**62) | st.integers(-1, 30)
FLOATS = st.floats() | st.integers(-2, 30).map(float) | st.floats(-2, 30)
STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
SCALARS = [(INTEGERS, pa.int64()), (FLOATS, pa.float64()), (STRINGS, pa.string()), (st.booleans(), pa.bool_())]
LISTS = [(st.lists(st.none() | values, max_size=8), pa.list_(kind)) for values, kind in SCALARS]
COLUMNS = st.sampled_from([*SCALARS, *LISTS]).flatmap(
    lambda one: st.lists(st.none() | one[0], max_size=12).map(lambda values: pa.array(values, one[1]))
)


def by_value(name: str, value: Any) -> tuple[bool, Any]:
    try:
        return True, feature_value(CONFIG, CONFIG.feature(name), value)
    except BadRecord:
        return False, None


@pytest.mark.parametrize("name", NAMES)
@given(COLUMNS)
@settings(max_examples=120, deadline=None)
def test_columns_agree_with_single_values(name: str, column: pa.Array):
    canonical, right = check_feature(CONFIG, CONFIG.feature(name), column)
    assert len(canonical) == len(right) == len(column)
    for value, mine, certain in zip(column.to_pylist(), canonical.to_pylist(), right, strict=True):
        taken, expected = by_value(name, value)
        # Nothing that single values refuse is taken; what is not certain goes to them.
        assert certain == taken
        if certain:
            assert mine == expected


@given(st.lists(st.none() | FLOATS | st.floats(9e8, 4.2e9), max_size=12))
@settings(deadline=None)
def test_timestamps_agree_with_single_values(values):
    micros, right = timestamps(pa.array(values, pa.float64()))
    for value, mine, certain in zip(values, micros.to_pylist(), right, strict=True):
        try:
            assert (mine, certain) == (timestamp_micros(value), True)
        except BadRecord:
            assert not certain


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.timestamp("us", "UTC"), [1_651_017_600_500_001, 946_684_799_999_999, 4_102_444_800_000_000, None]),
        (pa.timestamp("ms", "+02:00"), [1_651_017_600_500, 0, None]),
        (pa.timestamp("us"), [1_651_017_600_500_001, None]),
        (pa.decimal128(38, 9), [decimal.Decimal("1651017600.5000015"), decimal.Decimal(5), None]),
        (pa.date32(), [19_000, None]),
    ],
)
def test_times_of_tables_agree_with_single_values(kind: pa.DataType, values: list[Any]):
    column = pa.array(values, kind)
    micros, right = timestamps(column)
    for value, mine, certain in zip(column.to_pylist(), micros.to_pylist(), right, strict=True):
        try:
            assert (mine, certain) == (timestamp_micros(value), True)
        except BadRecord:
            assert not certain
    # A time without its zone, or a day, could be of anywhere.
    tells = pa.types.is_decimal(kind) or (pa.types.is_timestamp(kind) and kind.tz is not None)
    assert right.tolist() == [tells] + [False] * (len(values) - 1)


def test_other_column_types_of_parquet():
    feature = CONFIG.feature("device")
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())):
        column = pa.array(["tv", None, "tv"]).cast(kind)
        canonical, right = check_feature(CONFIG, feature, column)
        assert canonical.to_pylist() == ["tv", None, "tv"]
        assert right.all()
    canonical, _ = check_feature(CONFIG, feature, pa.array([2**64 - 1, 0], pa.uint64()))
    assert canonical.to_pylist() == ["18446744073709551615", "0"]
    vector = pa.array([[0.5] * 6, None], pa.list_(pa.float16(), 6)) if hasattr(pa, "float16") else None
    canonical, right = check_feature(CONFIG, CONFIG.feature("content"), vector)
    assert canonical.to_pylist() == [[0.5] * 6, None]
    assert right.all()


def test_a_sequence_keeps_the_most_recent():
    canonical, right = check_feature(
        CONFIG, CONFIG.feature("watch_history"), pa.array([list("abcdefgh"), [], None, list("xy")])
    )
    assert canonical.to_pylist() == [list("defgh"), [], None, list("xy")]
    np.testing.assert_array_equal(right, True)


REPEATING = st.sampled_from(
    [
        (st.none() | st.sampled_from("ab"), pa.string()),
        (st.none() | st.sampled_from([0.5, 1.5]), pa.float32()),
        (st.none() | st.lists(st.sampled_from("ab"), max_size=3), pa.list_(pa.string())),
        (st.none() | st.lists(st.sampled_from([1.0, 2.0]), max_size=2), pa.list_(pa.float32())),
    ]
).flatmap(lambda one: st.lists(one[0], max_size=15).map(lambda values: pa.array(values, one[1])))


@given(REPEATING)
@settings(max_examples=300, deadline=None)
def test_repeats_compares_each_row_with_the_one_before(column: pa.Array):
    values = column.to_pylist()
    expected = [row > 0 and values[row] == values[row - 1] for row in range(len(values))]
    assert repeats(column).tolist() == expected
    if column.type == pa.string():
        # As Parquet gives them: dictionaries, also inside of lists.
        assert repeats(column.dictionary_encode()).tolist() == expected
    if column.type == pa.list_(pa.string()):
        flat = column.flatten().dictionary_encode()
        assert repeats(lists_of(flat, column.value_lengths().fill_null(0), column.is_valid())).tolist() == expected


def test_what_cannot_be_compared_is_not_said_to_repeat():
    structs = pa.array([{"a": 1}, {"a": 1}])
    for column in (structs, pa.array([[{"a": 1}]] * 2), pa.array([[[1]]] * 2), pa.array([1, 1], pa.timestamp("s"))):
        assert repeats(column).tolist() == [False, False]

"""The same request as rows, as numpy columns and as a DataFrame: the same bytes are sent, or the same sentence said."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.errors import InputError
from serving.protos import RankRequest
from serving.request_columns import request_columns
from serving.request_encoding import encode_request
from serving.signature import RankSignature, ServedFeature

SIGNATURE = RankSignature(
    version=1,
    context=(
        ServedFeature("device", "category"),
        ServedFeature("hour", "number"),
        ServedFeature("history", "sequence"),
    ),
    candidates=(
        ServedFeature("video", "category"),
        ServedFeature("duration", "number"),
        ServedFeature("level", "integer category"),
        ServedFeature("tags", "sequence", 3),
        ServedFeature("steps", "integer sequence"),
        ServedFeature("content", "vector", 2),
    ),
    objectives=(),
)
CONTEXT = {"device": "tv", "hour": 3.0, "history": ["v1", "v2"]}
ROW = {"video": "v1", "duration": 61.5, "level": 3, "tags": ["a"], "steps": [1, 2], "content": [0.5, 1.0]}


def sent(candidates, context=CONTEXT, signature=SIGNATURE, item_key=None) -> dict[str, bytes]:
    columns = request_columns({"context": context, "candidates": candidates}, signature, item_key)
    message = RankRequest()
    encode_request(columns, signature).write(message.inputs, 0, columns.size)
    return {name: tensor.SerializeToString(deterministic=True) for name, tensor in message.inputs.items()}


def as_objects(rows) -> dict[str, np.ndarray]:
    """Columns of Python objects, as numpy holds what it has no type for."""
    columns = {}
    for name in rows[0]:
        columns[name] = np.empty(len(rows), object)
        columns[name][:] = [row[name] for row in rows]
    return columns


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
FLOAT = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "video": st.one_of(st.none(), TEXT, st.integers(-9, 2**62), st.booleans()),
            "duration": st.one_of(st.none(), FLOAT, st.integers(-(2**40), 2**40)),
            "level": st.one_of(st.none(), st.integers(0, 2**63 - 1)),
            "tags": st.one_of(st.none(), st.lists(st.one_of(TEXT, st.integers(0, 9), st.none()), max_size=5)),
            "steps": st.one_of(st.none(), st.lists(st.integers(0, 2**40), max_size=4)),
            "content": st.one_of(st.none(), st.lists(FLOAT, min_size=2, max_size=2)),
        }
    ),
    min_size=1,
    max_size=6,
)


@given(ROWS, st.data())
@settings(deadline=None, max_examples=50)
def test_forms_of_one_request_send_the_same_bytes(rows, data):
    expected = sent(rows)
    assert sent(as_objects(rows)) == expected
    assert sent({name: [row[name] for row in rows] for name in rows[0]}) == expected
    frame = pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in as_objects(rows).items()})
    assert sent(frame) == expected
    missing = data.draw(st.sampled_from([pd.NA, math.nan, pd.NaT, np.float32("nan")]))
    marked = [{name: missing if value is None else value for name, value in row.items()} for row in rows]
    assert sent(marked) == expected
    assert sent(as_objects(marked)) == expected


TAG = st.sampled_from(["a", "", "äö"])
TYPED = st.integers(1, 6).flatmap(
    lambda size: st.fixed_dictionaries(
        {
            "video": st.lists(TEXT.map(lambda text: text.replace("\0", "")), min_size=size, max_size=size),
            "duration": st.lists(st.one_of(st.just(math.nan), FLOAT), min_size=size, max_size=size),
            "level": st.lists(st.integers(0, 2**40), min_size=size, max_size=size),
            "tags": st.lists(
                st.lists(st.sampled_from(["a", "", "äö"]), min_size=4, max_size=4), min_size=size, max_size=size
            ),
            "steps": st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=2), min_size=size, max_size=size),
            "content": st.lists(st.lists(FLOAT, min_size=2, max_size=2), min_size=size, max_size=size),
        }
    )
)


@given(
    TYPED,
    st.sampled_from([np.float32, np.float64, np.dtype(">f4")]),
    st.sampled_from([np.int64, np.uint64, np.dtype(">i8")]),
)
@settings(deadline=None, max_examples=40)
def test_columns_of_numpys_and_pandas_own_types(columns, floats, integers):
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    expected = sent(rows)
    arrays = {
        "video": np.array(columns["video"]),
        "duration": np.array(columns["duration"], floats),
        "level": np.array(columns["level"], integers),
        "tags": np.array(columns["tags"]),
        "steps": np.array(columns["steps"], integers),
        "content": np.array(columns["content"], floats),
    }
    assert arrays["tags"].shape == (len(rows), 4)
    assert sent(arrays) == expected
    strided = {name: np.repeat(values, 2, axis=0)[::2] for name, values in arrays.items()}
    assert sent(strided) == expected
    frame = pd.DataFrame(
        {
            "video": pd.Series(columns["video"], dtype="string"),
            "duration": pd.Series(columns["duration"], dtype="Float64"),
            "level": pd.Series(columns["level"], dtype="Int64"),
            "tags": list(arrays["tags"]),
            "steps": list(arrays["steps"]),
            "content": list(arrays["content"]),
        }
    )
    assert sent(frame) == expected
    assert sent(frame.assign(video=frame["video"].astype("category")).iloc[:, ::-1]) == expected
    assert sent({name: frame[name] for name in frame}) == expected


def test_types_of_pandas_that_know_missing_values():
    frame = pd.DataFrame(
        {
            "video": pd.Series(["v1", None, "v3"], dtype="category"),
            "duration": pd.Series([1, None, 3], dtype="Int64"),
            "level": pd.Series([None, 2, 3], dtype="UInt8"),
            "tags": [["a"], None, math.nan],
            "steps": [pd.NA, [1], [2]],
            "content": [None, [0.0, 1.0], np.float32([1.0, 2.0])],
        }
    )
    frame.index = [7, 7, 9]
    rows = [
        {"video": "v1", "duration": 1, "level": None, "tags": ["a"], "steps": None, "content": None},
        {"video": None, "duration": None, "level": 2, "tags": None, "steps": [1], "content": [0.0, 1.0]},
        {"video": "v3", "duration": 3, "level": 3, "tags": None, "steps": [2], "content": [1.0, 2.0]},
    ]
    assert sent(frame) == sent(rows)


def test_arrays_of_the_right_type_are_not_copied():
    columns = {name: np.array([ROW[name]] * 5) for name in ROW} | {"duration": np.arange(5, dtype=np.float32)}
    columns |= {"content": np.ones((5, 2), np.float32), "steps": np.ones((5, 3), np.int64)}
    found = request_columns({"context": CONTEXT, "candidates": columns}, SIGNATURE)
    encoded = encode_request(found, SIGNATURE).candidates
    for name in ("duration", "level", "steps", "content"):
        assert np.shares_memory(encoded[name].values, columns[name])


@pytest.mark.parametrize(
    "context",
    [
        {"device": np.str_("tv"), "hour": np.float32(3.0), "history": ("v1", "v2")},
        {"device": np.array("tv"), "hour": np.array(3), "history": np.array(["v1", "v2"])},
        {"device": np.array(["tv"]), "hour": np.array([3.0]), "history": np.array([["v1", "v2"]])},
        {"device": np.array(["tv"], object), "hour": np.array([3], object), "history": np.array(["v1", "v2"], object)},
    ],
)
def test_context_of_arrays(context):
    assert sent([ROW], context) == sent([ROW])


def test_missing_context():
    missing = {"device": pd.NA, "hour": math.nan, "history": pd.NA}
    assert sent([ROW], missing) == sent([ROW], dict.fromkeys(CONTEXT))


def test_item_key_and_its_column():
    def found(candidates, item_key=None):
        columns = request_columns({"context": CONTEXT, "candidates": candidates}, SIGNATURE, item_key)
        return columns.item_key, list(columns.candidates[columns.item_key]), columns.size

    rows = [ROW, ROW | {"video": 8}]
    for candidates in (rows, as_objects(rows), pd.DataFrame(rows)):
        assert found(candidates) == ("video", ["v1", 8], 2)
    rows = [{"item": number} | ROW for number in (5, 5)]
    for candidates in (rows, as_objects(rows), pd.DataFrame(rows)):
        assert found(candidates, "item") == ("item", [5, 5], 2)
        with pytest.raises(InputError, match="has the unknown feature `item`"):
            found(candidates)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": 1.5}, r"`video` of candidate 1 must be a string of valid Unicode, .* Received: 1\.5\.$"),
        ({"duration": "61"}, r"`duration` of candidate 1 must be a number or null\. Received: '61'\.$"),
        ({"duration": True}, r"`duration` of candidate 1 must be a number or null\. Received: True\.$"),
        ({"duration": math.inf}, r"`duration` of candidate 1 must be a number that float32 .* Received: inf\.$"),
        ({"level": -1}, r"`level` of candidate 1 must be an integer from 0 to 2\^63 - 1, or null\. Received: -1\.$"),
        ({"level": "3"}, r"`level` of candidate 1 must be an integer .* Received: '3'\.$"),
        ({"tags": "a"}, r"`tags` of candidate 1 must be a list of categories, .* Received: 'a'\.$"),
        ({"tags": ["a", 2.5]}, r"`tags` of candidate 1, at place 1, must be a string .* Received: 2\.5\.$"),
        ({"steps": [3, -2]}, r"`steps` of candidate 1, at place 1, must be an integer .* Received: -2\.$"),
        ({"content": [1.0]}, r"`content` of candidate 1 must be a list of 2 numbers, or null\. Received: 1 values\.$"),
        ({"content": [1.0, math.nan]}, "`content` of candidate 1 must be a list of 2 numbers none of which is missing"),
    ],
)
@pytest.mark.parametrize("form", [list, as_objects, pd.DataFrame])
def test_values_that_do_not_fit(form, change, message):
    with pytest.raises(InputError, match=message):
        sent(form([ROW, ROW | change]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": np.array([1.5, 2.5])}, r"`video` of candidate 0 must be a string .* Received: 1\.5\.$"),
        ({"video": np.array(["2020", "2021"], "M8[ns]")}, "`video` of candidate 0 must be a string"),
        ({"video": np.array([b"v1", b"v2"])}, r"`video` of candidate 0 must be a string .* Received: b'v1'\.$"),
        ({"video": np.array([["v1"], ["v2"]])}, "`video` of candidate 0 must be one value. Received: array"),
        ({"duration": np.array(["1", "2"])}, r"`duration` of candidate 0 must be a number or null\. Received: '1'\.$"),
        ({"duration": np.array([True, False])}, r"`duration` of candidate 0 must be a number .* Received: True\.$"),
        ({"duration": np.array([1.0, 1e300])}, r"`duration` of candidate 1 must be a number that .*: 1e\+300\.$"),
        ({"level": np.array([1, -7])}, r"`level` of candidate 1 must be an integer .* Received: -7\.$"),
        ({"level": np.array([1, 2**63], np.uint64)}, r"`level` of candidate 1 must be .*: 9223372036854775808\.$"),
        ({"level": np.array([3.0, 4.0])}, r"`level` of candidate 0 must be an integer .* Received: 3\.0\.$"),
        ({"tags": np.array(["a", "b"])}, r"`tags` of candidate 0 must be a list of categories, .* Received: 'a'\.$"),
        ({"steps": np.array([[1, 2], [3, -4]])}, r"`steps` of candidate 1, at place 1, must be .* Received: -4\.$"),
        ({"content": np.ones((2, 3))}, r"`content` of candidate 0 must be a list of 2 numbers, .*: 3 values\.$"),
        ({"content": np.array([[0.0, 1.0], [np.nan, 1.0]])}, "`content` of candidate 1 must be .* none of which"),
        (
            {"tags": [["a"]]},
            r"The column `tags` of the .* must have as many rows as `video`, 2\. Received: 1\.$",
        ),
        ({"tags": "ab"}, r"The column `tags` of the candidates must be a list, a numpy array or .* Received: str\.$"),
        ({"level": np.array(3)}, r"The column `level` of the candidates must be a list, .* Received: ndarray\.$"),
        (
            {"colour": ["red", "blue"]},
            "The table of candidates has the unknown feature `colour`: .*, null where a",
        ),
    ],
)
def test_columns_that_do_not_fit(change, message):
    with pytest.raises(InputError, match=message):
        sent(as_objects([ROW, ROW]) | change)


@pytest.mark.parametrize("form", [as_objects, pd.DataFrame])
def test_feature_that_no_column_holds(form):
    rows = [{name: value for name, value in ROW.items() if name != "level"}] * 2
    with pytest.raises(InputError, match=r"The table of candidates lacks the feature `level`: .*Received: video, dura"):
        sent(form(rows))


def test_tables_without_candidates():
    with pytest.raises(InputError, match=r"must be a table of at least one candidate\. Received: columns of 0 rows"):
        sent(pd.DataFrame([ROW]).iloc[:0])
    with pytest.raises(InputError, match=r"must be a list of at least one candidate\. Received: \{\}"):
        sent({})


def test_column_of_a_frame_that_is_there_twice():
    frame = pd.DataFrame([ROW])
    with pytest.raises(InputError, match=r"A column of the candidates must be there once\. Received: \['video', .*"):
        sent(pd.concat([frame, frame[["video"]]], axis=1))


def test_defaultdict_is_not_given_what_it_lacks():
    full = defaultdict(lambda: None, ROW)
    assert sent([full]) == sent([ROW])
    lacking = defaultdict(lambda: None, {name: value for name, value in ROW.items() if name != "level"})
    before = dict(lacking)
    with pytest.raises(InputError, match="Candidate 1 lacks the feature `level`"):
        sent([full, lacking])
    assert lacking == before


def test_defaultdict_of_another_size_is_not_changed_either():
    rows = [defaultdict(lambda: None, ROW | {"colour": "red"}), defaultdict(lambda: None)]
    with pytest.raises(InputError, match="Candidate 0 has the unknown feature `colour`"):
        sent(rows)
    assert not rows[1]

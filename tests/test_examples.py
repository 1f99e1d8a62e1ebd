"""The codec against TensorFlow's own parser, and against a message built by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.example_encoding import encode_examples
from mmoe_ranker.examples import (
    META_FIELDS,
    Field,
    canonical_category,
    decode_examples,
    example_layout,
    feature_field,
    label_name,
)
from tests.configs import small_config

FIELDS = (
    Field("device", "bytes", 1, "feature"),
    Field("position", "int64", 1, "feature"),
    Field("duration", "float", 1, "feature"),
    Field("history", "bytes", None, "feature"),
    Field("slots", "int64", None, "feature"),
    Field("content", "float", 3, "feature"),
    Field("click_label", "float", 1, "label"),
)
TYPES = {
    "device": pa.string(),
    "position": pa.int64(),
    "duration": pa.float32(),
    "history": pa.list_(pa.string()),
    "slots": pa.list_(pa.int64()),
    "content": pa.list_(pa.float32()),
    "click_label": pa.float32(),
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROW = st.fixed_dictionaries(
    {
        "device": st.none() | TEXT,
        "position": st.none() | INT64,
        "duration": st.none() | FLOAT,
        "history": st.none() | st.lists(TEXT, max_size=40),
        "slots": st.none() | st.lists(INT64, max_size=40),
        "content": st.none() | st.lists(FLOAT, min_size=3, max_size=3),
        "click_label": st.none() | FLOAT,
    }
)


def columns_of(rows: list[dict]) -> dict[str, pa.Array]:
    return {name: pa.array([row[name] for row in rows], kind) for name, kind in TYPES.items()}


def by_tensorflow(row: dict) -> tf.train.Example:
    """The naive double: one message, value by value."""
    example = tf.train.Example(features=tf.train.Features())
    for field in FIELDS:
        value = row[field.name]
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        entry = example.features.feature[field.name]
        if field.wire == "bytes":
            entry.bytes_list.value.extend(one.encode("utf-8") for one in values)
            entry.bytes_list.SetInParent()
        elif field.wire == "int64":
            entry.int64_list.value.extend(values)
            entry.int64_list.SetInParent()
        else:
            entry.float_list.value.extend(values)
    return example


@given(st.lists(ROW, min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_equal_to_tensorflows_own_message(rows):
    encoded = encode_examples(FIELDS, columns_of(rows)).to_pylist()
    for row, record in zip(rows, encoded, strict=True):
        assert tf.train.Example.FromString(record) == by_tensorflow(row)
        assert record == by_tensorflow(row).SerializeToString(deterministic=True)


@given(st.lists(ROW, min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_decodes_to_what_was_encoded(rows):
    decoded = decode_examples(encode_examples(FIELDS, columns_of(rows)).to_pylist(), FIELDS)
    assert decoded == {name: [row[name] for row in rows] for name in TYPES}


@given(st.lists(ROW, min_size=1, max_size=6), st.data())
@settings(max_examples=50, deadline=None)
def test_bytes_do_not_depend_on_what_is_shared(rows, data):
    shared = data.draw(st.sets(st.sampled_from(sorted(TYPES))))
    where = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=20))
    unshared = [rows[place] for place in where]
    alone, together = columns_of(unshared), columns_of(rows)
    encoded = encode_examples(
        FIELDS,
        {name: alone[name] for name in TYPES if name not in shared},
        {name: together[name] for name in shared},
        pa.array(where, pa.int64()),
    )
    assert encoded == encode_examples(FIELDS, alone)


def test_parse_example_reads_every_kind():
    rows = [
        {"device": "phone", "position": 3, "duration": 1.5, "history": ["a", "b"], "slots": [], "content": [1, 2, 3]},
        {"device": None, "position": None, "duration": None, "history": None, "slots": [7], "content": None},
    ]
    encoded = encode_examples(FIELDS, columns_of([{**row, "click_label": 1.0} for row in rows]))
    parsed = tf.io.parse_example(
        encoded.to_pylist(),
        {
            "device": tf.io.FixedLenFeature([1], tf.string, ""),
            "position": tf.io.FixedLenFeature([1], tf.int64, -1),
            "duration": tf.io.FixedLenFeature([1], tf.float32, -1.0),
            "content": tf.io.FixedLenFeature([3], tf.float32, [0.0] * 3),
            "history": tf.io.RaggedFeature(tf.string),
            "slots": tf.io.RaggedFeature(tf.int64),
        },
    )
    assert parsed["device"].numpy().tolist() == [[b"phone"], [b""]]
    assert parsed["position"].numpy().tolist() == [[3], [-1]]
    assert parsed["duration"].numpy().tolist() == [[1.5], [-1.0]]
    assert parsed["content"].numpy().tolist() == [[1.0, 2.0, 3.0], [0.0] * 3]
    assert parsed["history"].to_list() == [[b"a", b"b"], []]
    assert parsed["slots"].to_list() == [[], [7]]


def test_sliced_and_chunked_columns_encode_as_whole_ones():
    rows = [
        {"device": f"d{n}", "position": n, "duration": n / 2, "history": ["x"] * n, "slots": [n], "content": None}
        for n in range(10)
    ]
    columns = columns_of([{**row, "click_label": 0.0} for row in rows])
    whole = encode_examples(FIELDS, columns)
    assert encode_examples(FIELDS, {name: column[3:7] for name, column in columns.items()}) == whole[3:7]
    chunked = {name: pa.chunked_array([column[:4], column[4:]]) for name, column in columns.items()}
    assert encode_examples(FIELDS, chunked) == whole


def test_no_rows():
    assert len(encode_examples(FIELDS, {name: pa.array([], kind) for name, kind in TYPES.items()})) == 0


def test_nothing_but_missing_values():
    row = dict.fromkeys(TYPES)
    [record] = encode_examples(FIELDS, columns_of([row])).to_pylist()
    assert tf.train.Example.FromString(record).features.feature == {}


def config() -> Config:
    raw = small_config()
    raw["features"].append({"name": "slots", "side": "context", "kind": "sequence", "size": 9, "dim": 2})
    raw["features"].append({"name": "seen_at", "side": "context", "kind": "sequence", "embedding": "slot"})
    raw["features"].append({"name": "slot", "side": "candidate", "kind": "categorical", "size": 9})
    return parse_config(raw)


def test_layout_lists_features_then_labels_then_meta():
    layout = example_layout(config())
    assert layout == (
        Field("user_id", "bytes", 1, "feature"),
        Field("device", "bytes", 1, "feature"),
        Field("watch_history", "bytes", None, "feature"),
        Field("video_id", "bytes", 1, "feature"),
        Field("duration", "float", 1, "feature"),
        Field("content", "float", 6, "feature"),
        Field("position", "int64", 1, "feature"),
        Field("slots", "int64", None, "feature"),
        Field("seen_at", "int64", None, "feature"),
        Field("slot", "int64", 1, "feature"),
        Field("click_label", "float", 1, "label"),
        Field("watch_time_label", "float", 1, "label"),
        Field("like_label", "float", 1, "label"),
        Field("dismiss_label", "float", 1, "label"),
        *META_FIELDS,
    )
    assert feature_field(config(), config().feature("slot")) in layout
    assert label_name("click") == "click_label"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("phone", "phone"),
        ("", ""),
        (7, "7"),
        (-3, "-3"),
        (10**30, "1" + "0" * 30),
        (True, "true"),
        (False, "false"),
        (np.int32(7), "7"),
        (np.uint64(2**64 - 1), "18446744073709551615"),
        (np.bool_(True), "true"),
        (np.str_("tv"), "tv"),
    ],
)
def test_canonical_category(value, text):
    assert canonical_category(value) == text


@pytest.mark.parametrize("value", [3.0, np.float32(1), None, ["a"], b"a", {"a": 1}])
def test_canonical_category_refuses(value):
    with pytest.raises(InputError, match=r"A category must be a string, an integer or a boolean\. Received: "):
        canonical_category(value)


def test_decode_refuses_bytes_that_are_no_example():
    with pytest.raises(InputError, match=r"Record 1 must be a serialized tf.train.Example\. Received: "):
        decode_examples([b"", b"\xff\xff\xff"], FIELDS)


def test_decode_refuses_another_type_or_length():
    example = tf.train.Example()
    example.features.feature["position"].float_list.value.append(1.0)
    with pytest.raises(InputError, match=r"`position` of example 0 must hold 1 int64 value.*Received: 1 value"):
        decode_examples([example.SerializeToString()], FIELDS)
    example = tf.train.Example()
    example.features.feature["content"].float_list.value.extend([1.0, 2.0])
    with pytest.raises(InputError, match=r"`content` of example 0 must hold 3 float value.*Received: 2 value"):
        decode_examples([example.SerializeToString()], FIELDS)

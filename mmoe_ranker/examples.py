"""Impressions as serialized tf.train.Examples: which fields there are, and how to read them back.

Everything that touches an example takes its fields from `example_layout`, so that the layout is stated once. This is
the reading half of the one codec, and needs neither TensorFlow nor pyarrow; `example_encoding` is the writing half.

An example holds one impression. A field that is absent means: missing. Features lie under their own names, the label of
objective `k` under `k_label`, in its original unit; `request_id`, `item_id` and `timestamp_micros` say where the
impression comes from, and `sampling_weight`, where negatives were sampled, how many impressions it stands for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from mmoe_ranker.errors import InputError

if TYPE_CHECKING:
    from mmoe_ranker.config import Config, Feature

Wire: TypeAlias = Literal["bytes", "int64", "float"]

REQUEST_ID = "request_id"
ITEM_ID = "item_id"
TIMESTAMP_MICROS = "timestamp_micros"
SAMPLING_WEIGHT = "sampling_weight"


@dataclasses.dataclass(frozen=True)
class Field:
    """One key of an example.

    Attributes:
      name: the key.
      wire: which list of tf.train.Feature holds the values.
      length: how many values; None where any number may stand (a sequence).
      role: `feature`, `label`, `weight` or `meta`; weight and meta fields are always present.
    """

    name: str
    wire: Wire
    length: int | None
    role: Literal["feature", "label", "weight", "meta"]


META_FIELDS: tuple[Field, ...] = (
    Field(REQUEST_ID, "bytes", 1, "meta"),
    Field(ITEM_ID, "bytes", 1, "meta"),
    Field(TIMESTAMP_MICROS, "int64", 1, "meta"),
)


def label_name(objective: str) -> str:
    """The key under which an objective's label lies."""
    return f"{objective}_label"


def feature_field(config: Config, feature: Feature) -> Field:
    """The field of one feature: a sequence that shares a table has the type of that table's feature."""
    if feature.kind == "numeric":
        return Field(feature.name, "float", 1, "feature")
    if feature.kind == "vector":
        return Field(feature.name, "float", feature.size, "feature")
    table: Any = feature
    if feature.kind == "sequence" and feature.embedding is not None:
        table = config.feature(feature.embedding)
    return Field(
        feature.name, "int64" if table.is_integer else "bytes", None if feature.kind == "sequence" else 1, "feature"
    )


def example_layout(config: Config) -> tuple[Field, ...]:
    """All fields of an example: features and labels in config order, `sampling_weight` if sampled, `META_FIELDS`."""
    features = tuple(feature_field(config, feature) for feature in config.features)
    labels = tuple(Field(label_name(name), "float", 1, "label") for name in config.objective_names)
    weights = (Field(SAMPLING_WEIGHT, "float", 1, "weight"),) if config.sampling is not None else ()
    return features + labels + weights + META_FIELDS


def canonical_category(value: object) -> str:
    """The string that stands for a category in examples, vocabularies and requests.

    A string stands for itself, an integer for its decimal digits, a boolean for `true` or `false`.

    Raises:
      InputError: the value is of another type. A float is refused, because 3.0 and 3 would be two categories.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    raise InputError(f"A category must be a string, an integer or a boolean. Received: {value!r}.")


def decode_examples(serialized: Iterable[bytes], fields: Sequence[Field]) -> dict[str, list[Any]]:
    """Reads examples back to columns, one list a field: for tests and small reports, not for training.

    Args:
      serialized: serialized tf.train.Examples.
      fields: what to read; keys that are not among them are passed over.

    Returns:
      By field name, per example: None where the field is absent; a value where `length` is 1 (str for bytes, int,
      float); else a list of values.

    Raises:
      InputError: bytes that are no example, or a field of another type or length than the layout says.
    """
    columns: dict[str, list[Any]] = {field.name: [] for field in fields}
    for row, record in enumerate(serialized):
        try:
            entries = _EXAMPLE.FromString(record).features.feature
        except DecodeError as error:
            raise InputError(f"Record {row} must be a serialized tf.train.Example. Received: {error}.") from None
        for field in fields:
            columns[field.name].append(_value(entries[field.name], field, row) if field.name in entries else None)
    return columns


def _value(entry: Any, field: Field, row: int) -> Any:
    kind = entry.WhichOneof("kind")
    values = list(getattr(entry, kind).value) if kind else []
    if kind != f"{field.wire}_list" or (field.length is not None and len(values) != field.length):
        count = "any number of" if field.length is None else field.length
        raise InputError(
            f"`{field.name}` of example {row} must hold {count} {field.wire} value(s). "
            f"Received: {len(values)} value(s) of {kind}."
        )
    if field.wire == "bytes":
        values = [value.decode("utf-8") for value in values]
    return values[0] if field.length == 1 else values


def _example_class() -> Any:
    # The messages of tensorflow/core/example/{example,feature}.proto, same field numbers, under a package of our own:
    # TensorFlow's may be loaded in the same process, and its names can be registered only once.
    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="mmoe_ranker/example.proto", package="mmoe_ranker.wire", syntax="proto3"
    )

    def message(name: str, *fields: tuple[str, int, int, str]) -> descriptor_pb2.DescriptorProto:
        entry = file.message_type.add(name=name)
        for field, number, label, kind in fields:
            if kind.startswith("."):
                entry.field.add(name=field, number=number, label=label, type=types.TYPE_MESSAGE, type_name=kind)
            else:
                entry.field.add(name=field, number=number, label=label, type=getattr(types, f"TYPE_{kind}"))
        return entry

    one, many, package = types.LABEL_OPTIONAL, types.LABEL_REPEATED, ".mmoe_ranker.wire"
    message("BytesList", ("value", 1, many, "BYTES"))
    message("FloatList", ("value", 1, many, "FLOAT"))
    message("Int64List", ("value", 1, many, "INT64"))
    lists = (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List"))
    feature = message(
        "Feature", *[(name, number, one, f"{package}.{kind}") for number, (name, kind) in enumerate(lists, start=1)]
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message("Features", ("feature", 1, many, f"{package}.Features.FeatureEntry"))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=one, type=types.TYPE_STRING)
    entry.field.add(name="value", number=2, label=one, type=types.TYPE_MESSAGE, type_name=f"{package}.Feature")
    message("Example", ("features", 1, one, f"{package}.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mmoe_ranker.wire.Example"))


_EXAMPLE = _example_class()

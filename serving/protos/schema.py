"""Protobuf messages from a table of fields, without generated code.

A field is `(name, number, kind)`; `kind` is a scalar type (`int64`, `string`, ...), the name of another message, or
either of them behind `repeated ` or, for a map with string keys, behind `map `.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: dict[str, Any] = {
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int64": _Field.TYPE_INT64,
    "uint64": _Field.TYPE_UINT64,
    "int32": _Field.TYPE_INT32,
    "uint32": _Field.TYPE_UINT32,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
}
# Importing these modules has put the well-known types into the pool.
_WELL_KNOWN = (any_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR)


def build_messages(package: str, table: Mapping[str, Sequence[tuple[str, int, str]]]) -> dict[str, Any]:
    """Builds message classes from `table` and registers them under `package` in the default descriptor pool.

    Args:
        package: Full proto package; must not be one that another module of the process registers.
        table: Message name to its fields `(name, number, kind)`.

    Returns:
        Message name to message class.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package.replace('.', '/')}.proto",
        package=package,
        syntax="proto3",
        dependency=[descriptor.name for descriptor in _WELL_KNOWN],
    )
    for message_name, fields in table.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind in fields:
            _add_field(message, name, number, kind, package)
    pool = descriptor_pool.Default()
    # `Add` is absent from newer protobuf releases; the serialized form is accepted by all of them.
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in table}


def _add_field(message: Any, name: str, number: int, kind: str, package: str) -> None:
    label, _, element = kind.rpartition(" ")
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if label == "map":
        entry_name = "".join(part.capitalize() for part in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string", package)
        _add_field(entry, "value", 2, element, package)
        field.label = _Field.LABEL_REPEATED
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{package}.{message.name}.{entry_name}"
        return
    if label == "repeated":
        field.label = _Field.LABEL_REPEATED
    if element in _SCALARS:
        field.type = _SCALARS[element]
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{element}" if "." in element else f".{package}.{element}"

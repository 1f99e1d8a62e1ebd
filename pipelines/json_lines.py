"""JSON lines to Arrow tables, with the lines that Arrow cannot take set apart.

Arrow parses a block of lines at once when its columns are of one type throughout. A block that fails is cut in halves,
so that one broken line costs a short run of lines, which go one by one through `json`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from mmoe_ranker.config import Config
from pipelines.record_checks import BadRecord

# Which fields are read: a name for a value, a mapping for an object, a list of one mapping for a list of objects.
Wanted: TypeAlias = "dict[str, Wanted | list[Wanted] | None]"

_SMALLEST = 64  # Lines; below this the slow path is quicker than another attempt.
_SAMPLE = 1 << 16
# Levels of objects and lists in a record. Parsers take deeper ones, fail or crash, each from a depth of its own.
DEEPEST = 100
_INF = re.compile(rb"Inf(?=[\s,\]}])")


def wanted_impression_fields(config: Config) -> Wanted:
    """The fields of a ranked-list record that the config names."""
    bias: Wanted = {feature.name: None for feature in config.side("bias")}
    context: Wanted = {feature.name: None for feature in config.logged("context")}
    item: Wanted = {config.item_key: None, **{feature.name: None for feature in config.logged("candidate")}}
    inherited: Wanted = {name: None for name in bias if name != "position"}
    return {
        "request_id": None,
        "timestamp": None,
        "context": {**inherited, **context},
        "impressions": [{"position": None, **bias, "item": item}],
    }


WANTED_FEEDBACK_FIELDS: Wanted = dict.fromkeys(("request_id", "item_id", "event", "value", "timestamp"))


@dataclasses.dataclass(frozen=True)
class Lines:
    """Lines of a chunk: line i is `data[starts[i]:ends[i]]`; blank lines are left out."""

    data: bytes
    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, data: bytes) -> Lines:
        """Cuts at newlines."""
        array = np.frombuffer(data, np.uint8)
        breaks = np.flatnonzero(array == ord("\n"))
        starts = np.concatenate([[0], breaks + 1])
        ends = np.concatenate([breaks, [len(data)]])
        # A blank line begins with a blank, or is empty: only those are looked at one by one.
        empty = starts == ends
        doubtful = np.flatnonzero(empty | (array[np.minimum(starts, len(data) - 1)] <= ord(" ")) if data else empty)
        blank = [line for line in doubtful if not data[starts[line] : ends[line]].strip()]
        return cls(data, np.delete(starts, blank), np.delete(ends, blank))

    def __len__(self) -> int:
        return len(self.starts)

    def text(self, line: int) -> bytes:
        """One line, without its newline."""
        return self.data[self.starts[line] : self.ends[line]]


class LineParser:
    """Parses chunks of lines; remembers the types it met, because the next chunk will have the same."""

    def __init__(self, wanted: Wanted):
        self._wanted = wanted
        self._schema: pa.Schema | None = None

    def parse(self, lines: Lines) -> Iterator[tuple[np.ndarray, pa.Table | None]]:
        """Yields runs of lines with their table (a row a line), or with None where Arrow cannot take the run."""
        if not len(lines):
            return
        data = np.frombuffer(lines.data, np.uint8)
        last = lines.ends - 1
        last = last - (data[last] == ord("\r"))
        # A record that spans lines, or a line of two records, would shift all rows behind it.
        whole = (data[lines.starts] == ord("{")) & (data[last] == ord("}"))
        # Arrow's parser does not look whether strings are UTF-8.
        if not _is_utf8(lines.data):
            whole &= [_is_utf8(lines.text(line)) for line in range(len(lines))]
        if _most_open_brackets(lines.data) > DEEPEST:
            whole &= [_most_open_brackets(lines.text(line)) <= DEEPEST for line in range(len(lines))]
        # Numbers that Arrow knows and JSON does not, not even with the NaN and Infinity that Python writes.
        if (b"Inf" in lines.data and _INF.search(lines.data)) or b"-NaN" in lines.data:
            whole &= [
                not _INF.search(lines.text(line)) and b"-NaN" not in lines.text(line) for line in range(len(lines))
            ]
        if not whole.all():
            yield np.flatnonzero(~whole), None
        yield from self._parse_run(lines, np.flatnonzero(whole))

    def _parse_run(self, lines: Lines, run: np.ndarray) -> Iterator[tuple[np.ndarray, pa.Table | None]]:
        if not len(run):
            return
        if run[-1] - run[0] + 1 == len(run):
            data = lines.data[lines.starts[run[0]] : lines.ends[run[-1]]]
        else:
            data = b"\n".join(lines.text(line) for line in run)
        table = self._table(data)
        if table is not None and table.num_rows == len(run):
            yield run, table
        elif len(run) <= _SMALLEST:
            yield run, None
        else:
            yield from self._parse_run(lines, run[: len(run) // 2])
            yield from self._parse_run(lines, run[len(run) // 2 :])

    def _table(self, data: bytes) -> pa.Table | None:
        if self._schema is None:
            cut = data.find(b"\n", _SAMPLE)
            self._schema = self._infer(data if cut < 0 else data[:cut])
        if self._schema is not None:
            try:
                return _read(data, self._schema)
            except pa.ArrowInvalid:
                pass
        schema = self._infer(data)
        if schema is None:
            return None
        try:
            table = _read(data, schema)
        except pa.ArrowInvalid:
            return None
        self._schema = _wider(self._schema, schema)
        return table

    def _infer(self, data: bytes) -> pa.Schema | None:
        try:
            found = _read(data, None).schema
        except pa.ArrowInvalid:
            # In fields that nobody reads, records may differ in type; then a few lines tell, without such fields.
            try:
                found = _read(_wanted_alone(data, self._wanted), None).schema
            except pa.ArrowInvalid:
                return None
        return pa.schema(_pruned(pa.struct(list(found)), self._wanted))


def _wider(known: pa.Schema | None, found: pa.Schema) -> pa.Schema:
    """The types that hold what both hold: of few lines many fields are null, and numbers integers."""
    try:
        return found if known is None else pa.unify_schemas([known, found], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return found


def _wanted_alone(data: bytes, wanted: Wanted) -> bytes:
    records = []
    for line in data.split(b"\n", _SMALLEST)[:_SMALLEST]:
        with contextlib.suppress(BadRecord):
            records.append(json.dumps(_only(parse_line(line), wanted)))
    return "\n".join(records).encode()


def _only(value: Any, wanted: Any) -> Any:
    if isinstance(wanted, dict) and isinstance(value, dict):
        return {name: _only(value[name], inner) for name, inner in wanted.items() if name in value}
    if isinstance(wanted, list) and isinstance(value, list):
        return [_only(one, wanted[0]) for one in value]
    return value


def _read(data: bytes, schema: pa.Schema | None) -> pa.Table:
    unexpected = "infer" if schema is None else "ignore"
    return pj.read_json(
        io.BytesIO(data),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior=unexpected),
    )


def _pruned(found: pa.StructType, wanted: Any) -> pa.StructType:
    """The wanted fields with the types found; null for those not found, so that a value turning up is noticed."""
    fields = []
    for name, inner in wanted.items():
        place = found.get_field_index(name)
        kind = pa.null() if place < 0 else found.field(place).type
        if isinstance(inner, dict) and pa.types.is_struct(kind):
            kind = _pruned(kind, inner)
        elif isinstance(inner, list) and pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
            kind = pa.list_(_pruned(kind.value_type, inner[0]))
        fields.append((name, _without_times(kind)))
    return pa.struct(fields)


def _without_times(kind: pa.DataType) -> pa.DataType:
    # Arrow takes strings that look like dates for dates; in JSON a string is a string.
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_times(kind.value_type))
    return kind


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _most_open_brackets(data: bytes) -> int:
    """How deep the deepest line is nested, at most: brackets inside strings count too."""
    codes = np.frombuffer(data.translate(None, _NO_BRACKETS), np.uint8)
    if not len(codes):
        return 0
    depth = np.cumsum(_STEPS[codes], dtype=np.int32)
    starts = np.concatenate([[0], np.flatnonzero(codes[:-1] == ord("\n")) + 1])
    return int((np.maximum.reduceat(depth, starts) - np.concatenate([[0], depth[starts[1:] - 1]])).max())


_NO_BRACKETS = bytes(code for code in range(256) if code not in b"[{}]\n")
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


def parse_line(line: bytes) -> Any:
    """One line by itself.

    Raises:
      BadRecord: it is not JSON in UTF-8, or nested too deep.
    """
    try:
        value = _parsed(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadRecord("record: must be UTF-8") from None
    except RecursionError:
        raise BadRecord(_TOO_DEEP) from None
    except ValueError:
        raise BadRecord("record: must be valid JSON") from None
    if line.count(b"[") + line.count(b"{") > DEEPEST and _levels(value) > DEEPEST:
        raise BadRecord(_TOO_DEEP)
    return value


_TOO_DEEP = f"record: must be nested at most {DEEPEST} levels deep"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # Python converts no integer of thousands of digits, which may stand in a field that nobody asks for.
        return json.loads(text, parse_int=_number)


def _number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _levels(value: Any) -> int:
    levels, layer = 0, [value]
    while layer := [one for one in layer if isinstance(one, dict | list)]:
        levels += 1
        layer = [inner for one in layer for inner in (one.values() if isinstance(one, dict) else one)]
    return levels

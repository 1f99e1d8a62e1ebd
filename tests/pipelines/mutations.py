"""Records made wrong, or unusual, in the ways that logs go wrong: in their structure, and as bytes.

Every function draws from a `random.Random`, so that a seed repeats a run. A mutated record ends with a newline, like
any record, and may hold more of them: it then stands for several lines.
"""

from __future__ import annotations

import json
import random
from typing import Any

# What takes the place of a value; text stands for JSON that Python would not write.
VALUES: tuple[str, ...] = (
    *("null", "true", "false", "[]", "{}", '""', "[null]", "[[1, 2], [3]]", '[["v1"]]', '{"a": 1}', '[{"a": null}]'),
    *("0", "-0", "-0.0", "-1", "1", "2.0", "3.5", "7", "21", "1e2", "1e400", "-1e400", "1e-400", "3.5e38", "-1e39"),
    *("NaN", "Infinity", "-Infinity", "Inf", "nan", "-NaN", "01", "1.", ".5", "+1", "0x10", "undefined", "'v1'"),
    *("9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1" + "0" * 80),
    *("7" * 400, "8" * 5000, "1651017600500", "4102444799.9999999", "4102444800", "946684799.9", "946684800", "1.7e9"),
    *(
        '"v1"',
        '"7"',
        '"1651017600.5"',
        '"2022-04-27"',
        '"2022-04-27T00:00:00Z"',
        '"\\u0000"',
        '"a\\nb"',
        '"\\ud83d\\ude00"',
    ),
    *('"\\ud800"', '"\\udc00x"', '"\\ud83d\\u0041"', '"\\x41"', '"tab\there"', '"\x7f"', '"[[[[{{{{"', '"\N{SNOWMAN}"'),
    *('["v1", "v2", "v3", "v4", "v5", "v6", "v7"]', "[1, 2, 3, 4]", "[0.5, 1, 2, 3, 4, 5]", "[0, 1, 2, 3, 4, NaN]"),
    *(
        '["v1", 2, true]',
        "[1, 2.0, 9]",
        "[10]",
        "[-1]",
        '["\\ud800"]',
        "[0.5, 1, 2, 3, 4, 1e39]",
        "[true, 1, 2, 3, 4, 5]",
    ),
    *("[" * 50 + "]" * 50, '{"k": ' * 60 + "1" + "}" * 60, "[" * 150 + "]" * 150, '"' + "x" * 2000 + '"'),
)


def mutated_record(rng: random.Random, record: dict[str, Any]) -> bytes:
    """One record after one to three mutations of its structure, or of its bytes, or both."""
    kind = rng.random()
    line = structurally(rng, record) if kind < 0.75 else json.dumps(record).encode()
    if kind >= 0.65:
        for _ in range(rng.randint(1, 2)):
            line = rng.choice(_BYTE_MUTATIONS)(rng, line)
    return line + b"\n"


def structurally(rng: random.Random, record: dict[str, Any]) -> bytes:
    """The record as a line of JSON, with values replaced, left out, added, said twice or renamed."""
    marks: dict[str, str] = {}
    copied = json.loads(json.dumps(record))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder, key = _place(rng, copied)
        if isinstance(holder, list):
            _change_list(rng, holder, key, marks)
        else:
            _change_object(rng, holder, key, marks)
    text = json.dumps(copied, ensure_ascii=rng.random() < 0.9)
    for mark, stands_for in marks.items():
        text = text.replace(f'"{mark}": 0', stands_for).replace(f'"{mark}"', stands_for)
    return text.encode("utf-8", "surrogatepass")


def _place(rng: random.Random, record: dict[str, Any]) -> tuple[Any, Any]:
    """A random holder and key of the tree, near the root as likely as deep in it."""
    holder: Any = record
    while True:
        keys = list(range(len(holder))) if isinstance(holder, list) else list(holder)
        key = rng.choice(keys)
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.25:
            return holder, key
        holder = inner


def _change_list(rng: random.Random, holder: list[Any], key: int, marks: dict[str, str]) -> None:
    how = rng.random()
    if how < 0.6:
        holder[key] = _mark(marks, rng.choice(VALUES))
    elif how < 0.7:
        del holder[key]
        if not holder:
            holder.append(_mark(marks, rng.choice(VALUES)))
    elif how < 0.85:
        holder.append(holder[key])
    else:
        holder.insert(key, _mark(marks, rng.choice(VALUES)))


def _change_object(rng: random.Random, holder: dict[str, Any], key: str, marks: dict[str, str]) -> None:
    how = rng.random()
    if how < 0.55:
        holder[key] = _mark(marks, rng.choice(VALUES))
    elif how < 0.65:
        del holder[key]
        holder.setdefault("rest", 1)
    elif how < 0.75:
        holder[rng.choice(("debug", "timestamp2", "", key.upper()))] = _mark(marks, rng.choice(VALUES))
    elif how < 0.9:
        # The same key twice: before the first value, or behind the last.
        twice = _mark(marks, f"{json.dumps(key)}: {rng.choice(VALUES)}")
        if how < 0.82:
            holder[twice] = 0
        else:
            rest = dict(holder)
            holder.clear()
            holder.update({twice: 0, **rest})
    else:
        holder[key + "_"] = holder.pop(key)


def _mark(marks: dict[str, str], stands_for: str) -> str:
    mark = f"<<{len(marks)}>>"
    marks[mark] = stands_for
    return mark


def _flip(rng: random.Random, line: bytes) -> bytes:
    data = bytearray(line)
    for _ in range(rng.randint(1, 4)):
        if data:
            place = rng.randrange(len(data))
            data[place] = rng.randrange(256) if rng.random() < 0.5 else data[place] ^ (1 << rng.randrange(8))
    return bytes(data)


def _truncate(rng: random.Random, line: bytes) -> bytes:
    place = rng.randrange(len(line) + 1)
    return line[:place] if rng.random() < 0.5 else line[place:]


def _cut(rng: random.Random, line: bytes) -> bytes:
    place = rng.randrange(len(line) + 1)
    return line[:place] + line[place + rng.randint(1, 30) :]


def _insert(rng: random.Random, line: bytes) -> bytes:
    pieces = (b"\n", b"\r\n", b"\r", b"\0", b"\xef\xbb\xbf", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf0\x9f", b"\t")
    piece = rng.choice(
        (*pieces, b"\x0b", b"\x0c", b" ", b",", b"}", b"{", b"]", b'"', b"\\", b"\xe2\x80\xa8", b"0", b"-")
    )
    place = rng.choice((0, len(line), rng.randrange(len(line) + 1), rng.randrange(len(line) + 1)))
    return line[:place] + piece + line[place:]


def _concatenate(rng: random.Random, line: bytes) -> bytes:
    between = rng.choice((b"", b" ", b",", b"\0", b"\r", b"\n", b"\x1e", b"\xef\xbb\xbf"))
    return line + between + line[: rng.choice((len(line), len(line), len(line) // 2))]


def _pad(rng: random.Random, line: bytes) -> bytes:
    blank = rng.choice((b" ", b"\t", b"\r", b" " * 20, b"\n", b"\n \n", b"\0" * 9, b" " * 9 + b"\n"))
    return rng.choice((blank + line, line + blank))


_BYTE_MUTATIONS = (_flip, _flip, _flip, _truncate, _cut, _insert, _insert, _concatenate, _pad)

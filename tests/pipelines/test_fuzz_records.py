"""Mutated records beside untouched ones, through the whole job: nothing crashes and nothing is lost.

Every record is followed by what it is: each untouched one gives its example, byte for byte as without the mutated ones;
each mutated one gives the example that a naive double says, or stands in the dead letters as it is, with a reason.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.examples import decode_examples, example_layout
from pipelines.impressions import run
from tests.pipelines.mutations import mutated_record
from tests.pipelines.naive_reading import Reading, canonical, joined, mutation_config, read_events, read_impressions

# 100,000 take half a minute of two cores; set it so before a release.
MUTATED = int(os.environ.get("MMOE_RANKER_MUTATED", "20000"))
CONFIG = parse_config(mutation_config())


def record(name: str, number: int) -> dict[str, Any]:
    return {
        "request_id": f"{name}{number}",
        "timestamp": 1_651_017_600.5 + number % 5000,
        "context": {
            "user_id": f"u{number % 7}",
            "device": ("phone", "tv")[number % 2],
            "watch_history": ["v1", "v2"][: number % 3],
            "slot": number % 10,
            "slots": [1, 2][: number % 3],
            "surface": "home",
        },
        "impressions": [
            {
                "position": place,
                "item": {"video_id": f"v{place}", "duration": 1.5 * place, "price": number % 9, "content": [0.25] * 6},
            }
            for place in range(1, 2 + number % 2)
        ],
    }


def event(name: str, number: int) -> dict[str, Any]:
    kind = ("click", "watch", "like", "share")[number % 4]
    known = {"request_id": f"{name}{number // 4}", "item_id": "v1", "event": kind}
    return {**known, "value": float(number % 50), "timestamp": 1_651_017_600.5 + number // 4 % 5000 + 7}


def serialized(folder: Path) -> list[bytes]:
    examples = []
    for path in sorted(folder.glob("*/part-*.tfrecord.gz")):
        data, place = gzip.decompress(path.read_bytes()), 0
        while place < len(data):
            (size,) = struct.unpack_from("<Q", data, place)
            examples.append(data[place + 12 : place + 12 + size])
            place += size + 16
    return examples


def letters(folder: Path, log: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for path in sorted((folder / "dead_letters").glob(f"{log}-*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            letter = json.loads(line)
            assert letter["reason"].partition(": ")[2]
            found[canonical(letter["record"])] += 1
    return found


def write_mixed(path: Path, rng: random.Random, untouched: list[bytes], mutated: list[bytes]) -> bytes:
    lines = untouched + mutated
    rng.shuffle(lines)
    data = b"".join(lines)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return data


def check_letters(folder: Path, log: str, reading: Reading, summary: dict[str, Any]) -> None:
    found = letters(folder, log)
    assert (found - reading.refused, reading.refused - found) == (Counter(), Counter())
    assert summary["dead_letters"] == found.total() == sum(summary["dead_letters_by_reason"].values())
    assert summary["reconciled"]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "share", "block_bytes", "ending"), [(1, 0.9, 8 << 20, ""), (2, 0.1, 5000, ".gz")])
def test_mutated_logs_lose_nothing(tmp_path: Path, monkeypatch, seed: int, share: float, block_bytes: int, ending: str):
    monkeypatch.setattr("pipelines.log_blocks.BLOCK_BYTES", block_bytes)
    rng = random.Random(seed)
    count = int(MUTATED * share)
    shown, events = count * 6 // 10, count * 4 // 10
    untouched = [json.dumps(record("untouched-", number)).encode() + b"\n" for number in range(count // 10)]
    said = [json.dumps(event("untouched-", number)).encode() + b"\n" for number in range(count // 10)]
    (tmp_path / "i.jsonl").write_bytes(b"".join(untouched))
    (tmp_path / "f.jsonl").write_bytes(b"".join(said))
    run(CONFIG, str(tmp_path / "i.jsonl"), str(tmp_path / "f.jsonl"), str(tmp_path / "alone"))
    alone = Counter(serialized(tmp_path / "alone"))

    impressions = write_mixed(
        tmp_path / f"mixed_i.jsonl{ending}",
        rng,
        untouched,
        [mutated_record(rng, record("m", number)) for number in range(shown)],
    )
    feedback = write_mixed(
        tmp_path / f"mixed_f.jsonl{ending}",
        rng,
        said,
        [mutated_record(rng, event("m", number)) for number in range(events)],
    )
    paths = [str(tmp_path / f"mixed_{log}.jsonl{ending}") for log in "if"]
    summary = run(CONFIG, *paths, str(tmp_path / "out"))
    examples = Counter(serialized(tmp_path / "out"))
    assert not alone - examples, "an untouched record has not its example"

    requests, answers = read_impressions(impressions), read_events(feedback)
    assert (summary["impressions"]["records"], summary["feedback"]["read"]) == (requests.lines, answers.lines)
    check_letters(tmp_path / "out", "impressions", requests, summary["impressions"])
    check_letters(tmp_path / "out", "feedback", answers, summary["feedback"])

    expected, counts = joined(requests.taken, answers.taken)
    assert summary["impressions"]["examples"] == len(expected) == examples.total()
    assert summary["impressions"]["duplicates"] == len(requests.taken) - len(expected)
    assert summary["feedback"]["ignored"] == answers.ignored
    assert {name: summary["feedback"][name] for name in counts} == counts
    columns = decode_examples((examples - alone).elements(), example_layout(CONFIG))
    found = Counter(json.dumps(one, sort_keys=True) for one in rows_of(columns))
    mutated = Counter(json.dumps(one, sort_keys=True) for one in expected if one["request_id"][:10] != "untouched-")
    assert (found - mutated, mutated - found) == (Counter(), Counter())


def rows_of(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

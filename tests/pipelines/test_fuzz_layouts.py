"""What must not matter: the order of a config's features, of a record's keys, and blanks between records."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmoe_ranker.config_loading import parse_config
from pipelines.impressions import run
from tests.pipelines.logs import random_logs, write_flat_impressions, write_json
from tests.pipelines.naive_reading import mutation_config
from tests.pipelines.reading import read_all


@pytest.mark.parametrize("form", ["lines", "flat"])
def test_the_order_of_features_changes_no_value(tmp_path: Path, form: str):
    records, events = random_logs()
    for number, record in enumerate(records):
        record["context"] |= {"slot": number % 10, "slots": [number % 4], "surface": "home"}
        for impression in record["impressions"]:
            impression["item"]["price"] = 100.0 + number
    write = write_json if form == "lines" else write_flat_impressions
    paths = (
        write(tmp_path / f"i.{'jsonl' if form == 'lines' else 'parquet'}", records),
        write_json(tmp_path / "f.jsonl", events),
    )
    raw = mutation_config()
    examples = []
    for name in ("as it is", "reversed"):
        config = parse_config(raw)
        run(config, *paths, str(tmp_path / name))
        examples.append(read_all(config, tmp_path / name))
        raw = {**raw, "features": raw["features"][::-1]}
    assert examples[0] == examples[1]
    assert {example["price"] for example in examples[0]} == {100.0 + number for number in range(len(records))}

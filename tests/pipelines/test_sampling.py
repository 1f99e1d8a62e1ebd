"""Down-sampled negatives: who stays, what is counted, the same whatever the number of parts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.statistics import Statistics
from pipelines.batches import ImpressionBatch
from pipelines.impressions import run
from pipelines.sampling import chances
from tests.configs import small_config
from tests.pipelines.logs import event, request, write_json
from tests.pipelines.reading import read_split
from tests.pipelines.test_impressions_run import random_logs

SHARE = 0.3


def sampled(share: float = SHARE) -> Config:
    return parse_config(small_config() | {"sampling": {"negatives": share}})


def by_key(examples: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(example["request_id"], example["item_id"]): example for example in examples}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list, dict[str, Any]]:
    """The same logs without and with sampling; the events; the summary with sampling."""
    folder = tmp_path_factory.mktemp("sampling")
    records, events = random_logs()
    paths = write_json(folder / "i.jsonl", records), write_json(folder / "f.jsonl", events)
    run(parse_config(small_config()), *paths, str(folder / "whole"))
    summary = run(sampled(), *paths, str(folder / "sampled"))
    return folder / "whole", folder / "sampled", events, summary


def test_impressions_with_events_stay_and_the_rest_by_chance(built):
    whole, kept, events, _ = built
    # Also events that no label shows, as of watching without a click.
    with_event = {(one["request_id"], one["item_id"]) for one in events}
    before = by_key(read_split(parse_config(small_config()), whole, "train"))
    after = by_key(read_split(sampled(), kept, "train"))
    silent = before.keys() - with_event
    assert before.keys() & with_event == after.keys() & with_event
    assert 0 < len(after.keys() & silent) < len(silent)
    for key, example in after.items():
        weight = 1 / SHARE if key in silent else 1.0
        assert example == before[key] | {"sampling_weight": pytest.approx(weight)}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_validation_and_test_are_left_whole(built, split):
    whole, kept, _, _ = built
    before = read_split(parse_config(small_config()), whole, split)
    assert read_split(sampled(), kept, split) == [example | {"sampling_weight": 1.0} for example in before]


def test_what_is_left_out_is_counted(built):
    whole, kept, _, summary = built
    config, counts = parse_config(small_config()), summary["impressions"]
    before, after = read_split(config, whole, "train"), read_split(sampled(), kept, "train")
    assert counts["sampled_out"] == len(before) - len(after) > 0
    assert counts["read"] == counts["examples"] + counts["duplicates"] + counts["dead_letters"] + counts["sampled_out"]
    assert counts["reconciled"]
    assert summary["sampling"] == {"negatives": SHARE, "correction": "export"}
    statistics = Statistics.load(kept)
    assert statistics.num_examples == len(after)
    for name in ("click", "like", "dismiss"):
        negatives = [sum(example[f"{name}_label"] == 0 for example in examples) for examples in (before, after)]
        assert statistics.labels[name].negatives_kept == negatives[1] / negatives[0] < 1
        assert statistics.labels[name].mean == pytest.approx(np.mean([example[f"{name}_label"] for example in after]))
    # Of a regression's labels none is lost: they come from events.
    assert statistics.labels["watch_time"] == Statistics.load(whole).labels["watch_time"]
    assert statistics.labels["watch_time"].negatives_kept == 1.0


def test_the_choice_is_the_same_for_any_order_and_number_of_parts(built, tmp_path):
    _, kept, _, summary = built
    records, events = random_logs()
    order = np.random.default_rng(5).permutation(len(records))
    shuffled = [records[place] for place in order]
    paths = write_json(tmp_path / "i.jsonl", shuffled), write_json(tmp_path / "f.jsonl", events)
    again = run(sampled(), *paths, str(tmp_path / "out"), ["--num_shards", "7"])
    assert again["impressions"] == summary["impressions"]
    for split in ("train", "validation", "test"):
        assert read_split(sampled(), tmp_path / "out", split) == read_split(sampled(), kept, split)


def test_a_part_of_which_nothing_stays(tmp_path):
    records = [request(number, ["v1", "v2"]) for number in range(20)]
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", [event(0, "v1", "click")])
    summary = run(sampled(1e-9), *paths, str(tmp_path / "out"), ["--num_shards", "10"])
    assert summary["impressions"]["sampled_out"] == 31
    assert summary["impressions"]["reconciled"]
    assert summary["splits"]["train"]["examples"] == 1
    assert len(list((tmp_path / "out" / "train").iterdir())) == summary["splits"]["train"]["parts"] == 1
    assert Statistics.load(tmp_path / "out").labels["like"].negatives_kept == pytest.approx(1 / 32)


def test_nothing_left_to_train_on_is_refused(tmp_path):
    records = [request(number, ["v1", "v2"]) for number in range(10)]
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", [event(9, "v1", "click")])
    with pytest.raises(InputError, match=r"raise `sampling.negatives`\. Received: 16 impressions, all left out\.$"):
        run(sampled(1e-9), *paths, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_chances_are_uniform_and_independent():
    requests, items = 400, 100
    row = np.repeat(np.arange(requests), items)
    contexts = pa.table({"_request": [f"r{number}" for number in range(requests)]})
    impressions = pa.table({"_row": row, "_item": [f"v{number % items}" for number in range(len(row))]})
    found = chances(ImpressionBatch(contexts, impressions)).reshape(requests, items)
    assert found.min() >= 0
    assert found.max() < 1
    # Kolmogorov-Smirnov: the largest distance of 40,000 uniform numbers is above .0098 once in a thousand times.
    ordered = np.sort(found, axis=None)
    assert np.abs(ordered - (np.arange(len(row)) + 0.5) / len(row)).max() < 0.0098
    # Neither the request nor the item alone decides: means of rows and of columns vary as independent numbers' do.
    assert found.mean(axis=1).std() == pytest.approx(np.sqrt(1 / 12 / items), rel=0.15)
    assert found.mean(axis=0).std() == pytest.approx(np.sqrt(1 / 12 / requests), rel=0.3)
    assert len(np.unique(found)) == len(row)


def test_negative_watch_times_and_weights_are_dead_letters(tmp_path):
    raw = small_config()
    raw["objectives"][1] |= {"transform": "none", "loss": "weighted_logistic"}
    raw["features"].append({"name": "importance", "side": "bias", "kind": "numeric"})
    raw["training"]["sample_weight"] = "importance"
    records = [request(number, ["v1", "v2"]) for number in range(10)]
    for record in records:
        for impression in record["impressions"]:
            impression["importance"] = 0.5
    records[3]["impressions"][1]["importance"] = -0.5
    events = [
        event(number, "v1", name, value) for number in range(8) for name, value in [("click", None), ("watch", 7)]
    ]
    events.append(event(5, "v2", "watch", -3))
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)
    summary = run(parse_config(raw), *paths, str(tmp_path / "out"))
    assert Counter(summary["impressions"]["dead_letters_by_reason"]) == {
        "importance: must be at least 0, because it is the sample weight": 1
    }
    assert Counter(summary["feedback"]["dead_letters_by_reason"]) == {
        "value: must be at least 0, because of the objective's loss weighted_logistic": 1
    }
    assert Statistics.load(tmp_path / "out").labels["watch_time"].least == 7.0

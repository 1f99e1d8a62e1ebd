"""Each experiment in its tiny mode, from its data to its table."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.benchmarks import peer
from tests.evidence import census, gates, peers, table1, table2


def _train_each_arm_once(monkeypatch: pytest.MonkeyPatch, experiment: ModuleType) -> None:
    """Gives the second seed the first one's figures: the way to the table is what is tried, and trainings take long."""
    perform, rows = experiment._one, {}

    def one(*arguments: Any) -> dict[str, Any]:
        arm = next(settings["arm"] for settings in arguments if isinstance(settings, dict) and "arm" in settings)
        if arm not in rows:
            rows[arm] = perform(*arguments)
        return rows[arm]

    monkeypatch.setattr(experiment, "_one", one)


@pytest.mark.slow
def test_each_simulated_experiment_runs_in_tiny_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _train_each_arm_once(monkeypatch, table1)
    arms = [table1.CONTROL, "mmoe_8"]
    result = table1.run(tmp_path / "table1_simulated", (1, 2), arms, table1.TINY)
    assert set(result["compared"]) >= {"clicks", "watch_seconds", "likes", "ndcg"}
    assert result["costs"]["mmoe_8"]["multiplications"] > result["costs"][table1.CONTROL]["multiplications"]
    rows = table1.trained_arms(tmp_path, "simulated", ["mmoe_8"], [1], table1.TINY)  # kept by the run above
    assert 0 < rows[0]["gates"]["entropy"] <= 1
    assert rows[0]["clicks"] > 0

    def same(root, data, arms, seeds, size):
        return [{"arm": arm, "seed": seed, "gates": rows[0]["gates"]} for arm in arms for seed in seeds]

    monkeypatch.setattr(gates, "trained_arms", same)
    found = gates.run(tmp_path / "gates", (1, 2), ("simulated",), table1.TINY)["simulated"]
    assert found["seeds_polarised"] == {"mmoe_8_no_dropout": 0, "mmoe_8": 0}


@pytest.mark.slow
def test_kinds_of_bias_are_compared_in_tiny_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _train_each_arm_once(monkeypatch, table2)
    plan = table2.Plan({"agenda": {}}, (table2.CONTROL, "adversarial"), (1, 2), table2.TINY)
    result = table2.run(tmp_path / "table2", plan)
    assert list(result) == ["agenda"]
    assert np.isfinite(result["agenda"]["ndcg"]["adversarial"]["difference"]["mean"])


@pytest.fixture
def census_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up file of 400 persons in the form of UCI's."""
    rng, lines = np.random.default_rng(1), []
    for _ in range(400):
        row = [str(rng.choice(["a", "b", "?"])) for _ in range(42)]
        for column in (0, 5, 16, 17, 18, 30, 39):
            row[column] = str(rng.integers(0, 60))
        row[4] = str(rng.choice(["Children", "Bachelors degree(BA AB BS)"]))
        row[7] = str(rng.choice(["Never married", "Divorced"]))
        row[41] = str(rng.choice(["- 50000.", "50000+."]))
        lines.append(", ".join(row))
    (tmp_path / "data" / "census").mkdir(parents=True)
    file = tmp_path / "data" / "census" / census.FILE
    file.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    monkeypatch.setenv("MMOE_RANKER_DATA", str(tmp_path / "data"))
    return file


@pytest.mark.slow
def test_census_runs_in_tiny_mode(tmp_path: Path, census_file: Path) -> None:
    (row,) = table1.trained_arms(tmp_path, "census_education", ["mmoe_4"], [1], table1.TINY)
    assert 0 <= row["education auc"] <= 1
    assert row["parameters"] > 0
    assert row["multiplications"] > 0
    summary = json.loads(
        (tmp_path / "examples" / "census_education" / "examples" / "summary.json").read_text(encoding="utf-8")
    )
    assert {name: split["examples"] for name, split in summary["splits"].items()} == {
        "train": 320,
        "validation": 40,
        "test": 40,
    }
    test = np.load(tmp_path / "table1_census_education" / "test.npz")
    raw = [line.split(", ") for line in gzip.decompress(census_file.read_bytes()).decode().splitlines()]
    order = np.random.default_rng(7).permutation(400)[360:]
    expected = {int(f"{place + 360}"): raw[person] for place, person in enumerate(order)}
    for request, education, never in zip(test["request_id"], test["education"], test["never_married"], strict=True):
        person = expected[int(request[1:])]
        assert education == person[4].startswith("Bachelors")
        assert never == (person[7] == "Never married")


def test_no_census_feature_gives_a_label_away() -> None:
    for pair, label in census.PAIRS.items():
        assert not {7, label, 19, 22, 23} & set(census.feature_columns(pair))


@pytest.mark.slow
@pytest.mark.skipif(not peer.is_installed(), reason="`make bench` installs the peer; tests download nothing")
def test_the_peer_trains_on_what_ours_trains_on(tiny_world, tmp_path: Path) -> None:
    peers.write_input(tiny_world.config, tiny_world.examples, tmp_path)
    answer = peers._worker(tmp_path, seed=1, passes=1, out=str(tmp_path / "out.npz"))
    assert answer["parameters"] > 0
    test, out = np.load(tmp_path / "test.npz"), np.load(tmp_path / "out.npz")
    assert out["click"].shape == test["click_label"].shape
    assert np.std(out["click"]) > 0
    assert peers._worker(tmp_path, seed=1, passes=2, choose=True)["passes"] in (1, 2)

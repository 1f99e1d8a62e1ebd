"""Statistics: written and read back, and refused where they are not whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmoe_ranker.errors import InputError
from mmoe_ranker.statistics import Statistics


def test_saved_is_loaded(statistics: Statistics, tmp_path: Path) -> None:
    statistics.save(tmp_path)
    assert Statistics.load(tmp_path) == statistics


@pytest.mark.parametrize("value", ["", "\r", "a\u2028b", "\x85", " x ", "é"])
def test_vocabulary_values_survive(tmp_path: Path, value: str) -> None:
    statistics = Statistics(1, {}, {}, {"device": (value, "other")})
    statistics.save(tmp_path)
    assert Statistics.load(tmp_path).vocabularies["device"] == (value, "other")


def test_missing_files_are_named(statistics: Statistics, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold statistics.json and vocabularies/.*statistics.json'\.$"):
        Statistics.load(tmp_path)
    statistics.save(tmp_path)
    (tmp_path / "vocabularies" / "device.txt").unlink()
    with pytest.raises(InputError, match=r"device.txt'\.$"):
        Statistics.load(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"num_examples": 1, "numeric": {"a": {}}, "labels": {}}'])
def test_a_file_of_another_version_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "statistics.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"build the examples again\. Received: "):
        Statistics.load(tmp_path)


def test_cut_vocabulary_is_refused(statistics: Statistics, tmp_path: Path) -> None:
    statistics.save(tmp_path)
    (tmp_path / "vocabularies" / "device.txt").write_text("phone\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"must have the 3 values that statistics.json records\. Received: 1\.$"):
        Statistics.load(tmp_path)

"""Runs of experiments and the folders that they share: done once, kept, left to the process that is at them."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tests.evidence.runs import LeftToAnotherError, Runs, made_once


def test_a_run_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def one(settings):
        asked.append(settings["seed"])
        return {"figure": settings["seed"] * 2}

    rows = Runs(tmp_path / "e").perform([{"seed": 1}, {"seed": 2}], one)
    assert [(row["seed"], row["figure"]) for row in rows] == [(1, 2), (2, 4)]
    rows = Runs(tmp_path / "e").perform([{"seed": 2}, {"seed": 3}], one)
    assert [row["figure"] for row in rows] == [4, 6]
    assert asked == [1, 2, 3]
    assert len((tmp_path / "e.runs.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_a_run_that_fails_leaves_no_row_and_no_claim(tmp_path: Path) -> None:
    def fails(settings):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Runs(tmp_path / "e").perform([{"seed": 1}], fails)
    assert Runs(tmp_path / "e").perform([{"seed": 1}], lambda settings: {"figure": 5})[0]["figure"] == 5


def test_a_run_that_another_process_is_at_is_left_to_it(tmp_path: Path) -> None:
    runs, asked = Runs(tmp_path / "e"), []

    def one(settings):
        asked.append(settings["seed"])
        if settings["seed"] == 1:
            # While the first is under way, another process comes and takes the second.
            with pytest.raises(LeftToAnotherError, match=r"^e: 1 of 2 runs are left"):
                Runs(tmp_path / "e").perform([{"seed": 1}, {"seed": 2}], one)
        return {}

    runs.perform([{"seed": 1}, {"seed": 2}], one)
    assert asked == [1, 2]


def test_a_folder_is_made_once_and_whole(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "a").write_text("1", encoding="utf-8")

    def fails(folder: Path) -> None:
        (folder / "a").write_text("2", encoding="utf-8")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        made_once(tmp_path / "set", fails)
    assert not (tmp_path / "set").exists()
    made_once(tmp_path / "set", make)
    made_once(tmp_path / "set", fails)
    assert (tmp_path / "set" / "a").read_text(encoding="utf-8") == "1"
    with (tmp_path / ".set.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

"""A request to `saved_models.Ranker`, its ranking by hand, and a client of a server that serves it."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import pytest

from serving.client import RankingClient
from serving.server import ModelServer

CONTEXT = {"device": "tv", "hour": 20, "age": 31.5, "watch_history": ["v9", "v11"]}
CANDIDATES = [
    {"video_id": "v1", "duration": 30.0, "content": [2.0, 1.0], "tags": ["a"], "levels": [1]},
    {"video_id": "v22", "duration": 90.0, "content": [0.0, 1.0], "tags": [], "levels": [2, 3]},
    {"video_id": 333, "duration": None, "content": None, "tags": ["x", "yy", "zzz"], "levels": None},
]
NUMBERS = ("score", "click", "like")
REQUEST = {"context": CONTEXT, "candidates": CANDIDATES}


@contextlib.contextmanager
def serving(folder: pathlib.Path, **options) -> Iterator[RankingClient]:
    with (
        ModelServer(folder, port=0, poll_seconds=0.05) as server,
        RankingClient(f"127.0.0.1:{server.port}", **options) as client,
    ):
        yield client


def expected_ranking(scale: float = 1.0, weights=(1.0, 0.5)) -> list[dict]:
    """The formulas of `saved_models.Ranker` by hand."""
    once = len("tv") + 20 + len("v9" + "v11") + 31.5
    each = [2 + 1 + 1, 3 + 0 + 5, 3 + 6 - 2]  # letters of the id and of the tags, sum of the levels (-1 is padding)
    each[0] -= 1  # levels [1] is padded with -1 beside [2, 3]
    clicks = [scale * 0.30, scale * 0.90, scale * 0.005]
    likes = [0.3, 0.1, 0.1]
    rows = [
        {
            "video_id": candidate["video_id"],
            "score": click ** weights[0] * like ** weights[1] + 1e-4 * (own + once),
            "click": click,
            "like": like,
        }
        for candidate, click, like, own in zip(CANDIDATES, clicks, likes, each, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["score"])


def assert_ranking(result: dict, expected: list[dict]) -> None:
    assert list(result) == ["ranking"]
    assert [row["video_id"] for row in result["ranking"]] == [row["video_id"] for row in expected]
    for row, wanted in zip(result["ranking"], expected, strict=True):
        assert set(row) == set(wanted)
        assert list(map(row.get, NUMBERS)) == pytest.approx(list(map(wanted.get, NUMBERS)), rel=1e-5)

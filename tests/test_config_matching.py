"""What a training config may change of the one that the examples were built with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.config_matching import check_built_with
from mmoe_ranker.errors import InputError
from tests.configs import small_config

EXAMPLES = Path("examples")


def _changed(section: str, entry_name: str, changes: dict[str, Any]) -> Config:
    raw = small_config()
    next(entry for entry in raw[section] if entry["name"] == entry_name).update(changes)
    return parse_config(raw)


def test_widths_weights_and_omissions_are_free(config: Config) -> None:
    check_built_with(config, config, EXAMPLES)
    check_built_with(_changed("features", "video_id", {"dim": 3, "oov_buckets": 9}), config, EXAMPLES)
    check_built_with(_changed("features", "user_id", {"buckets": 7, "hashes": 2}), config, EXAMPLES)
    check_built_with(_changed("features", "video_id", {"oov_dropout": 0.1}), config, EXAMPLES)
    check_built_with(_changed("features", "watch_history", {"pooling": "attention"}), config, EXAMPLES)
    check_built_with(_changed("features", "content", {"projection": 4}), config, EXAMPLES)
    check_built_with(_changed("objectives", "like", {"loss_weight": 3.0, "family": "engagement"}), config, EXAMPLES)
    fewer = small_config()
    fewer["features"] = [entry for entry in fewer["features"] if entry["name"] != "content"]
    check_built_with(parse_config(fewer), config, EXAMPLES)


@pytest.mark.parametrize(
    ("section", "name", "changes", "message"),
    [
        ("features", "video_id", {"min_count": 3}, "`features.video_id.min_count` must be 2, .* Received: 3."),
        ("features", "duration", {"quantiles": 9}, "`features.duration.quantiles` must be 3, .* Received: 9."),
        ("features", "duration", {"transform": "none"}, "`features.duration.transform` must be 'log1p', .*'none'."),
        ("features", "watch_history", {"max_length": 6}, "`features.watch_history.max_length` must be 5, .* 6."),
        ("features", "position", {"size": 30}, "`features.position.size` must be 20, .* Received: 30."),
        ("features", "content", {"name": "topics"}, "`features.topics` must be one of user_id, .* Received: topics."),
        ("objectives", "like", {"event": "love"}, "`objectives.like.event` must be 'like', .* Received: 'love'."),
        ("objectives", "like", {"window": 9}, "`objectives.like.window` must be None, .* Received: 9.0."),
        ("objectives", "like", {"at_least": 2}, "`objectives.like.at_least` must be None, .* Received: 2.0."),
        (
            "objectives",
            "watch_time",
            {"aggregate": "last"},
            "`objectives.watch_time.aggregate` must be 'sum', .*'last'",
        ),
        ("objectives", "watch_time", {"given": None}, "`objectives.watch_time.given` must be 'click', .*: None."),
    ],
)
def test_what_was_built_otherwise_is_refused(
    config: Config, section: str, name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_built_with(_changed(section, name, changes), config, EXAMPLES)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"join": {"clock_skew": 2}}, "`join` must be clock_skew=0.0, .* Received: clock_skew=2.0."),
        ({"split": {"by": "user_id"}}, "`split` must be by=None .* Received: by='user_id' "),
    ],
)
def test_another_join_or_split_is_refused(config: Config, section: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_built_with(parse_config(small_config() | section), config, EXAMPLES)


def test_another_sampling_is_refused_and_another_correction_is_not(config: Config) -> None:
    sampled = {
        share: parse_config(small_config() | {"sampling": {"negatives": share, "correction": "weights"}})
        for share in (0.1, 0.2)
    }
    check_built_with(sampled[0.1], parse_config(small_config() | {"sampling": {"negatives": 0.1}}), EXAMPLES)
    for wanted, built, message in (
        (sampled[0.2], sampled[0.1], "must be 0.1, .* Received: 0.2"),
        (config, sampled[0.1], "must be 0.1, .* Received: None"),
        (sampled[0.2], config, "must be None, .* Received: 0.2"),
    ):
        with pytest.raises(InputError, match=rf"`sampling.negatives` {message}\.$"):
            check_built_with(wanted, built, EXAMPLES)


def test_another_item_key_is_refused(config: Config) -> None:
    other = parse_config(small_config() | {"item_key": "clip_id"})
    with pytest.raises(InputError, match=r"`item_key` must be video_id, .* Received: clip_id\."):
        check_built_with(other, config, EXAMPLES)

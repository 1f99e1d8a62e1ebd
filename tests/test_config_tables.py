"""The config of tables and histories: what is read, refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mmoe_ranker.config_loading import dump_config, load_config, override_config, parse_config
from mmoe_ranker.config_matching import check_built_with
from mmoe_ranker.config_tables import History, Table
from mmoe_ranker.errors import InputError
from tests.configs import asof_config


def test_read_defaulted_and_read_back() -> None:
    config = parse_config(asof_config())
    assert config.tables[0] == Table(name="users", key="user_id", timestamp="updated_at")
    assert config.feature("watch_history").history == History(event="watch", by="user_id", delay=0.0)  # type: ignore[union-attr]
    assert (config.feature("country").column, config.feature("duration").column) == (None, "seconds")
    assert [feature.name for feature in config.logged("context")] == ["user_id", "device"]
    assert [feature.name for feature in config.logged("candidate", "bias")] == ["video_id", "content", "position"]
    assert parse_config(yaml.safe_load(dump_config(config))) == config


@pytest.mark.parametrize(
    ("override", "path", "allowed", "received"),
    [
        ("tables.users={name: users, key: user_id}", "`tables.0.timestamp`", "must be given", "nothing"),
        (
            "split={by: device, validation: 0.1, test: 0.1}",
            "`features.7.history.by`",
            "must be 'device', as `split.by`",
            "'user_id'",
        ),
        ("tables.users.name=videos", "`tables.1.name`", "not used before by a table", "'videos'"),
        ("features.country.table=videos", "`tables.0.name`", "must be the `table` of a feature; used: vid", "'users'"),
        (
            "features.country.table=user",
            "`tables.0.name`",
            "must be the `table` of a feature; used: user, vi",
            "'users'",
        ),
        ("tables.users.key=country", "`tables.0.key`", "allowed: user_id, device, video_id", "'country'"),
        ("tables.users.key=position", "`tables.0.key`", "allowed: user_id, device, video_id", "'position'"),
        ("features.device.table=cities", "`features.1.table`", "an entry of `tables`; allowed: users, vid", "'cities'"),
        ("features.device.table=videos", "`features.1.side`", "must be candidate, as for `video_id`", "'context'"),
        ("features.content.table=users", "`features.3.side`", "must be context, as for `user_id`", "'candidate'"),
        ("features.position.table=users", "`features.4.side`", "must be context, as for `user_id`", "'bias'"),
        ("features.video_id.table=videos", "`features.2.table`", "must be null for the item key", "'videos'"),
        ("features.device.column=form", "`features.1`", "takes `column` only with `table`", "form"),
        ("features.watch_history.table=users", "`features.7`", "takes `history` or `table`, not both", "users"),
        ("features.watch_history.side=candidate", "`features.7.side`", "must be context", "'candidate'"),
        ("features.watch_history.history.by=country", "`features.7.history.by`", "allowed: user_id, dev", "'country'"),
        ("features.watch_history.history.by=video_id", "`features.7.history.by`", "allowed: user_id", "'video_id'"),
        ("features.watch_history.history.event=skip", "`features.7.history.event`", "allowed: click, watch", "'skip'"),
        ("features.watch_history.history.delay=-1", "`features.7.history.delay`", "greater than or equal to 0", "-1"),
        ("features.watch_history.embedding=user_id", "`features.7.embedding`", "must be 'video_id'", "'user_id'"),
        ("features.duration.history={}", "`features.6.history`", "is not a key here", "'history'"),
    ],
)
def test_refusals(tmp_path: Path, override: str, path: str, allowed: str, received: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(asof_config()), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_config(file, [override])
    message = str(error.value)
    assert path in message
    assert allowed in message
    assert message.endswith(f"Received: {received}.")


def test_a_history_of_integers_has_the_item_keys_table() -> None:
    raw = asof_config()
    raw["features"][-1] = {**raw["features"][-1], "embedding": None, "size": 9}
    with pytest.raises(InputError, match=r"`features.8.size` must be null where the sequence has a `history`.* 9\."):
        parse_config(raw)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"tables.users.timestamp": None}, "`tables.users.timestamp` must be 'updated_at', .* Received: None."),
        ({"tables.users.key": "device"}, "`tables.users.key` must be 'user_id', .* Received: 'device'."),
        ({"features.country.column": "land"}, "`features.country.column` must be None, .* Received: 'land'."),
        ({"features.like_history.history.delay": 0.0}, "`features.like_history.history` must be .* Received: "),
    ],
)
def test_examples_that_were_built_otherwise_are_refused(overrides: dict[str, object], message: str) -> None:
    built = parse_config(asof_config())
    check_built_with(built, built, Path("examples"))
    with pytest.raises(InputError, match=message):
        check_built_with(override_config(built, overrides), built, Path("examples"))

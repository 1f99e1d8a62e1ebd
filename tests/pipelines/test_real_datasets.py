"""The converted public data sets against their raw tables: counts, rates, and popularity that leaks nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmoe_ranker.config_loading import load_config, parse_config
from pipelines.checking.job import run as run_check
from pipelines.datasets import DATASETS, clara2
from pipelines.impressions import run


def _converted(name: str, raw: Path, out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    DATASETS[name].convert(raw, out)
    return pd.read_parquet(out / "impressions.parquet"), pd.read_parquet(out / "feedback.parquet")


REAL = {"kuairand": "log.parquet", "trivago": "impressions.parquet", "clara2": "impressions.parquet"}
# Event to raw column.
LABELS = {
    "kuairand": {"click": "is_click", "long_view": "long_view", "like": "is_like", "profile_enter": "is_profile_enter"},
    "trivago": {"click": "clicked", "last_click": "last_click"},
    "clara2": {"click": "clicked", "last_click": "last_click_serp", "session_last_click": "last_click_session"},
}


@pytest.fixture(scope="module", params=sorted(REAL))
def real(
    request: pytest.FixtureRequest, data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Name, raw impressions, converted impressions, converted feedback."""
    name = request.param
    if not (data_folder / name).is_dir():
        pytest.skip(f"no raw folder {data_folder / name}")
    raw = pd.read_parquet(data_folder / name / REAL[name])
    return name, raw, *_converted(name, data_folder / name, tmp_path_factory.mktemp(name) / "out")


@pytest.mark.slow
def test_real_counts_and_rates_equal_the_raw_ones(real: tuple[str, pd.DataFrame, pd.DataFrame, pd.DataFrame]) -> None:
    name, raw, impressions, feedback = real
    key = load_config(name).item_key
    assert len(impressions) == len(raw)
    assert not impressions.duplicated(["request_id", key]).any()
    assert not feedback.duplicated(["request_id", "item_id", "event"]).any()
    for event, column in LABELS[name].items():
        assert (feedback["event"] == event).sum() == (raw[column] == 1).sum()
    if "position" in raw:
        impressions = impressions.assign(item_id=impressions[key].astype(str))
        clicks = feedback[feedback["event"] == "click"].assign(clicked=1)[["request_id", "item_id", "clicked"]]
        joined = impressions.merge(clicks, on=["request_id", "item_id"], how="left").fillna({"clicked": 0})
        pd.testing.assert_series_equal(
            joined.groupby("position")["clicked"].mean(),
            raw.groupby("position")["clicked"].mean(),
            check_index_type=False,
            check_dtype=False,
        )


def _seconds(name: str, raw: pd.DataFrame) -> pd.Series:
    """Each raw row's time in UTC seconds."""
    if name == "clara2":
        # The converter's arbitrary first day.
        return raw["t_ms"] / 1e3 + pd.Timestamp("2020-01-01", tz="UTC").timestamp()
    return raw["time_ms"] / 1e3 if name == "kuairand" else raw["timestamp"].astype(float)


def _request_seconds(name: str, raw: pd.DataFrame) -> pd.Series:
    """The time of each raw row's request: of KuaiRand the start of a sitting, else the row's own."""
    seconds = _seconds(name, raw)
    if name != "kuairand":
        return seconds
    sorted_rows = raw.assign(seconds=seconds).sort_values("seconds", kind="stable")
    gap = sorted_rows.groupby(["user_id", "tab"])["seconds"].diff()
    sitting = (gap > 1800).groupby([sorted_rows["user_id"], sorted_rows["tab"]]).cumsum()
    by = [sorted_rows["user_id"], sorted_rows["tab"], sitting]
    return sorted_rows.groupby(by)["seconds"].transform("first").reindex(raw.index)


def _raw_labels(name: str, raw: pd.DataFrame) -> pd.DataFrame:
    """Labels by objective, straight from the raw columns; NaN where there is none."""
    labels = {objective: (raw[column] == 1).astype(float) for objective, column in LABELS[name].items()}
    if name == "kuairand":
        labels["watch_time"] = (raw["play_time_ms"] / 1e3).where((raw["is_click"] == 1) & (raw["play_time_ms"] > 0))
    if name == "clara2":
        labels["dwell"] = (raw["dwell_ms"] / 1e3).where((raw["clicked"] == 1) & (raw["dwell_ms"] >= 0))
    return pd.DataFrame(labels)


def _assert_rates(reported: dict[str, Any], labels: pd.DataFrame) -> None:
    for objective, rate in reported.items():
        assert rate["labelled"] == labels[objective].count(), objective
        expected = None if not rate["labelled"] else pytest.approx(labels[objective].mean(), rel=1e-6)
        assert rate["mean"] == expected, objective


@pytest.mark.slow
def test_the_summary_of_the_job_equals_the_raw_tables(
    real: tuple[str, pd.DataFrame, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    name, raw, impressions, feedback = real
    impressions.to_parquet(tmp_path / "impressions.parquet")
    feedback.to_parquet(tmp_path / "feedback.parquet")
    config = load_config(name)
    logs = str(tmp_path / "impressions.parquet"), str(tmp_path / "feedback.parquet")
    summary = run(config, *logs, str(tmp_path / "out"))
    labels = _raw_labels(name, raw)
    shown, said = summary["impressions"], summary["feedback"]
    assert (shown["examples"], shown["read"], shown["duplicates"], shown["dead_letters"]) == (len(raw), len(raw), 0, 0)
    _assert_rates(summary["objectives"], labels)
    assert set(summary["objectives"]) <= set(labels)
    # Each of these events is one raw cell; of those that name no impression, come early or late there is none.
    named = {objective.event for objective in config.objectives} & set(LABELS[name])
    assert {event: said["by_event"]["joined"][event] for event in named} == {
        event: int((raw[LABELS[name][event]] == 1).sum()) for event in named
    }
    assert (said["orphans"], said["early"], said["late"], said["duplicates"], said["dead_letters"]) == (0, 0, 0, 0, 0)
    assert shown["reconciled"]
    assert said["reconciled"]

    seconds = _request_seconds(name, raw)
    start = config.split.test_start.timestamp()
    for split, inside in (("train", seconds < start), ("test", seconds >= start)):
        assert summary["splits"][split]["examples"] == inside.sum() > 0
        _assert_rates(summary["splits"][split]["objectives"], labels[inside])
    assert summary["splits"]["validation"]["examples"] == 0

    assert summary["slices"]
    for names, rows in summary["slices"].items():
        grouped = labels.groupby([raw[column] for column in names.split(" x ")])
        expected = {key if isinstance(key, tuple) else (key,): frame for key, frame in grouped}
        assert {tuple(row[column] for column in names.split(" x ")) for row in rows} == {
            tuple(
                str(value) if column in ("device", "tab") else value
                for column, value in zip(names.split(" x "), key, strict=True)
            )
            for key in expected
        }
        for row in rows:
            key = tuple(int(row[c]) if c in ("position", "tab") else row[c] for c in names.split(" x "))
            assert row["impressions"] == len(expected[key])
            _assert_rates(row["objectives"], expected[key])


# A few of the features, of every kind that the set has: what is looked at is the set, not each column.
LOOKED_AT = {
    "kuairand": ("tab", "video_id", "watch_history", "duration", "user_like_rate", "tag"),
    "trivago": ("device", "price", "previous_click", "popularity_clicks", "position"),
    "clara2": ("query_click_rate", "pair_click_rate", "pair_shown_rank", "position"),
}


@pytest.mark.slow
def test_check_says_of_real_logs_what_their_rows_do(
    real: tuple[str, pd.DataFrame, pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    name, raw, impressions, feedback = real
    document = load_config(name).model_dump(mode="json", exclude_unset=True)
    document["features"] = [one for one in document["features"] if one["name"] in LOOKED_AT[name]]
    document["evaluation"] = {}
    impressions.to_parquet(tmp_path / "impressions.parquet")
    feedback.to_parquet(tmp_path / "feedback.parquet")
    config = parse_config(document)
    report = run_check(config, str(tmp_path / "impressions.parquet"), str(tmp_path / "feedback.parquet"))
    assert not [one for one in report.findings if one.severity == "error"], report.findings
    figures, codes = report.figures, {one.code for one in report.findings}
    splits = figures["splits"].values()
    assert sum(split["impressions"] for split in splits) == len(raw)
    clicks = sum(split["positives"] for split in figures["objectives"]["click"]["splits"].values())
    assert clicks == (raw[LABELS[name]["click"]] == 1).sum()
    found = figures["identifiability"]
    if name == "kuairand":
        assert "position_absent" in codes
        assert found["impressions"] == 0
        return
    rates = {int(row["position"]): row["rates"]["click"] for row in figures["positions"]["position"]}
    assert rates == pytest.approx(raw.groupby("position")["clicked"].mean().to_dict())
    # The same items stand at several positions: the bias can be identified.
    assert "bias_not_identifiable" not in codes
    assert found["connected"] == 1.0
    places = impressions.groupby(config.item_key)["position"].transform("nunique")
    assert found["at_several_positions"] == pytest.approx((places > 1).mean())


# The columns that count what others did; they must know neither the future nor the asking user.
POPULARITY = {"kuairand": ("video_", "tag_"), "trivago": ("popularity_",), "clara2": ("pair_", "url_", "query_")}
USER = {"kuairand": "user_id", "trivago": "user_id", "clara2": "session_id"}
TIME = {"kuairand": "time_ms", "trivago": "timestamp", "clara2": "t_ms"}


@pytest.mark.slow
def test_real_popularity_knows_neither_future_nor_own_user(
    real: tuple[str, pd.DataFrame, pd.DataFrame, pd.DataFrame], data_folder: Path, tmp_path: Path
) -> None:
    name, raw, impressions, _ = real
    key, user = load_config(name).item_key, USER[name]
    # The last request, within the first four fifths, of the user who has the most impressions there.
    early = impressions.iloc[: int(len(impressions) * 0.8)]
    asking = early[early[user] == early[user].mode().iloc[0]].iloc[-1]
    until = asking["timestamp"]
    seconds = raw[TIME[name]] * (1 if name == "trivago" else 1e-3) + (clara2.EPOCH_SECONDS if name == "clara2" else 0)
    own, now = raw[user].astype(str) == str(asking[user]), (seconds - until).abs() < 1e-6
    # The request itself stays: what is relative to the list needs the list.
    keep = ((seconds < until) & ~own) | (own & now)
    assert (own & (seconds < until)).any()
    assert (seconds > until).any()
    folder = tmp_path / "raw"
    folder.mkdir()
    for file in DATASETS[name].files:
        frame = raw[keep] if file == REAL[name] else pd.read_parquet(data_folder / name / file)
        frame.to_parquet(folder / file)
    again, _ = _converted(name, folder, tmp_path / "out")
    columns = [column for column in impressions if column.startswith(POPULARITY[name])]
    # The item's own columns, and the user's own history with a tag, are no popularity.
    columns = [c for c in columns if pd.api.types.is_float_dtype(impressions[c]) and not c.startswith("tag_history")]
    assert len(columns) > 5

    def rows(frame: pd.DataFrame) -> pd.DataFrame:
        mine = frame[(frame[user] == asking[user]) & ((frame["timestamp"] - until).abs() < 1e-6)]
        return mine.set_index(["request_id", key])[columns].sort_index()

    after, before = rows(again), rows(impressions)
    assert len(after) >= 1
    assert (after.to_numpy() > 0).any()
    np.testing.assert_allclose(after, before.loc[after.index], rtol=1e-9, atol=1e-9)

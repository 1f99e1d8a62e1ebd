"""The converted public data sets against their raw tables: counts, rates, and popularity that leaks nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmoe_ranker.config_loading import load_config
from pipelines.datasets import DATASETS, clara2


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

"""CLARA2 (NAVER beta search log): pages of 10 results with clicks and dwell times, to logs.

A page is a request. There are no user features; what a ranker may know is the query, the result, what other sessions
did with either before, and what this session saw. Nothing is made of the position of the impression itself; what is
relative to the page is relative by popularity, ties in the middle of their ranks. Popularity leaves out the asking
session and counts pages of an hour ago and earlier. The raw clock starts at 0; here it starts at 2020-01-01, an
arbitrary day.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.datasets.asof import codes, shrunk, sums_before, sums_before_of_others
from pipelines.datasets.log_writing import feedback_rows, one_item_a_request, read_raw, write_logs

FILES: dict[str, tuple[str, ...]] = {
    "impressions.parquet": (
        *("serp_id", "session_id", "t_ms", "query_id", "position", "url_id"),
        *("clicked", "last_click_serp", "last_click_session", "dwell_ms"),
    )
}
EPOCH_SECONDS = 1_577_836_800.0  # 2020-01-01T00:00:00Z.
# Clicks come minutes after their page, and that one was the last, or how long a visit took, is known later still.
_KNOWN_AFTER_SECONDS = 3600.0


def convert(raw_folder: Path, out: Path) -> None:
    """Writes the logs.

    Args:
      raw_folder: holds `impressions.parquet`.
      out: new folder for `impressions.parquet` (one row an impression; item key `url_id`) and `feedback.parquet`
        (events click, last_click of the page, session_last_click, and dwell in seconds where it is known).

    Raises:
      InputError: a raw table is missing or of other columns, or `out` holds something.
    """
    raw = read_raw(raw_folder, "impressions.parquet", FILES["impressions.parquet"])
    raw = raw.sort_values(["t_ms", "serp_id", "position"], kind="stable").reset_index(drop=True)
    time = EPOCH_SECONDS + raw["t_ms"].to_numpy(np.float64) / 1e3
    impressions = pd.DataFrame(
        {
            "request_id": one_item_a_request("page" + raw["serp_id"].astype(str), raw["url_id"]),
            "timestamp": time,
            "position": raw["position"].astype(np.int64),
            "session_id": raw["session_id"].astype(np.int64),
            "query_id": raw["query_id"].astype(np.int64),
            "url_id": raw["url_id"].astype(np.int64),
            "query_url": raw["query_id"].astype(str) + "_" + raw["url_id"].astype(str),
        }
    )
    features = {**_popularity(raw, time), **_session(raw, time)}
    impressions = pd.concat([impressions, pd.DataFrame(features)], axis=1)
    dwell = raw["dwell_ms"].to_numpy(np.float64)
    events = {
        "click": (raw["clicked"] == 1, None),
        "last_click": (raw["last_click_serp"] == 1, None),
        "session_last_click": (raw["last_click_session"] == 1, None),
        # -1: not clicked; -2: clicked last, so that nobody knows when the user left.
        "dwell": ((raw["clicked"] == 1) & (dwell >= 0), dwell / 1e3),
    }
    write_logs(impressions, feedback_rows(impressions, "url_id", events, time), out)


def _popularity(raw: pd.DataFrame, time: np.ndarray) -> dict[str, np.ndarray]:
    """What other sessions did earlier with the pair of query and result, with the result, and with the query."""
    sessions, pages = codes(raw["session_id"]), raw["serp_id"]
    dwelt = (raw["dwell_ms"].to_numpy() >= 0).astype(np.float64)
    log_dwell = np.log1p(raw["dwell_ms"].clip(lower=0).to_numpy(np.float64) / 1e3) * dwelt
    # Clicks expected of a place, if examination fell with 1 / position: a click far down says more.
    expected = 1.0 / raw["position"].to_numpy(np.float64)
    columns = [np.ones(len(raw)), raw["clicked"], raw["last_click_serp"], dwelt, log_dwell, expected]
    events = np.stack(columns, axis=1).astype(np.float64)
    features: dict[str, np.ndarray] = {}
    keys = {"pair": ("query_id", "url_id"), "url": ("url_id",), "query": ("query_id",)}
    for name, key in keys.items():
        key_codes = codes(*(raw[column] for column in key))
        weight = 20.0 if name == "query" else 5.0
        shown, clicks, last, dwells, logs, examined = sums_before_of_others(
            key_codes, sessions, time + _KNOWN_AFTER_SECONDS, events, time
        ).T
        features[f"{name}_shown"] = np.maximum(shown, 0.0)
        features[f"{name}_click_rate"] = shrunk(clicks, shown, 0.03, weight)
        features[f"{name}_last_click_rate"] = shrunk(last, shown, 0.025, weight)
        features[f"{name}_dwell"] = shrunk(logs, dwells, 3.3, 1.0)
        features[f"{name}_clicks_per_examined"] = shrunk(clicks, examined, 0.1, weight / 5)
        if name == "query":
            continue
        for part in ("shown", "click_rate", "clicks_per_examined"):
            values = pd.Series(features[f"{name}_{part}"].round(9))
            of_page = values.groupby(pages)
            features[f"{name}_{part}_rank"] = of_page.rank(method="average", pct=True).to_numpy()
            features[f"{name}_{part}_share"] = (values / of_page.transform("sum").clip(lower=1e-6)).to_numpy()
    return features


def _session(raw: pd.DataFrame, time: np.ndarray) -> dict[str, np.ndarray]:
    """What this session saw and clicked on its earlier pages."""
    events = np.stack([np.ones(len(raw)), raw["clicked"]], axis=1).astype(np.float64)
    session = raw["session_id"]
    shown, clicked = sums_before(codes(session, raw["url_id"]), time, events, time).T
    rows, clicks = sums_before(codes(session), time, events, time).T
    query_rows, query_clicks = sums_before(codes(session, raw["query_id"]), time, events, time).T
    return {
        "session_shown": shown,
        "session_clicked": clicked,
        "session_pages": rows / 10.0,
        "session_clicks": clicks,
        "session_query_pages": query_rows / 10.0,
        "session_query_clicks": query_clicks,
    }

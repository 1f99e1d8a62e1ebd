"""trivago (RecSys Challenge 2019 sample): lists of up to 25 hotels, one click each, to logs.

A list is a request. What a ranker may know when it is asked: device, platform and city; the candidates' prices, among
themselves too; the session's earlier actions on each candidate; what other users clicked earlier. Nothing is made of
the position of the impression itself: what is relative to the list is relative by price or by popularity, ties in the
middle of their ranks. Popularity leaves out the asking user and counts earlier lists only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.datasets.asof import codes, shrunk, sums_before, sums_before_of_others
from pipelines.datasets.log_writing import feedback_rows, one_item_a_request, read_raw, write_logs

_ACTIONS = ("image", "info", "rating", "deals", "click", "search")
FILES: dict[str, tuple[str, ...]] = {
    "impressions.parquet": (
        *("list_id", "user_id", "session_id", "timestamp", "step", "device", "platform", "city", "n_filters"),
        *("position", "list_len", "item_id", "price", "clicked", "last_click"),
        *(f"prev_{action}" for action in _ACTIONS),
    )
}
# Round figures that rates of little evidence are drawn to: one click in 25 places.
_CLICK_RATE, _WEIGHT = 0.04, 10.0


def convert(raw_folder: Path, out: Path) -> None:
    """Writes the logs.

    Args:
      raw_folder: holds `impressions.parquet`.
      out: new folder for `impressions.parquet` (one row an impression; item key `hotel_id`) and `feedback.parquet`
        (events click, last_click).

    Raises:
      InputError: a raw table is missing or of other columns, or `out` holds something.
    """
    raw = read_raw(raw_folder, "impressions.parquet", FILES["impressions.parquet"])
    raw = raw.sort_values(["timestamp", "list_id", "position"], kind="stable").reset_index(drop=True)
    impressions = pd.DataFrame(
        {
            "request_id": one_item_a_request("list" + raw["list_id"].astype(str), raw["item_id"]),
            "timestamp": raw["timestamp"].astype(np.float64),
            "position": raw["position"].astype(np.int64),
            "user_id": raw["user_id"].astype(str),
            "session_id": raw["session_id"].astype(str),
            "device": raw["device"].astype(str),
            "platform": raw["platform"].astype(str),
            "city": raw["city"].astype(str),
            "hour": raw["timestamp"] // 3600 % 24,
            "num_filters": raw["n_filters"].astype(np.int64),
            "session_step": raw["step"].astype(np.int64),
            "num_candidates": raw["list_len"].astype(np.int64),
            "hotel_id": raw["item_id"].astype(np.int64),
        }
    )
    features = {**_prices(raw), **_earlier_actions(raw), **_popularity(raw), **_session(raw)}
    impressions = pd.concat([impressions, pd.DataFrame(features)], axis=1)
    events = {"click": (raw["clicked"] == 1, None), "last_click": (raw["last_click"] == 1, None)}
    feedback = feedback_rows(impressions, "hotel_id", events, impressions["timestamp"].to_numpy())
    write_logs(impressions, feedback, out)


def _prices(raw: pd.DataFrame) -> dict[str, np.ndarray]:
    """The price and how it stands among the list's candidates."""
    logs = np.log(raw["price"].astype(np.float64).clip(lower=1.0))
    lists = logs.groupby(raw["list_id"])
    return {
        "price": raw["price"].to_numpy(np.float64),
        "price_rank": lists.rank(method="average", pct=True).to_numpy(),
        "price_over_cheapest": (logs - lists.transform("min")).to_numpy(),
        "price_over_median": (logs - lists.transform("median")).to_numpy(),
        # A list of one candidate has no spread; 0.1 (a tenth of the price) keeps near-equal prices near 0.
        "price_deviation": ((logs - lists.transform("mean")) / (lists.transform("std").fillna(0.0) + 0.1)).to_numpy(),
    }


def _earlier_actions(raw: pd.DataFrame) -> dict[str, np.ndarray]:
    """Earlier actions of the session on the candidate, and its share of those on all candidates."""
    counts = {action: raw[f"prev_{action}"].astype(np.float64) for action in _ACTIONS}
    counts["action"] = sum(counts.values(), start=pd.Series(0.0, index=raw.index))
    features: dict[str, np.ndarray] = {}
    for action, count in counts.items():
        of_list = count.groupby(raw["list_id"]).transform("sum")
        features[f"previous_{action}"] = count.to_numpy()
        features[f"previous_{action}_share"] = (count / of_list.clip(lower=1.0)).to_numpy()
    return features


def _popularity(raw: pd.DataFrame) -> dict[str, np.ndarray]:
    """What other users did with the hotel in earlier lists."""
    time = raw["timestamp"].to_numpy(np.float64)
    users, lists = codes(raw["user_id"]), raw["list_id"]
    # Clicks expected of a place, if examination fell with 1 / position: a click far down says more.
    expected = 1.0 / raw["position"].to_numpy(np.float64)
    # Not `last_click`: that a click was the last is known only when its session is over.
    events = np.stack([np.ones(len(raw)), raw["clicked"], expected], axis=1).astype(np.float64)
    shown, clicks, examined = sums_before_of_others(codes(raw["item_id"]), users, time, events, time).T
    features = {
        "popularity_shown": np.maximum(shown, 0.0),
        "popularity_clicks": np.maximum(clicks, 0.0),
        "popularity_click_rate": shrunk(clicks, shown, _CLICK_RATE, _WEIGHT),
        "popularity_clicks_per_examined": shrunk(clicks, examined, 0.3, 1.0),
    }
    of_list = pd.Series(features["popularity_clicks"]).groupby(lists).transform("sum").clip(lower=1.0).to_numpy()
    features["popularity_share"] = features["popularity_clicks"] / of_list
    for name in ("shown", "clicks", "click_rate", "clicks_per_examined"):
        ranks = pd.Series(features[f"popularity_{name}"].round(9)).groupby(lists).rank(method="average", pct=True)
        features[f"popularity_{name}_rank"] = ranks.to_numpy()
    return features


def _session(raw: pd.DataFrame) -> dict[str, np.ndarray]:
    """What the session saw and clicked in its earlier lists; its last click compared with the candidate."""
    time, session = raw["timestamp"].to_numpy(np.float64), raw["session_id"]
    events = np.stack([np.ones(len(raw)), raw["clicked"]], axis=1).astype(np.float64)
    shown, clicked = sums_before(codes(session, raw["item_id"]), time, events, time).T
    _, lists = sums_before(codes(session), time, events, time).T
    # One click a moment: the later row of two lists of one session at one time, which merge_asof takes as well.
    clicks = raw.loc[raw["clicked"] == 1, ["session_id", "timestamp", "item_id", "price"]]
    clicks = clicks.rename(columns={"item_id": "last_item", "price": "last_price"})
    asking = raw[["session_id", "timestamp"]]
    last = pd.merge_asof(asking, clicks, on="timestamp", by="session_id", allow_exact_matches=False)
    ratio = np.log(raw["price"].clip(lower=1.0) / last["last_price"].clip(lower=1.0))
    return {
        "session_lists": lists,
        "session_shown": shown,
        "session_clicked": clicked,
        "is_last_clicked": (last["last_item"] == raw["item_id"]).to_numpy(np.float64),
        "price_over_last_clicked": ratio.to_numpy(np.float64),
    }

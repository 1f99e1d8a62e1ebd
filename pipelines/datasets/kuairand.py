"""KuaiRand-Pure (standard log, 25 April to 5 May 2022) to logs: short videos with several kinds of feedback.

The data has no requests. Here a request is what one user saw on one surface (`tab`) without a break of half an hour,
and its time is that of its first impression, so that its context is the same for all its impressions. What a ranker may
know when it is asked: the tables of users and videos; each user's histories from before the log; and what the log
itself showed until an hour before the request. A video's rates leave out the asking user. The age of a video is left
out, because all were uploaded within three days and it would act as a clock.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.datasets.asof import codes, shrunk, sums_before, sums_before_of_others
from pipelines.datasets.log_writing import feedback_rows, one_item_a_request, read_raw, write_logs

_EVENTS = {
    "click": "is_click",
    "long_view": "long_view",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "hate": "is_hate",
    "profile_enter": "is_profile_enter",
}
_USER_NUMBERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_USER_CATEGORIES = (
    *("user_active_degree", "is_live_streamer", "is_video_author"),
    *(f"onehot_feat{number}" for number in range(18)),
)
# Column of the raw histories to the feature that lists it, oldest first.
_HISTORIES = {"watch_seq": "watch_history", "long_watch_seq": "long_watch_history", "like_seq": "like_history"}
FILES: dict[str, tuple[str, ...]] = {
    "log.parquet": (
        "user_id",
        "video_id",
        "time_ms",
        "tab",
        "is_rand",
        "play_time_ms",
        "duration_ms",
        *_EVENTS.values(),
    ),
    "user_histories.parquet": ("user_id", "history_len", *_HISTORIES),
    "users.parquet": ("user_id", *_USER_NUMBERS, *_USER_CATEGORIES),
    "videos.parquet": ("video_id", "author_id", "video_type", "upload_type", "music_type", "tag"),
}
_BREAK_SECONDS = 1800.0
_KNOWN_AFTER_SECONDS = 3600.0
_BEIJING_SECONDS = 8 * 3600
# Round figures that rates of little evidence are drawn to; `play` is log(1 + seconds).
_PRIORS = {"click": 0.45, "long_view": 0.32, "like": 0.02, "profile_enter": 0.02, "play": 1.7}


def convert(raw_folder: Path, out: Path) -> None:
    """Writes the logs.

    Args:
      raw_folder: holds `log`, `user_histories`, `users` and `videos`, each `.parquet`.
      out: new folder for `impressions.parquet` (one row an impression; item key `video_id`) and `feedback.parquet`
        (events click, long_view, like, follow, comment, forward, hate, profile_enter, and watch in seconds).

    Raises:
      InputError: a raw table is missing or of other columns, or `out` holds something.
    """
    tables = {file: read_raw(raw_folder, file, columns) for file, columns in FILES.items()}
    log = tables["log.parquet"].sort_values(["time_ms", "user_id", "video_id"], kind="stable").reset_index(drop=True)
    request_id, asked = _requests(log)
    users = log[["user_id"]].merge(tables["users.parquet"], on="user_id", how="left", validate="many_to_one")
    videos = _videos(log, tables["videos.parquet"])
    impressions = pd.DataFrame({"request_id": request_id, "timestamp": asked, "user_id": log["user_id"]})
    impressions["random_order"] = log["is_rand"].astype(bool)
    impressions["tab"] = log["tab"]
    impressions["hour"] = ((asked + _BEIJING_SECONDS) // 3600 % 24).astype(np.int64)
    parts = [
        impressions,
        # Int64 keeps a category an integer where another row has none.
        users[list(_USER_CATEGORIES)].convert_dtypes(convert_string=False),
        users[list(_USER_NUMBERS)],
        videos,
        pd.DataFrame(_histories(log, tables["user_histories.parquet"], tables["videos.parquet"])),
        pd.DataFrame(_rates(log, asked, videos["tag"])),
    ]
    time = log["time_ms"].to_numpy(np.float64) / 1e3
    seconds = log["play_time_ms"].to_numpy(np.float64) / 1e3
    events: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        event: (log[column].to_numpy() == 1, None) for event, column in _EVENTS.items()
    }
    events["watch"] = (seconds > 0, seconds)
    write_logs(
        pd.concat(parts, axis=1), feedback_rows(videos.assign(request_id=request_id), "video_id", events, time), out
    )


def _requests(log: pd.DataFrame) -> tuple[pd.Series, np.ndarray]:
    """Request ids, and each request's time in UTC seconds."""
    time = log["time_ms"].to_numpy(np.float64) / 1e3
    surface = codes(log["user_id"], log["tab"])
    order = np.lexsort((time, surface))
    starts = np.ones(len(log), dtype=bool)
    starts[1:] = (np.diff(surface[order]) != 0) | (np.diff(time[order]) > _BREAK_SECONDS)
    first = np.maximum.accumulate(np.where(starts, np.arange(len(log)), 0))
    asked = np.empty(len(log))
    asked[order] = time[order][first]
    milliseconds = pd.Series(np.rint(asked * 1e3).astype(np.int64)).astype(str)
    request_id = "user" + log["user_id"].astype(str) + "-tab" + log["tab"].astype(str) + "-" + milliseconds
    return one_item_a_request(request_id, log["video_id"]), asked


def _videos(log: pd.DataFrame, videos: pd.DataFrame) -> pd.DataFrame:
    """The video's own features; the tag is the first of its tags."""
    joined = log[["video_id"]].merge(videos, on="video_id", how="left", validate="many_to_one")
    # A duration of 0 means that nobody wrote it down.
    joined["duration"] = np.where(log["duration_ms"] > 0, log["duration_ms"] / 1e3, np.nan)
    joined["music_type"] = joined["music_type"].astype("Int64")
    joined["tags"] = joined["tag"].str.split(",")
    joined["tag"] = joined["tags"].str[0]
    return joined


def _histories(log: pd.DataFrame, histories: pd.DataFrame, videos: pd.DataFrame) -> dict[str, object]:
    """The histories from before the log, and what they say of the user, of the video, and of the two."""
    listed = log[["user_id"]].merge(histories, on="user_id", how="left", validate="many_to_one")
    features: dict[str, object] = {name: listed[column] for column, name in _HISTORIES.items()}
    tags = videos.set_index("video_id")["tag"].str.split(",").str[0]
    tag = log["video_id"].map(tags)
    of_user: dict[str, np.ndarray] = {}
    of_video: dict[str, np.ndarray] = {}
    of_tag: dict[str, np.ndarray] = {}
    for column in _HISTORIES:
        seen = histories[["user_id", column]].rename(columns={column: "video_id"}).explode("video_id").dropna()
        seen = seen.astype({"video_id": np.int64})
        seen["tag"] = seen["video_id"].map(tags)
        of_user[column] = _counts(log[["user_id"]], seen)
        own = _counts(log[["user_id", "video_id"]], seen)
        of_video[column] = _counts(log[["video_id"]], seen) - own
        of_tag[column] = _counts(log[["user_id"]].assign(tag=tag), seen)
    total = listed["history_len"].fillna(0).to_numpy(np.float64)
    watched, long_watched, liked = (of_user[column] for column in _HISTORIES)
    features["history_length"] = total
    # The lists are cut at 50, `total` is not: the share over `total` tells how often, that over the list how recently.
    features["history_long_watch_share"] = shrunk(long_watched, total, 1 / 3, 3.0)
    features["history_recent_long_watch_share"] = shrunk(long_watched, watched, 1 / 3, 3.0)
    features["history_like_share"] = shrunk(liked, total, 0.02, 3.0)
    features["history_likes"] = liked
    features["video_history_watches"] = of_video["watch_seq"]
    features["video_history_long_watch_share"] = shrunk(of_video["long_watch_seq"], of_video["watch_seq"], 0.3, 20.0)
    features["video_history_like_share"] = shrunk(of_video["like_seq"], of_video["watch_seq"], 0.02, 20.0)
    features["tag_history_share"] = of_tag["watch_seq"] / (watched + 1.0)
    recent = np.asarray(features["history_recent_long_watch_share"])
    features["tag_history_long_watch_share"] = (of_tag["long_watch_seq"] + 3.0 * recent) / (of_tag["watch_seq"] + 3.0)
    features["tag_history_likes"] = of_tag["like_seq"]
    return features


def _counts(rows: pd.DataFrame, seen: pd.DataFrame) -> np.ndarray:
    """How many rows of `seen` agree with each of `rows` in all its columns."""
    keys = list(rows.columns)
    sizes = seen.groupby(keys).size().rename("count").reset_index()
    return rows.merge(sizes, on=keys, how="left")["count"].fillna(0.0).to_numpy(np.float64)


def _rates(log: pd.DataFrame, asked: np.ndarray, tag: pd.Series) -> dict[str, np.ndarray]:
    """Rates of feedback in the log until an hour before the request: of user, video and tag, each on this tab too."""
    known = log["time_ms"].to_numpy(np.float64) / 1e3 + _KNOWN_AFTER_SECONDS
    columns = [log[_EVENTS[event]] if event in _EVENTS else np.log1p(log["play_time_ms"] / 1e3) for event in _PRIORS]
    values = np.stack([np.ones(len(log)), *columns], axis=1).astype(np.float64)
    users, videos, tabs = codes(log["user_id"]), codes(log["video_id"]), log["tab"]
    own = {"user": users, "user_tab": codes(users, tabs), "user_tag": codes(users, tag)}
    others = {"video": videos, "video_tab": codes(videos, tabs), "tag": codes(tag), "tag_tab": codes(tag, tabs)}
    features: dict[str, np.ndarray] = {}
    for name, keys in (own | others).items():
        if name in own:
            sums, weight = sums_before(keys, known, values, asked), 3.0
        else:
            sums, weight = sums_before_of_others(keys, users, known, values, asked), 20.0
        features[f"{name}_impressions"] = np.maximum(sums[:, 0], 0.0)
        for place, (event, prior) in enumerate(_PRIORS.items(), start=1):
            features[f"{name}_{event}_rate"] = shrunk(sums[:, place], sums[:, 0], prior, weight)
    return features

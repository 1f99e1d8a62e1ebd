"""Converters of public data sets: literal rows from tiny raw folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmoe_ranker.config_loading import load_config
from mmoe_ranker.errors import InputError
from pipelines.datasets import DATASETS, clara2, detect, kuairand, trivago
from pipelines.datasets.asof import codes, shrunk, sums_before, sums_before_of_others
from pipelines.datasets.log_writing import one_item_a_request, write_logs

HOUR = 3_600_000  # Milliseconds.
START = 1_650_900_000_000


def _converted(name: str, raw: Path, out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    DATASETS[name].convert(raw, out)
    return pd.read_parquet(out / "impressions.parquet"), pd.read_parquet(out / "feedback.parquet")


def _trivago_rows(*rows: tuple) -> pd.DataFrame:
    """Rows of (list, user, session, time, position, item, price, clicked, prev_image); the rest is constant."""
    columns = ["list_id", "user_id", "session_id", "timestamp", "position", "item_id", "price", "clicked", "prev_image"]
    frame = pd.DataFrame(rows, columns=columns)
    frame = frame.assign(step=1, device="mobile", platform="BR", city="Rio", n_filters=0, last_click=0)
    for action in ("info", "rating", "deals", "click", "search"):
        frame[f"prev_{action}"] = 0
    return frame.assign(list_len=frame.groupby("list_id")["item_id"].transform("size"))


TRIVAGO = _trivago_rows(
    (0, "a", "s1", 1000, 1, 10, 50.0, 0, 0),
    (0, "a", "s1", 1000, 2, 11, 100.0, 1, 2),
    (1, "b", "s2", 2000, 1, 11, 100.0, 1, 0),
    (1, "b", "s2", 2000, 2, 12, 200.0, 0, 0),
    (2, "a", "s1", 3000, 1, 11, 100.0, 0, 1),
    (2, "a", "s1", 3000, 2, 12, 400.0, 1, 1),
)


def _clara2_rows(*rows: tuple) -> pd.DataFrame:
    """Rows of (page, session, t_ms, query, position, url, clicked, dwell_ms)."""
    columns = ["serp_id", "session_id", "t_ms", "query_id", "position", "url_id", "clicked", "dwell_ms"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(last_click_serp=frame["clicked"], last_click_session=(frame["dwell_ms"] == -2).astype(int))


CLARA2 = _clara2_rows(
    (0, 7, 0, 5, 1, 100, 1, 9_000),
    (0, 7, 0, 5, 2, 101, 0, -1),
    (1, 8, 2 * HOUR, 5, 1, 101, 0, -1),
    (1, 8, 2 * HOUR, 5, 2, 100, 1, -2),
    (1, 8, 2 * HOUR, 5, 3, 100, 0, -1),
    (2, 7, 2 * HOUR + 1000, 5, 1, 100, 0, -1),
    (3, 9, 4 * HOUR, 5, 1, 100, 0, -1),
)


def _kuairand_folder(folder: Path) -> Path:
    folder.mkdir()
    columns = [
        "user_id",
        "video_id",
        "time_ms",
        "tab",
        "is_click",
        "long_view",
        "is_like",
        "play_time_ms",
        "duration_ms",
    ]
    log = pd.DataFrame(
        [
            (1, 20, START, 1, 1, 1, 0, 9_000, 10_000),
            (1, 21, START + HOUR // 3, 1, 0, 0, 0, 0, 0),  # Within half an hour: the same request.
            (1, 20, START + HOUR // 3, 1, 0, 0, 0, 500, 10_000),  # The same video again.
            (2, 20, START + 2 * HOUR, 1, 1, 0, 1, 4_000, 10_000),
            (1, 20, START + 3 * HOUR, 1, 0, 0, 0, 0, 10_000),
        ],
        columns=columns,
    )
    for column in ("is_rand", "is_follow", "is_comment", "is_forward", "is_hate", "is_profile_enter"):
        log[column] = 0
    log.to_parquet(folder / "log.parquet")
    histories = {"user_id": [1], "history_len": [4], "watch_seq": [[20, 21, 22]]}
    pd.DataFrame(histories | {"long_watch_seq": [[22]], "like_seq": [[]]}).to_parquet(folder / "user_histories.parquet")
    users = pd.DataFrame({"user_id": [1, 2], "user_active_degree": ["full_active", "low_active"]})
    for column in kuairand.FILES["users.parquet"]:
        users[column] = users.get(column, 1)
    users.to_parquet(folder / "users.parquet")
    videos = {"video_id": [20, 21, 22], "author_id": [5, 5, 6], "video_type": "NORMAL", "upload_type": "Web"}
    videos |= {"music_type": [9.0, None, 9.0], "tag": ["3,4", None, "3"]}
    pd.DataFrame(videos).to_parquet(folder / "videos.parquet")
    return folder


def _folder_of(frame: pd.DataFrame, folder: Path) -> Path:
    folder.mkdir()
    frame.to_parquet(folder / "impressions.parquet")
    return folder


def test_sums_before_equal_a_loop() -> None:
    random = np.random.default_rng(3)
    keys, users = random.integers(0, 4, 200), random.integers(0, 5, 200)
    asked = random.integers(0, 40, 200).astype(float)  # Many ties.
    known = asked + random.integers(0, 3, 200)
    values = random.integers(0, 9, (200, 2)).astype(float)
    everyone, others = np.zeros((200, 2)), np.zeros((200, 2))
    for i in range(200):
        for j in range(200):
            if keys[j] == keys[i] and known[j] < asked[i]:
                everyone[i] += values[j]
                others[i] += values[j] * (users[j] != users[i])
    np.testing.assert_array_equal(sums_before(keys, known, values, asked), everyone)
    np.testing.assert_array_equal(sums_before_of_others(keys, users, known, values, asked), others)


def test_codes_tell_combinations_and_missing_values_apart() -> None:
    made = codes(np.array([1, 1, 2, 1]), np.array(["a", None, "a", "a"], dtype=object))
    assert made[0] == made[3]
    assert len(set(made.tolist())) == 3


def test_shrunk_is_the_prior_without_evidence() -> None:
    assert shrunk(np.array([0.0, 3.0]), np.array([0.0, 6.0]), 0.2, 10.0).tolist() == [0.2, 5.0 / 16.0]


def test_a_repeated_item_opens_a_request_of_its_own() -> None:
    requests = one_item_a_request(pd.Series(["r", "r", "r", "q"]), pd.Series([1, 1, 1, 1]))
    assert requests.tolist() == ["r", "r-repeat1", "r-repeat2", "q"]


def test_trivago_rows(tmp_path: Path) -> None:
    impressions, feedback = _converted("trivago", _folder_of(TRIVAGO, tmp_path / "raw"), tmp_path / "out")
    assert impressions["request_id"].tolist() == ["list0", "list0", "list1", "list1", "list2", "list2"]
    assert impressions["position"].tolist() == [1, 2, 1, 2, 1, 2]
    assert impressions["hotel_id"].tolist() == [10, 11, 11, 12, 11, 12]
    assert impressions["price_rank"].tolist() == [0.5, 1.0] * 3
    np.testing.assert_allclose(impressions["price_over_cheapest"], np.log([1, 2, 1, 2, 1, 4]))
    assert impressions["previous_image_share"].tolist() == [0.0, 1.0, 0.0, 0.0, 0.5, 0.5]
    # Hotel 11 was clicked by a before b's list; a's second list counts b's click alone, not a's own.
    assert impressions["popularity_clicks"].tolist() == [0, 0, 1, 0, 1, 0]
    assert impressions["popularity_shown"].tolist() == [0, 0, 1, 0, 1, 1]
    assert impressions["session_clicked"].tolist() == [0, 0, 0, 0, 1, 0]
    assert impressions["session_lists"].tolist() == [0, 0, 0, 0, 1, 1]
    assert impressions["is_last_clicked"].tolist() == [0, 0, 0, 0, 1, 0]
    np.testing.assert_allclose(impressions["price_over_last_clicked"], [*[np.nan] * 4, 0.0, np.log(4)])
    assert feedback[["request_id", "item_id", "event", "timestamp"]].values.tolist() == [
        ["list0", "11", "click", 1000.0],
        ["list1", "11", "click", 2000.0],
        ["list2", "12", "click", 3000.0],
    ]


def test_clara2_rows(tmp_path: Path) -> None:
    impressions, feedback = _converted("clara2", _folder_of(CLARA2, tmp_path / "raw"), tmp_path / "out")
    expected = ["page0", "page0", "page1", "page1", "page1-repeat1", "page2", "page3"]
    assert impressions["request_id"].tolist() == expected
    assert impressions["timestamp"].tolist()[:3] == [1577836800.0, 1577836800.0, 1577844000.0]
    assert impressions["query_url"].tolist()[:2] == ["5_100", "5_101"]
    # Page 1 knows session 7's click of two hours ago; page 2 (session 7) knows page 1 not yet; page 3 knows all of it.
    assert impressions["pair_shown"].tolist() == [0, 0, 1, 1, 1, 0, 4]
    np.testing.assert_allclose(impressions["pair_click_rate"].iloc[[3, 6]], [(1 + 0.15) / 6, (2 + 0.15) / 9])
    np.testing.assert_allclose(impressions["pair_dwell"].iloc[3], (np.log1p(9.0) + 3.3) / 2)
    assert impressions["session_clicked"].tolist() == [0, 0, 0, 0, 0, 1, 0]
    rows = feedback.sort_values(["event", "timestamp"])[["request_id", "item_id", "event"]].values.tolist()
    assert rows == [
        ["page0", "100", "click"],
        ["page1", "100", "click"],
        ["page0", "100", "dwell"],
        ["page0", "100", "last_click"],
        ["page1", "100", "last_click"],
        ["page1", "100", "session_last_click"],
    ]
    assert feedback.loc[feedback["event"] == "dwell", "value"].tolist() == [9.0]


def test_kuairand_rows(tmp_path: Path) -> None:
    impressions, feedback = _converted("kuairand", _kuairand_folder(tmp_path / "raw"), tmp_path / "out")
    first = f"user1-tab1-{START}"
    assert impressions["request_id"].tolist() == [
        first,
        f"{first}-repeat1",
        first,
        f"user2-tab1-{START + 2 * HOUR}",
        f"user1-tab1-{START + 3 * HOUR}",
    ]
    assert impressions["video_id"].tolist() == [20, 20, 21, 20, 20]
    assert impressions["timestamp"].tolist()[:3] == [START / 1e3] * 3
    assert impressions["tag"].tolist() == ["3", "3", None, "3", "3"]
    assert impressions["tags"].iloc[0].tolist() == ["3", "4"]
    assert impressions["duration"].isna().tolist() == [False, False, True, False, False]
    assert impressions["watch_history"].iloc[0].tolist() == [20, 21, 22]
    assert impressions["watch_history"].iloc[3] is None
    assert not impressions["random_order"].any()
    # 2022-04-25T15:20:00Z is 23:20 in Beijing.
    assert impressions["hour"].iloc[0] == 23
    np.testing.assert_allclose(impressions["history_long_watch_share"].iloc[0], (1 + 1) / (4 + 3))
    # Video 20 stands in the history of user 1 alone, so user 1 sees none, user 2 one.
    assert impressions["video_history_watches"].tolist() == [0, 0, 0, 1, 0]
    # User 2 knows three impressions by user 1; user 1's last request knows user 2's only when an hour has passed.
    assert impressions["video_impressions"].tolist() == [0, 0, 0, 2, 0]
    np.testing.assert_allclose(impressions["video_click_rate"].iloc[3], (1 + 9) / 22)
    assert impressions["user_impressions"].tolist() == [0, 0, 0, 0, 3]
    np.testing.assert_allclose(impressions["user_click_rate"].iloc[4], (1 + 3 * 0.45) / 6)
    watch = feedback[feedback["event"] == "watch"]
    assert watch["value"].tolist() == [9.0, 0.5, 4.0]
    counts = feedback["event"].value_counts().to_dict()
    assert counts == {"watch": 3, "click": 2, "long_view": 1, "like": 1}


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_presets_name_columns_that_the_converter_writes(name: str, tmp_path: Path) -> None:
    raw = {"kuairand": _kuairand_folder, "trivago": lambda to: _folder_of(TRIVAGO, to)}
    raw["clara2"] = lambda to: _folder_of(CLARA2, to)
    impressions, _ = _converted(name, raw[name](tmp_path / "raw"), tmp_path / "out")
    config = load_config(name)
    missing = {feature.name for feature in config.features} - set(impressions.columns)
    assert not missing
    assert config.item_key in impressions.columns


def test_detect_knows_each_folder(tmp_path: Path) -> None:
    assert detect(_kuairand_folder(tmp_path / "a")).name == "kuairand"
    assert detect(_folder_of(TRIVAGO, tmp_path / "b")).name == "trivago"
    assert detect(_folder_of(CLARA2, tmp_path / "c")).name == "clara2"


def test_detect_names_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text("x")
    with pytest.raises(InputError, match=r"kuairand \(log.parquet.*trivago.*clara2.*Received: movies.csv"):
        detect(tmp_path)


def test_detect_refuses_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be a folder. Received: "):
        detect(tmp_path / "nowhere")


def test_detect_refuses_a_broken_table(tmp_path: Path) -> None:
    (tmp_path / "impressions.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(InputError, match=r"must be a readable Parquet file. Received: "):
        detect(tmp_path)


def test_convert_names_a_missing_column(tmp_path: Path) -> None:
    raw = _folder_of(TRIVAGO.drop(columns="price"), tmp_path / "raw")
    with pytest.raises(InputError, match="Received: none named 'price'"):
        trivago.convert(raw, tmp_path / "out")


def test_convert_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be a readable Parquet file. Received: "):
        clara2.convert(tmp_path, tmp_path / "out")


def test_convert_leaves_an_existing_folder_alone(tmp_path: Path) -> None:
    raw, out = _folder_of(CLARA2, tmp_path / "raw"), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(InputError, match=r"new or empty folder. Received: "):
        clara2.convert(raw, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_logs_appear_complete_or_not_at_all(tmp_path: Path) -> None:
    good, bad = pd.DataFrame({"x": [1]}), pd.DataFrame({"x": [object()]})
    with pytest.raises(Exception, match="object"):
        write_logs(good, bad, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []

"""What every converter shares: reading raw tables, impressions that stand twice in a request, writing the two logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mmoe_ranker.errors import InputError
from mmoe_ranker.whole_files import writing_whole


def read_raw(folder: Path, file: str, columns: Sequence[str]) -> pd.DataFrame:
    """Reads one raw table.

    Raises:
      InputError: the file is missing, is not Parquet, or lacks a column.
    """
    path = folder / file
    try:
        schema = pq.read_schema(path)
        missing = [column for column in columns if column not in schema.names]
        if missing:
            raise InputError(
                f"The raw table {path} must have the columns {', '.join(columns)}. Received: none named {missing[0]!r}."
            )
        return pd.read_parquet(path, columns=list(columns))
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"The raw table {path} must be a readable Parquet file. Received: {reason}.") from None


def one_item_a_request(request_id: pd.Series, item_id: pd.Series) -> pd.Series:
    """Request ids under which every item stands once.

    Feedback names request and item, so an item that a list shows twice could not be told apart; its further showings
    become requests of their own, `<request>-repeat<k>`, and no raw row is lost.

    Args:
      request_id: strings [n].
      item_id: [n].

    Returns:
      strings [n].
    """
    repeat = pd.DataFrame({"request": request_id, "item": item_id}).groupby(["request", "item"]).cumcount()
    return request_id.where(repeat == 0, request_id + "-repeat" + repeat.astype(str))


def feedback_rows(
    impressions: pd.DataFrame,
    item_key: str,
    events: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    time: np.ndarray,
) -> pd.DataFrame:
    """One row for each event of each impression.

    Args:
      impressions: [n] rows with `request_id` and the item key.
      item_key: the item key's column.
      events: event name to a mask [n] of the impressions that have it, and its values [n] or None.
      time: float64 [n], UTC seconds.

    Returns:
      request_id, item_id, event, value, timestamp.
    """
    parts = []
    for event, (mask, values) in events.items():
        mask = np.asarray(mask, dtype=bool)
        parts.append(
            pd.DataFrame(
                {
                    "request_id": impressions["request_id"].to_numpy()[mask],
                    "item_id": impressions[item_key].astype(str).to_numpy()[mask],
                    "event": event,
                    "value": np.nan if values is None else np.asarray(values, dtype=np.float64)[mask],
                    "timestamp": time[mask],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def write_logs(impressions: pd.DataFrame, feedback: pd.DataFrame, out: Path) -> None:
    """Writes `impressions.parquet` and `feedback.parquet` into a folder that appears complete or not at all.

    Numbers that are missing (NaN) become nulls.

    Raises:
      InputError: `out` exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"The output must be a new or empty folder. Received: {str(out)!r}, which exists.")
    with writing_whole(out) as folder:
        for name, frame in (("impressions", impressions), ("feedback", feedback)):
            pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / f"{name}.parquet")

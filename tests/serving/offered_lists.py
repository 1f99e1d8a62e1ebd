"""Lists offered to a ranked-list log, and the records that it wrote of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from serving.ranked_list_log import RankedListLog

CONTEXT = {"user_id": "u7", "device": "phone", "watch_history": ["v1", "v9"]}
CANDIDATES = [{"video_id": f"v{row}", "duration": 10.0 * row, "content": [0.5, row]} for row in range(4)]
WEIGHTS = {"click": 1.0, "like": 0.5}


def offer(log: RankedListLog, request_id: str | None = None, **changes: Any) -> str:
    arguments: dict[str, Any] = {"context": CONTEXT, "candidates": CANDIDATES, "order": [2, 0, 3, 1]}
    return log.offer(**(arguments | changes), model_version=7, score_weights=WEIGHTS, request_id=request_id)


def records(folder: Path) -> list[dict[str, Any]]:
    """Every record of the files that have appeared, in the order of their names."""
    files = sorted(folder.glob("ranked-lists-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]

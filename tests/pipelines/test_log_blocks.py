"""How logs are cut, and how much of them is reckoned to lie in a bucket of the join."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.log_blocks import list_blocks


def test_small_files_of_many_rows_count_as_what_they_become(tmp_path: Path):
    lines = b'{"request_id": "r1"}\n' * 1000
    (tmp_path / "plain.jsonl").write_bytes(lines)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(lines))
    pq.write_table(pa.table({"request_id": ["r1"] * 1000}), tmp_path / "rows.parquet", row_group_size=300)
    packed = (tmp_path / "packed.jsonl.gz").stat().st_size
    assert packed < 500
    for name, blocks, size in (
        ("plain.jsonl", 1, 21_000),
        ("packed.jsonl.gz", 1, 8 * packed),
        ("rows.parquet", 4, 256_000),
    ):
        listed, total = list_blocks("impressions", str(tmp_path / name))
        assert (len(listed), total) == (blocks, size)

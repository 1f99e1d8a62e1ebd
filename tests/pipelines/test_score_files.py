"""Batches cut from files before scoring, and ranks after it, against naive doubles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.errors import InputError
from pipelines.scoring import files
from pipelines.scoring.files import ExampleFile, ReadExamples, with_ranks
from pipelines.tfrecords import tfrecord_gzip

_rows = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([-1.5, -0.0, 0.0, 0.25, 3.0])), min_size=1)


@given(_rows)
@settings(deadline=None)
def test_ranks_equal_a_naive_sort(rows):
    requests, keys = zip(*rows, strict=True)
    scores = np.exp(np.array(keys, np.float32))
    table = pa.table(
        {"request_id": requests, "combined_score": scores, "_key": np.array(keys, np.float32), "click_label": scores}
    )
    ranked, count = with_ranks(table)
    assert ranked.column_names == ["request_id", "combined_score", "rank", "click_label"]
    assert count == len(set(requests))
    for request in set(requests):
        places = [place for place, name in enumerate(requests) if name == request]
        best_first = sorted(places, key=lambda place: -keys[place])
        assert [ranked["rank"][place].as_py() for place in best_first] == list(range(1, len(places) + 1))


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 35])
def test_batches_are_bounded_and_cut_by_the_file_alone(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "BATCH_ROWS", 10)
    records = [b"%d" % number for number in range(count)]
    path = tmp_path / "part.tfrecord.gz"
    path.write_bytes(tfrecord_gzip([pa.array(records, pa.binary())]))
    for piece in (7, 100, 1 << 20):
        monkeypatch.setattr("pipelines.tfrecords._PIECE", piece)
        batches = list(ReadExamples().process(ExampleFile(2, 5, str(path))))
        assert [batch.records.to_pylist() for batch in batches] == [
            records[start : start + 10] for start in range(0, count, 10)
        ]
        assert [batch.start for batch in batches] == list(range(0, count, 10))
        assert {(batch.file, batch.files) for batch in batches} <= {(2, 5)}


def test_a_broken_file_is_named(tmp_path: Path):
    path = tmp_path / "part.tfrecord.gz"
    path.write_bytes(tfrecord_gzip([pa.array([b"x" * 100])])[:-9])
    with pytest.raises(InputError, match=rf"must be a whole \.tfrecord\.gz \(.+\)\. Received: '{path}'\.$"):
        list(ReadExamples().process(ExampleFile(0, 1, str(path))))

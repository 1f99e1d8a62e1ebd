"""Impressions that two evaluations have in common, against a dict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.errors import InputError
from mmoe_ranker.pairing import pair_impressions

KEYS = ("request_id", "item_id", "position")

_impressions = st.lists(
    st.tuples(st.sampled_from([b"r1", b"r2", b"r\xff"]), st.sampled_from([b"", b"v1", b"v2"]), st.integers(-1, 2)),
    unique=True,
    max_size=20,
)


def _columns(impressions: list[tuple[bytes, bytes, int]]) -> dict[str, np.ndarray]:
    # As evaluation has them: objects of bytes, and integers.
    kinds = (object, object, np.int64)
    return {
        key: np.array([row[place] for row in impressions], dtype=kind)
        for place, (key, kind) in enumerate(zip(KEYS, kinds, strict=True))
    }


@settings(deadline=None)
@given(_impressions, _impressions)
def test_pairs_are_those_of_a_dict(first: list, second: list) -> None:
    pairing = pair_impressions(_columns(first), _columns(second), KEYS)
    rows = {impression: row for row, impression in enumerate(second)}
    expected = [(row, rows[impression]) for row, impression in enumerate(first) if impression in rows]
    assert list(zip(pairing.first.tolist(), pairing.second.tolist(), strict=True)) == expected
    assert (pairing.first_total, pairing.second_total) == (len(first), len(second))
    assert pairing.complete == (set(first) == set(second))


def test_an_impression_that_stands_twice_is_refused() -> None:
    once, twice = [(b"r1", b"v1", 1), (b"r1", b"v2", 2)], [(b"r1", b"v1", 1), (b"r1", b"v1", 1)]
    with pytest.raises(InputError, match=r"told apart by request_id, item_id, position\. Received: .* in the second"):
        pair_impressions(_columns(once), _columns(twice), KEYS)
    with pytest.raises(InputError, match=r"in the first evaluation\.$"):
        pair_impressions(_columns(twice), _columns(once), KEYS)

"""What the steps of the job count, whatever the order in which it is added up."""

from __future__ import annotations

from collections import Counter
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import grouping

NAMES = st.lists(st.sampled_from("abcdefghij"), max_size=30)


@given(st.lists(NAMES, max_size=6), st.data())
def test_ignored_names_are_bounded_in_any_order(parts, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "MAX_IGNORED", 4)
        whole = Counter(name for part in parts for name in part)

        def added(pieces):
            pieces = [
                Counter({("feedback", "ignored", name): many for name, many in Counter(p).items()}) for p in pieces
            ]
            return reduce(lambda one, other: grouping.few_ignored(one + other), pieces, Counter())

        bounded = {key[2]: many for key, many in added(parts).items()}
        assert bounded == {key[2]: many for key, many in added(data.draw(st.permutations(parts))).items()}
    kept = {name: many for name, many in bounded.items() if name != grouping.OTHER_EVENTS}
    assert kept.items() <= whole.items()
    assert len(kept) == min(4, len(whole))
    assert sum(bounded.values()) == whole.total()

"""Swaps under load: nobody who asks notices, broken versions included."""

from __future__ import annotations

import pytest

from tests.conformance.load import Report, load
from tests.conftest import TinyWorld


@pytest.mark.slow
def test_no_request_fails_while_versions_come_good_and_broken(tiny_world: TinyWorld) -> None:
    report = load(tiny_world.version, seconds=18.0, swap_seconds=3.0)
    assert (report.failures, report.problems) == ([], [])
    assert report.swaps >= 1
    assert report.refused >= 1
    assert len(report.latencies) > 100
    # Seconds do not show a leak; that a version which was dropped is freed, they do.
    assert max(size for _, size in report.memory) < 2 * report.memory[0][1]


def test_growth_is_of_the_last_third_over_the_middle_one() -> None:
    sizes = [1, 2, 3, 10, 10, 10, 15, 15, 99]
    assert Report(memory=[(float(place), size) for place, size in enumerate(sizes)]).growth == 1.5

"""Measuring two sides in turn, so that whatever else the machine does falls on both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from tqdm import tqdm


def seconds(action: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def cpu_seconds(action: Callable[[], object]) -> float:
    """How long one call computes in this thread, whatever else runs on the machine."""
    started = time.thread_time()
    action()
    return time.thread_time() - started


def in_turn(label: str, rounds: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Asks each side for its figure, round after round, every other round in reverse order.

    Returns:
      By side, `rounds` figures.
    """
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for number in tqdm(range(rounds), desc=label, unit=" rounds", leave=False, disable=None):
        for name in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            figures[name].append(sides[name]())
    return figures


def medians(figures: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each side."""
    return {name: statistics.median(values) for name, values in figures.items()}

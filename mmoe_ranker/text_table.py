"""A table of text, columns aligned to the right, as every report on a terminal prints it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The lines of a table, names first.

    Args:
        rows: By column's name, the cell; a row may lack columns. The columns stand in the order of their first row.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([row.get(name, "") for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]


def number(value: float | int | None) -> str:
    """A cell: whole numbers with their thousands, others with four digits, `-` where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def difference(interval: tuple[float, float, float]) -> str:
    """A cell: `value [low, high]` with signs, `*` where the interval leaves out 0, `-` where there is none."""
    value, low, high = interval
    if math.isnan(value):
        return "-"
    if math.isnan(low):
        return f"{value:+.4f}"
    star = "*" if low > 0 or high < 0 else " "
    return f"{value:+.4f} [{low:+.4f}, {high:+.4f}]{star}"

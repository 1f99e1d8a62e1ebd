"""What the page is made of: sections of sentences, tables and figures; and numbers as it writes them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from mmoe_ranker.report.figures import PageFigure

NOTHING = "\N{EN DASH}"
"""Where there is no value."""
_MINUS = "\N{MINUS SIGN}"

Cell: TypeAlias = str | tuple[str, str]
"""Text, or text and what stands small below it."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the first column names the rows, the others hold numbers.

    Attributes:
      caption: what it shows.
      columns: the names.
      rows: a cell a column; each row begins with its name.
      text_columns: those columns that hold no numbers.
      groups: titles above columns, each with how many it spans; () without.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    text_columns: frozenset[str] = frozenset()
    groups: Sequence[tuple[str, int]] = ()


@dataclasses.dataclass(frozen=True)
class Block:
    """Part of a section, in this order: heading, sentences, tables, figures."""

    heading: str = ""
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[PageFigure] = ()


@dataclasses.dataclass(frozen=True)
class Headline:
    """A figure that stands at the top of the page."""

    name: str
    value: str
    beside: str = ""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A sentence on what the figures say; `attention` where somebody should look."""

    text: str
    attention: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
      id: its anchor.
      title: in the table of contents too.
      paragraphs: sentences before all else.
      headlines: large figures.
      findings: sentences, as a list.
      blocks: tables and figures.
      missing: sentences on what is not here, and why.
      explorer: what the weight explorer shows, or None.
      text: a file as it is, to copy; or "".
    """

    id: str
    title: str
    paragraphs: Sequence[str] = ()
    headlines: Sequence[Headline] = ()
    findings: Sequence[Finding] = ()
    blocks: Sequence[Block] = ()
    missing: Sequence[str] = ()
    explorer: Mapping[str, Any] | None = None
    text: str = ""


def number(value: float | None, digits: int | None = None) -> str:
    """A number as a cell of a table.

    Args:
      value: None or NaN where there is none.
      digits: after the point; by default so many that four or five count.

    Example:
      >>> [number(value) for value in (1234567, 0.74211, 138.2599, 0.00012345)]
      ['1,234,567', '0.7421', '138.3', '0.00012']
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if isinstance(value, int) and digits is None:
        return f"{value:,}".replace("-", _MINUS)
    if digits is None:
        size = abs(value)
        digits = 5 if 0 < size < 0.001 else 4 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    return f"{value:,.{digits}f}".replace("-", _MINUS)


def signed(value: float) -> str:
    """A difference, with its sign.

    Example:
      >>> signed(0.00312)
      '+0.0031'
    """
    return f"{value:+.4f}".replace("-", _MINUS)


def percent(share: float | None, digits: int = 1) -> str:
    """A share as percent.

    Example:
      >>> percent(0.14479)
      '14.5 %'
    """
    return NOTHING if share is None or not math.isfinite(share) else f"{number(100 * share, digits)} %"


def interval(low: float | None, high: float | None, digits: int | None = None) -> str:
    """The two ends of an interval as a cell.

    Args:
      low: None where there is none.
      high: None where there is none.
      digits: as of `number`.

    Example:
      >>> interval(0.7, 0.8, 2)
      '0.70 to 0.80'
    """
    ends = number(low, digits), number(high, digits)
    return NOTHING if NOTHING in ends else f"{ends[0]} to {ends[1]}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    Example:
      >>> listed(["click", "like", "dismiss"])
      'click, like and dismiss'
    """
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)

"""One finding of `check`."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

SEVERITIES = ("error", "warning", "note")


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is not as it should be, and what to do.

    Attributes:
      severity: `error` would spoil training; `warning` costs quality, or makes a figure say less than it seems to;
        `note` is good to know.
      code: names the kind of finding, for programs.
      about: the feature, objective, event or log.
      sentence: what was found, with figures.
      suggestion: what to do.
    """

    severity: Literal["error", "warning", "note"]
    code: str
    about: str
    sentence: str
    suggestion: str


def percent(share: float | None) -> str:
    """A share as text; small ones keep two digits."""
    if share is None:
        return "-"
    for digits in (0, 1, 2, 3):
        if share == 0 or share * 100 >= 10 ** (1 - digits):
            return f"{share * 100:.{digits}f} %"
    return f"{share * 100:.1g} %"


def duration(seconds: float) -> str:
    """Seconds as text, in the largest unit of which there are at least two."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} seconds"


def number(value: Any) -> str:
    """A number as text, four digits of it."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
